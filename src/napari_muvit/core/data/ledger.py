"""A list on disk of what is done: one JSON value a line, whole through any kill."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def start_ledger(path: Path, identity: Any) -> None:
    """Make the list; its first line says what it is of.

    Raises
    ------
    FileExistsError
        If it is there.
    """
    with path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(identity) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_ledger(path: Path) -> list[Any]:
    """Whole lines of the list; one that a killed run has cut off is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    lines = []
    for line in text.split("\n")[:-1]:
        # A line that was cut off by a kill and closed by the next run.
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines


@contextlib.contextmanager
def open_ledger(path: Path) -> Iterator[Callable[[Any], None]]:
    """Go on with a list; what is given writes one more line."""
    content = path.read_bytes()
    with path.open("a", encoding="utf-8") as file:
        # The end of a line that was cut off would spoil the next one.
        if content and not content.endswith(b"\n"):
            file.write("\n")

        def add(value: Any) -> None:
            file.write(json.dumps(value) + "\n")
            file.flush()

        yield add
