"""One of several independent runs that write into one prediction, without a scheduler.

A shard writes the finest level of its own tiles, and says in a file of its own which of
them are done. Who finishes last, or the next plain run, makes the coarse levels and
puts all marks into one file. So no two processes ever change the same file.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError
from ..lock import OutputLock, check_free
from .record import PRIVATE

if TYPE_CHECKING:
    from .tiles import Tile
    from .writer import LabelWriter

DONE = "done-"
"""Shards' files of marks are called ``done-i-of-n``."""
LOCK = "lock-"


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
    for path in sorted((store / PRIVATE).glob(f"{LOCK}*-of-*")):
        if path.suffix != ".taking":
            check_free(path, store)


def forget_shards(store: Path) -> None:
    """Remove the marks of shards, which have been taken over."""
    for path in _mark_files(store):
        path.unlink(missing_ok=True)


def _mark_files(store: Path) -> list[Path]:
    return sorted((store / PRIVATE).glob(f"{DONE}*-of-*"))


class ShardWriter:
    """Writes the tiles of one shard.

    Parameters
    ----------
    writer
        The store, made or continued; its lock is not taken.
    shard
        (i, n), i from 0.
    """

    def __init__(self, writer: LabelWriter, shard: tuple[int, int]) -> None:
        self._writer = writer
        self._name = f"{shard[0]}-of-{shard[1]}"
        self._lock: OutputLock | None = None
        private = writer.path / PRIVATE
        self._marks = private / f"{DONE}{self._name}"

    def begin(self) -> None:
        """Become the one process of this shard.

        Raises
        ------
        OutputError
            If another one is at work, a plain run is, or the disk refuses.
        """
        path = self._writer.path
        check_free(path / PRIVATE / "lock", path)
        try:
            self._lock = OutputLock(path / PRIVATE / f"{LOCK}{self._name}", path)
            if not self._marks.exists():
                self._marks.write_bytes(bytes(len(self._writer.done)))
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(self._writer.refused(error)) from error

    def write(self, tile: Tile, labels: NDArray[np.uint8]) -> None:
        """Write a tile's labels at the finest level, then mark it."""
        y0, x0, y1, x1 = tile.box
        try:
            self._writer.levels[0][y0:y1, x0:x1] = labels
            with open(self._marks, "r+b", buffering=0) as file:
                file.seek(tile.index)
                file.write(b"\x01")
        except OSError as error:
            raise OutputError(self._writer.refused(error)) from error
        if self._lock is not None:
            self._lock.touch()

    def close(self) -> None:
        """Let go; the last shard makes the coarse levels."""
        if self._lock is None:
            return
        # First: of two that end at the same time, the later one finds no lock.
        self._lock.release()
        self._lock = None
        marked = self._writer.marked()
        # Of all shards: what a region or outlines leave of the slide.
        if marked[self._writer.plan.indices()].all():
            # Another shard may be at it, or still be at work.
            with contextlib.suppress(OutputError):
                self._writer.begin()
                self._writer.close()
