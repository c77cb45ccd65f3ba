"""A note of the training under way, by which a crash is found out about. No Qt."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

import psutil

from ..core.errors import OutputError
from ..core.files import write_json

NOTES = "training*.json"
"""One a training: there may be two panels, or two naparis."""


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


def remember(folder: Path, out: Path, slide: str) -> Unfinished:
    """Note that a training begins; it goes on without a note where that fails."""
    note = Unfinished(str(out), slide, os.getpid(), psutil.Process().create_time())
    with contextlib.suppress(OSError, OutputError):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(_place(folder, note), asdict(note))
    return note


def forget(folder: Path, note: Unfinished) -> None:
    """Note that it has ended."""
    for path in folder.glob(NOTES):
        if _read(path) == note:
            _remove(path)


def find(folder: Path) -> Unfinished | None:
    """Return the newest training that a crash has ended and of which a model is left.

    Notes of those of which nothing is left are deleted.
    """
    found: list[tuple[float, Unfinished]] = []
    for path in folder.glob(NOTES):
        note = _read(path)
        if note is not None and _lives(note):
            continue
        with contextlib.suppress(OSError):
            if note is not None and note.has_model:
                found.append((path.stat().st_mtime, note))
                continue
        _remove(path)
    return max(found, key=lambda one: one[0])[1] if found else None


def _place(folder: Path, note: Unfinished) -> Path:
    return folder / NOTES.replace("*", f"-{note.pid}-{crc32(note.out.encode()):08x}")


def _read(path: Path) -> Unfinished | None:
    try:
        return Unfinished(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _lives(note: Unfinished) -> bool:
    try:
        return bool(psutil.Process(note.pid).create_time() == note.started)
    except psutil.Error:
        return False
