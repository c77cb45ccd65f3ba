"""The file that a run goes on from: tensors and JSON in one safetensors file.

It appears whole or not at all, and nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError, OutputError

FORMAT_VERSION = 2
"""The first one numbered what the optimiser keeps, by the order of its parameters."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RunState:
    """Where a run stands after a whole step."""

    tensors: Mapping[str, Tensor]
    """Weights (``network.NAME``), what the optimiser keeps of each
    (``optimizer.NAME.ENTRY``), average (``average.NAME``)."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON types: step, seconds, history, what the run was asked for."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors under a prefix, without it."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): value
            for name, value in self.tensors.items()
            if name.startswith(start)
        }


def write_state(path: Path, state: RunState) -> None:
    """Write beside the place, then rename.

    Raises
    ------
    OutputError
        If the disk is full or cannot be written; the file that was there stays.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = path.with_name(path.name + ".part")
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.tensors.items()}
    content = {"format_version": FORMAT_VERSION, **state.facts}
    metadata = {"format": "pt", "state": json.dumps(content, allow_nan=True)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(tensors, temporary, metadata=metadata)
            _to_disk(temporary)
            temporary.replace(path)
        except (OSError, SafetensorError):
            # Half a file on a full disk is of no use, and takes the room.
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"The state to resume from could not be written to {path}: {error}. The "
            "one before it is kept; free the disk and go on with --resume."
        ) from error


def _to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def read_state(path: Path) -> RunState:
    """Read a state file, onto the CPU.

    Raises
    ------
    CheckpointError
        If it is missing, damaged or of a newer format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            # Copies: what is mapped keeps the file open, and Windows does not replace
            # an open file.
            tensors = {n: file.get_tensor(n).clone() for n in file.keys()}  # noqa: SIM118
        facts = json.loads(metadata["state"])
        version = facts["format_version"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Start the run anew with --overwrite."
        ) from error
    if version not in range(1, FORMAT_VERSION + 1):
        raise CheckpointError(
            f"{path} has the format {version}, this package reads up to "
            f"{FORMAT_VERSION}. Go on with the version that wrote it, or start anew "
            "with --overwrite."
        )
    return RunState(tensors=tensors, facts=facts)


def read_facts(path: Path) -> dict[str, Any]:
    """Read what a state file says, without its tensors; see `read_state`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["state"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Start the run anew with --overwrite."
        ) from error
    return dict(facts)
