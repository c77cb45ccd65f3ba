"""One of several independent runs that write into one prediction, without a scheduler.

A shard writes the finest levels of its own tiles, and says in a file of its own which
of them are done. Who finishes last, or the next plain run, makes the coarse levels and
puts all marks into one file. So no two processes ever change the same file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputBusyError, OutputError
from ..files import write_bytes
from ..lock import OutputLock, check_free
from .marks import DONE, SHARD_LOCK, check_no_shard
from .record import LOCK, PRIVATE
from .store import writable, write_finest

if TYPE_CHECKING:
    from .filled import FilledTile
    from .writer import LabelWriter


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
        self._finest = {name: i.levels[0] for name, i in writer.images.items()}
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
        name = f"{SHARD_LOCK}{self._name}"
        try:
            with writable(path):
                self._lock = OutputLock(path / PRIVATE / name, path)
                # After the own lock was taken: of a shard and a plain run that begin
                # at once, one sees the other.
                check_free(path / PRIVATE / LOCK, path)
                self._writer.check_same()
                if not self._marks.exists():
                    write_bytes(self._marks, bytes(len(self._writer.done)))
        except OutputError:
            self._let_go()
            raise

    def write(self, filled: FilledTile) -> None:
        """Write a tile at the finest levels, then mark it."""
        if self._lock is not None:
            self._lock.check()
        with writable(self._writer.path):
            write_finest(self._finest, filled)
            with open(self._marks, "r+b", buffering=0) as file:
                file.seek(filled.tile.index)
                file.write(b"\x01")

    def close(self) -> None:
        """Let go; the last shard makes the coarse levels."""
        if self._lock is None:
            return
        # First: of two that end at the same time, the later one finds no lock.
        self._let_go()
        while self._writer.all_marked():
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
