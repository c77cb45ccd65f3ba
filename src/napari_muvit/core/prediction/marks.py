"""Which tiles shards have done, and whether one is at work; torch-free."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..lock import check_free
from .record import PRIVATE

DONE = "done-"
"""Shards' files of marks are called ``done-i-of-n``."""
SHARD_LOCK = "lock-"
"""Their locks are called ``lock-i-of-n``."""


def shard_marks(store: Path, count: int) -> NDArray[np.bool_]:
    """One flag a tile: whether a shard has marked it as done."""
    found = np.zeros(count, dtype=bool)
    for path in _mark_files(store):
        with contextlib.suppress(FileNotFoundError):
            marks = np.frombuffer(path.read_bytes(), np.uint8)
            if len(marks) == count:
                found |= marks.astype(bool)
    return found


def check_no_shard(store: Path) -> None:
    """Raise `OutputError` when a shard is at work."""
    for path in sorted((store / PRIVATE).glob(f"{SHARD_LOCK}*-of-*")):
        if path.suffix != ".taking":
            check_free(path, store)


def forget_shards(store: Path) -> None:
    """Remove the marks of shards, which have been taken over."""
    for path in _mark_files(store):
        path.unlink(missing_ok=True)


def _mark_files(store: Path) -> list[Path]:
    return sorted((store / PRIVATE).glob(f"{DONE}*-of-*"))
