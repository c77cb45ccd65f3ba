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

from ..errors import OutputBusyError, OutputError
from ..files import write_bytes
from ..lock import OutputLock, check_free
from .record import LOCK, PRIVATE

if TYPE_CHECKING:
    from .tiles import Tile
    from .writer import LabelWriter

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
        try:
            self._lock = OutputLock(path / PRIVATE / f"{SHARD_LOCK}{self._name}", path)
            # After the own lock was taken: of a shard and a plain run that begin at
            # once, one sees the other.
            check_free(path / PRIVATE / LOCK, path)
            self._writer.check_same()
            if not self._marks.exists():
                write_bytes(self._marks, bytes(len(self._writer.done)))
        except OSError as error:
            self._let_go()
            if isinstance(error, OutputError):
                raise
            raise OutputError(self._writer.refused(error)) from error

    def write(self, tile: Tile, labels: NDArray[np.uint8]) -> None:
        """Write a tile's labels at the finest level, then mark it."""
        y0, x0, y1, x1 = tile.box
        if self._lock is not None:
            self._lock.check()
        try:
            self._writer.levels[0][y0:y1, x0:x1] = labels
            with open(self._marks, "r+b", buffering=0) as file:
                file.seek(tile.index)
                file.write(b"\x01")
        except OSError as error:
            raise OutputError(self._writer.refused(error)) from error

    def close(self) -> None:
        """Let go; the last shard makes the coarse levels."""
        if self._lock is None:
            return
        # First: of two that end at the same time, the later one finds no lock.
        self._let_go()
        asked = self._writer.plan.indices()
        while self._writer.marked()[asked].all():
            try:
                self._writer.begin()
                return self._writer.close()
            except OutputBusyError:
                # Another shard is at it, or still at work and will be. If it has ended
                # in between, it took this one for the one that is at it.
                if not _is_free(self._writer.path):
                    return None
        return None

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _is_free(store: Path) -> bool:
    """Whether nobody is at work."""
    try:
        check_free(store / PRIVATE / LOCK, store)
        check_no_shard(store)
    except OutputBusyError:
        return False
    return True
