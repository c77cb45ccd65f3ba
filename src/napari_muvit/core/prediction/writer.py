"""Writing a prediction: a label pyramid on disk that can be continued at any moment.

Beside the levels of the store (`store`) lies ``.muvit/`` with ``run.json`` (what the
prediction was made from), ``done`` (one byte a tile) and ``lock`` (one writer at a
time). A tile's byte is 1 once its chunks at the finest level of all images are
written, and 2 once the coarse levels are, which are kept in memory for a few seconds
(`levels`). A kill between chunk and byte costs that one tile, which is written again
with the same pixels; after a kill before the coarse levels were written, the next run
makes them anew from the finest one. The system decides when what is written reaches the
disk: a process that dies loses nothing, a power cut may lose the last half minute.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputBusyError, OutputError
from ..lock import OutputLock
from .filled import LABELS, FilledTile
from .levels import CoarseLevel, Level, write_levels
from .marks import check_no_shard, forget_shards, shard_marks
from .place import refuse_image, remove_left, remove_store
from .record import LOCK, PRIVATE, STOP, read_record, same_run
from .store import (
    StoredImage,
    check_same,
    create_store,
    is_whole,
    open_images,
    read_marks,
    writable,
)

if TYPE_CHECKING:
    from ..config import ModelConfig
    from ..data.pyramid import Pyramid
    from .checks import PixelBox
    from .plan import PredictionPlan
    from .tiles import Tile

FINEST, ALL = 1, 2
"""Values of a tile's byte: which levels are written."""
FLUSH_SECONDS = 5.0
"""How long coarse levels may wait."""
TOGETHER = 8
"""Tiles of other processes that are taken over at once."""


class TileWriter(Protocol):
    """Where finished tiles go."""

    def write(self, filled: FilledTile) -> None:
        """Write a tile in output pixels."""


class LabelWriter:
    """The one writer of a prediction, new or continued.

    Parameters
    ----------
    path
        Folder of the store; it is made, or continued when its identity is the same.
    pyramid
        The slide, for size, scale and place of the labels.
    plan
        What will be written.
    config
        Class names and colours.
    record
        What `describe_run` returned; stored as ``run.json``.
    overwrite
        Remove another image or prediction at ``path`` first.

    Raises
    ------
    OutputError
        If something else is at ``path``, another writer is at work, or the disk
        refuses.
    """

    def __init__(
        self,
        path: Path,
        pyramid: Pyramid,
        plan: PredictionPlan,
        config: ModelConfig,
        record: Mapping[str, Any],
        overwrite: bool = False,
    ) -> None:
        self.path = Path(os.path.abspath(path))
        self.plan = plan
        self.images: dict[str, StoredImage] = {}
        self._lock: OutputLock | None = None
        self._waiting: list[int] = []
        self._flushed = time.monotonic()
        refuse_image(self.path, pyramid.path)
        with writable(self.path):
            remove_left(self.path)
            if overwrite:
                remove_store(self.path)
            if not os.path.lexists(self.path):
                create_store(self.path, pyramid, plan, config, record)
            self._continue(plan, record)

    def _continue(self, plan: PredictionPlan, record: Mapping[str, Any]) -> None:
        found = read_record(self.path)
        if found is None:
            raise OutputError(
                f"{self.path} exists and is not a prediction of napari-muvit; choose "
                "another output, or overwrite it."
            )
        check_same(self.path, found, record)
        self.record: Mapping[str, Any] = found
        flags = read_marks(self.path)
        try:
            self.images = open_images(self.path, found.get("outputs", ()))
        except (FileNotFoundError, ValueError):
            # Zarr's own errors are of the second kind.
            self.images = {}
        if len(flags) != plan.num_tiles or not is_whole(self.images, plan.shape):
            raise OutputError(f"{self.path} is damaged; overwrite it.")
        self.done: NDArray[np.bool_] = flags.astype(bool) | shard_marks(
            self.path, len(flags)
        )

    @property
    def levels(self) -> list[Level]:
        """Of the labels, finest first."""
        return self.images[LABELS].levels

    def complete(self, wanted: NDArray[np.bool_]) -> None:
        """Make the coarse levels of finished tiles that a kill has cost."""
        flags = read_marks(self.path)
        if (flags[wanted] != ALL).any():
            # Somebody at work makes them.
            with contextlib.suppress(OutputBusyError):
                self.begin()
                self.close()

    def marked(self) -> NDArray[np.bool_]:
        """One flag a tile, as it is on disk now: whether somebody has done it."""
        flags = read_marks(self.path)
        return np.asarray(flags.astype(bool) | shard_marks(self.path, len(flags)))

    def all_marked(self) -> bool:
        """Whether somebody has done each tile that is asked for, shards together."""
        return bool(self.marked()[self.plan.indices()].all())

    def begin(self) -> None:
        """Become the one writer, and read again what is done.

        Raises
        ------
        OutputError
            If another writer is at work or the disk refuses.
        """
        try:
            with writable(self.path):
                self._lock = OutputLock(self.path / PRIVATE / LOCK, self.path)
                check_no_shard(self.path)
                self.check_same()
                self._take_up()
                # Left by a writer that was killed within a chunk.
                for partial in self.path.rglob("*.partial"):
                    partial.unlink(missing_ok=True)
        except OutputError:
            self._let_go()
            raise

    def check_same(self) -> None:
        """Raise `OutputError` if the store has been overwritten since it was opened."""
        if not same_run(read_record(self.path), self.record):
            raise OutputError(
                f"{self.path} was overwritten by another run meanwhile; run again."
            )

    @property
    def lock_text(self) -> str:
        """What the lock file holds as long as this is the one writer."""
        return "" if self._lock is None else self._lock.text

    def _take_up(self) -> None:
        """Take over what shards have done, and make the coarse levels that lack."""
        private = self.path / PRIVATE
        (private / STOP).unlink(missing_ok=True)
        flags = read_marks(self.path)
        self.done = self.marked()
        left = np.flatnonzero(self.done & (flags != ALL))
        for _ in self.adopt(self.plan.tile(int(index)) for index in left):
            pass
        forget_shards(self.path)

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def adopt(self, tiles: Iterable[Tile]) -> Iterator[FilledTile]:
        """Take over tiles whose finest levels other processes have written.

        Neighbours in a row are read and halved together, which takes half as long.

        Yields
        ------
        FilledTile
            Each tile in output pixels; its coarse levels are made by then.
        """
        for row in _rows(tiles):
            y0, left, y1, _ = row[0].box
            box = (y0, left, y1, row[-1].box[3])
            with writable(self.path):
                images = {
                    name: np.asarray(
                        image.levels[0][..., y0:y1, left : box[3]], dtype=np.uint8
                    )
                    for name, image in self.images.items()
                }
                self._put(images, box, [tile.index for tile in row], first=1)
            for tile in row:
                columns = slice(tile.box[1] - left, tile.box[3] - left)
                mine = {k: v[..., columns].copy() for k, v in images.items()}
                yield FilledTile(tile, **mine)

    def write(self, filled: FilledTile) -> None:
        """Write a tile, then mark it as done.

        Parameters
        ----------
        filled
            In output pixels, with all that the store holds.

        Raises
        ------
        OutputError
            If the disk refuses; what was marked before stays.
        """
        with writable(self.path):
            self._put(filled.images, filled.tile.box, [filled.tile.index], first=0)

    def _put(
        self,
        images: Mapping[str, NDArray[np.uint8]],
        box: PixelBox,
        indices: Sequence[int],
        first: int,
    ) -> None:
        """Write the tiles of a box from a level on, then mark them."""
        if self._lock is not None:
            self._lock.check()
        for name, pixels in images.items():
            image = self.images[name]
            write_levels(image.levels, box, pixels, first, image.halve)
        self._mark(indices, FINEST)
        self._waiting.extend(indices)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()
        self.done[list(indices)] = True

    def flush(self) -> None:
        """Write the coarse levels.

        Raises
        ------
        OSError
            If the disk refuses, or another process has taken over (`OutputError`); the
            next run makes them anew.
        """
        if self._lock is not None:
            self._lock.check()
        for image in self.images.values():
            for level in image.levels:
                if isinstance(level, CoarseLevel):
                    level.flush()
        self._mark(self._waiting, ALL)
        self._waiting.clear()
        self._flushed = time.monotonic()

    def _mark(self, indices: Sequence[int], value: int) -> None:
        with open(self.path / PRIVATE / "done", "r+b", buffering=0) as file:
            for index in indices:
                file.seek(index)
                file.write(bytes([value]))

    def close(self) -> None:
        """Write what waits and let others write; calling it again does nothing."""
        if self._lock is None:
            return
        try:
            with writable(self.path):
                if self._waiting:
                    self.flush()
        finally:
            self._let_go()


def _rows(tiles: Iterable[Tile]) -> Iterator[list[Tile]]:
    """Group tiles that lie side by side, a few at a time."""
    row: list[Tile] = []
    for tile in sorted(tiles, key=lambda tile: tile.index):
        beside = row and row[-1].box[0] == tile.box[0] and row[-1].box[3] == tile.box[1]
        if row and (not beside or len(row) == TOGETHER):
            yield row
            row = []
        row.append(tile)
    if row:
        yield row
