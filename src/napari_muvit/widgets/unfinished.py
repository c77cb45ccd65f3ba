"""A note of the training under way, by which a crash is found out about. No Qt."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from ..core.errors import OutputError
from ..core.files import write_json

NOTE = "training.json"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A training that has begun."""

    out: str
    """Model folder; there is a model in it from the first save on."""
    slide: str
    """Name of the slide."""
    pid: int
    """Process of napari."""
    started: float
    """When that process began, seconds since the epoch."""

    @property
    def has_model(self) -> bool:
        """Whether something was saved before the crash."""
        return (Path(self.out) / "config.json").exists()


def remember(folder: Path, out: Path, slide: str) -> None:
    """Note that a training begins; it goes on without a note where that fails."""
    note = Unfinished(str(out), slide, os.getpid(), psutil.Process().create_time())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / NOTE, asdict(note))
    except (OSError, OutputError):
        return


def forget(folder: Path) -> None:
    """Note that it has ended."""
    with contextlib.suppress(OSError):
        (folder / NOTE).unlink(missing_ok=True)


def find(folder: Path) -> Unfinished | None:
    """Return the training that a crash has ended and of which a model is left."""
    try:
        note = Unfinished(**json.loads((folder / NOTE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    if _lives(note):
        return None
    return note if note.has_model else None


def _lives(note: Unfinished) -> bool:
    try:
        return bool(psutil.Process(note.pid).create_time() == note.started)
    except psutil.Error:
        return False
