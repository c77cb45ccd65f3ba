"""What a run left, also for whoever asks later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..config import ModelConfig
from ..errors import OutputError
from ..files import write_json
from ..progress import Progress, ProgressFn
from .run_folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """What a run left."""

    model_path: Path
    """Model folder with the best weights; those of the last step are in ``last``."""
    config: ModelConfig
    """Of the model."""
    best: Mapping[str, float]
    """Validation figures of the kept weights: ``val_loss``, and ``mDSC`` with
    ``Dice NAME`` or ``error LEVEL``; empty when it was stopped before the first
    validation."""
    history: tuple[Mapping[str, float], ...]
    """One row a validation: ``step``, ``seconds``, ``loss``, ``val_loss``, ``mDSC``."""
    stopped: str
    """``steps``, ``minutes``, ``early`` (no better validation for long) or
    ``stopped``."""
    steps: int
    """Optimiser steps done, those before a resume included."""
    seconds: float
    """Wall time of training, validation included."""
    cpu_seconds: float
    """Process CPU time of the same span."""
    notes: tuple[str, ...] = field(default=())
    """What the user should know about the data."""
    report: Path | None = None
    """The readable report; None where the run did not end."""


def write_record(folder: RunFolder, kind: str, result: TrainingResult) -> None:
    """Keep what a run did."""
    content = {
        "kind": kind,
        **{f.name: getattr(result, f.name) for f in fields(result)},
        "model_path": None,
        "report": None,
        "config": result.config.to_dict(),
    }
    write_json(folder.record, content)


def say_ended(result: TrainingResult, on_progress: ProgressFn) -> None:
    """Say that there is nothing left to do."""
    text = f"The run at {result.model_path} has ended; nothing is left to do."
    on_progress(Progress(stage="prepare", done=1, total=1, message=text))


def finished_result(folder: RunFolder, kind: str) -> TrainingResult | None:
    """Return what a run left that has ended; None where none has.

    Raises
    ------
    OutputError
        If another kind of run ended there, or its record is damaged.
    """
    if not folder.finished:
        return None
    try:
        content = json.loads(folder.record.read_text(encoding="utf-8"))
        found = content.pop("kind")
        names = {f.name for f in fields(TrainingResult)}
        values = {k: v for k, v in content.items() if k in names}
        config = ModelConfig.from_dict(values.pop("config"))
        history = tuple(values.pop("history"))
        notes = tuple(values.pop("notes"))
        del values["model_path"], values["report"]
        result = TrainingResult(
            model_path=folder.path, config=config, history=history, notes=notes,
            **values,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{folder.record} cannot be read: {error}. Start anew with --overwrite."
        ) from error
    if found != kind:
        raise OutputError(f"{folder.path} holds a {found} run, not {kind}.")
    return result
