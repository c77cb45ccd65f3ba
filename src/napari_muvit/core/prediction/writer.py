"""Writing a prediction: a label pyramid on disk that can be continued at any moment.

The store is an OME-Zarr label image. Beside its levels lies ``.muvit/`` with
``run.json`` (what the prediction was made from), ``done`` (one byte a tile) and
``lock`` (one writer at a time). A tile's byte is 1 once its chunk at the finest level
is written, and 2 once the coarse levels are, which are kept in memory for a few seconds
(`levels`). A kill between chunk and byte costs that one tile, which is written again
with the same pixels; after a kill before the coarse levels were written, the next run
makes them anew from the finest one. The system decides when what is written reaches the
disk: a process that dies loses nothing, a power cut may lose the last half minute.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from ..data.zarr_writer import halve_labels
from ..errors import OutputError
from ..lock import OutputLock, check_free
from .levels import CoarseLevel
from .record import PRIVATE, STOP, read_json, read_record
from .shards import check_no_shard, forget_shards, shard_marks

if TYPE_CHECKING:
    from ..config import ModelConfig
    from ..data.pyramid import Pyramid
    from .checks import PixelBox
    from .plan import PredictionPlan
    from .tiles import Tile

Level = zarr.Array[Any] | CoarseLevel
FINEST, ALL = 1, 2
"""Values of a tile's byte: which levels are written."""
FLUSH_SECONDS = 5.0
"""How long coarse levels may wait."""
ZARR_MARKERS = ("zarr.json", ".zgroup", ".zarray")
"""Files of which a Zarr store has one."""


class TileWriter(Protocol):
    """Where finished tiles go."""

    def write(self, tile: Tile, labels: NDArray[np.uint8]) -> None:
        """Write a tile's labels, the shape of its box."""


class LabelWriter:
    """The one writer of a label pyramid, new or continued.

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
        self._lock: OutputLock | None = None
        self._waiting: list[int] = []
        self._flushed = time.monotonic()
        _refuse_image(self.path, pyramid.path)
        try:
            if overwrite:
                _remove(self.path)
            if not os.path.lexists(self.path):
                self._create(pyramid, plan, config, record)
            self._continue(plan, record)
        except OutputError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise OutputError(_refused(self.path, error)) from error

    def _create(
        self,
        pyramid: Pyramid,
        plan: PredictionPlan,
        config: ModelConfig,
        record: Mapping[str, Any],
    ) -> None:
        """Make the whole store aside and move it into place, so it is never half."""
        from ..data.ome_zarr import create_label_pyramid

        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.new")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        try:
            create_label_pyramid(
                aside, pyramid, config.names, config.colors, chunk=plan.tile_size
            )
            private = aside / PRIVATE
            private.mkdir()
            (private / "run.json").write_text(json.dumps(record, indent=1))
            (private / "done").write_bytes(bytes(plan.num_tiles))
            with contextlib.suppress(FileExistsError):
                # Of several shards that begin at once, one is the first.
                _move(aside, self.path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _continue(self, plan: PredictionPlan, record: Mapping[str, Any]) -> None:
        found = read_record(self.path)
        if found is None:
            raise OutputError(
                f"{self.path} exists and is not a prediction of napari-muvit; choose "
                "another output, or overwrite it."
            )
        known = found.get("identity") or {}
        wanted = record["identity"]
        other = [name for name in wanted if known.get(name) != wanted[name]]
        if other:
            raise OutputError(
                f"{self.path} holds a prediction with other "
                f"{' and other '.join(other)}; choose another output, or overwrite it."
            )
        self.record: Mapping[str, Any] = found
        flags = np.frombuffer((self.path / PRIVATE / "done").read_bytes(), np.uint8)
        finest, *coarse = open_levels(self.path)
        self.levels: list[Level] = [finest, *(CoarseLevel(level) for level in coarse)]
        if len(flags) != plan.num_tiles or self.levels[0].shape != plan.shape:
            raise OutputError(f"{self.path} is damaged; overwrite it.")
        self.done: NDArray[np.bool_] = flags.astype(bool) | shard_marks(
            self.path, len(flags)
        )

    def complete(self, wanted: NDArray[np.bool_]) -> None:
        """Make the coarse levels of finished tiles that a kill has cost."""
        flags = np.frombuffer((self.path / PRIVATE / "done").read_bytes(), np.uint8)
        if (flags[wanted] != ALL).any() and self.marked()[self.plan.indices()].all():
            self.begin()
            self.close()

    def marked(self) -> NDArray[np.bool_]:
        """One flag a tile, as it is on disk now: whether somebody has done it."""
        flags = np.frombuffer((self.path / PRIVATE / "done").read_bytes(), np.uint8)
        return np.asarray(flags.astype(bool) | shard_marks(self.path, len(flags)))

    def refused(self, error: OSError) -> str:
        """Return what to say when the disk refuses."""
        return _refused(self.path, error)

    def begin(self) -> None:
        """Become the one writer, and read again what is done.

        Raises
        ------
        OutputError
            If another writer is at work or the disk refuses.
        """
        try:
            self._lock = OutputLock(self.path / PRIVATE / "lock", self.path)
            check_no_shard(self.path)
            self._take_up()
            # Left by a writer that was killed within a chunk.
            for partial in self.path.rglob("*.partial"):
                partial.unlink(missing_ok=True)
        except OutputError:
            self._let_go()
            raise
        except OSError as error:
            self._let_go()
            raise OutputError(_refused(self.path, error)) from error

    def _take_up(self) -> None:
        """Take over what shards have done, and make the coarse levels that lack."""
        private = self.path / PRIVATE
        (private / STOP).unlink(missing_ok=True)
        flags = np.frombuffer((private / "done").read_bytes(), np.uint8)
        self.done = self.marked()
        for index in np.flatnonzero(self.done & (flags != ALL)):
            self.adopt(self.plan.tile(int(index)))
        forget_shards(self.path)

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def adopt(self, tile: Tile) -> NDArray[np.uint8]:
        """Take over a tile whose finest level another process has written.

        Returns
        -------
        ndarray
            Its labels, the shape of its box, uint8.
        """
        y0, x0, y1, x1 = tile.box
        try:
            labels = np.asarray(self.levels[0][y0:y1, x0:x1], dtype=np.uint8)
            self._put(tile, labels, first=1)
        except OSError as error:
            raise OutputError(_refused(self.path, error)) from error
        return labels

    def write(self, tile: Tile, labels: NDArray[np.uint8]) -> None:
        """Write a tile, then mark it as done.

        Parameters
        ----------
        tile
            Where.
        labels
            Shape of ``tile.box``, uint8.

        Raises
        ------
        OutputError
            If the disk refuses; what was marked before stays.
        """
        try:
            self._put(tile, labels, first=0)
        except OSError as error:
            raise OutputError(_refused(self.path, error)) from error

    def _put(self, tile: Tile, labels: NDArray[np.uint8], first: int) -> None:
        write_levels(self.levels, tile.box, labels, first)
        self._mark([tile.index], FINEST)
        self._waiting.append(tile.index)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()
        self.done[tile.index] = True
        self.keep()

    def keep(self) -> None:
        """Say that the lock is still held."""
        if self._lock is not None:
            self._lock.touch()

    def flush(self) -> None:
        """Write the coarse levels.

        Raises
        ------
        OSError
            If the disk refuses; the next run makes them anew.
        """
        for level in self.levels:
            if isinstance(level, CoarseLevel):
                level.flush()
        self._mark(self._waiting, ALL)
        self._waiting.clear()
        self._flushed = time.monotonic()

    def _mark(self, indices: list[int], value: int) -> None:
        with open(self.path / PRIVATE / "done", "r+b", buffering=0) as file:
            for index in indices:
                file.seek(index)
                file.write(bytes([value]))

    def close(self) -> None:
        """Write what waits and let others write; calling it again does nothing."""
        if self._lock is None:
            return
        try:
            if self._waiting:
                self.flush()
        except OSError as error:
            raise OutputError(_refused(self.path, error)) from error
        finally:
            self._let_go()


def write_levels(
    levels: Sequence[Level], box: PixelBox, labels: NDArray[np.uint8], first: int = 0
) -> None:
    """Write labels at level 0 and what follows from them at the coarser levels.

    Parameters
    ----------
    levels
        Level k of shape ceil(n / 2**k), uint8.
    box
        (y0, x0, y1, x1) in pixels of level 0.
    labels
        Shape of ``box``.
    first
        Finest level to be written.
    """
    y0, x0, y1, x1 = box
    if first == 0:
        levels[0][y0:y1, x0:x1] = labels
    for finer, level in pairwise(levels):
        height, width = finer.shape
        top, left, bottom, right = y0 // 2, x0 // 2, -(-y1 // 2), -(-x1 // 2)
        whole = (2 * top, 2 * left, min(2 * bottom, height), min(2 * right, width))
        if whole != (y0, x0, y1, x1):
            # A pixel here has parts of other tiles, which are on disk.
            y0, x0, y1, x1 = whole
            labels = np.asarray(finer[y0:y1, x0:x1])
        labels = halve_labels(labels)
        y0, x0, y1, x1 = top, left, bottom, right
        level[y0:y1, x0:x1] = labels


def _move(source: Path, target: Path) -> None:
    """Rename a folder; `FileExistsError` where the target is there meanwhile."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(str(target)) from error
        raise


def open_levels(path: Path) -> list[zarr.Array[Any]]:
    """Open the levels of a label pyramid for reading and writing, finest first."""
    names = sorted(int(p.name) for p in path.iterdir() if p.name.isdigit())
    return [zarr.open_array(path / str(name), mode="r+") for name in names]


def _refused(path: Path, error: OSError) -> str:
    return (
        f"{path} cannot be written: {error.strerror or error}. What is finished is "
        "kept; free the disk or choose another output, and run again."
    )


def _refuse_image(path: Path, image: Path | None) -> None:
    """Never write into, over or around the image that is read."""
    if image is None:
        return
    out, source = path.resolve(), Path(image).resolve()
    if out == source or out in source.parents or source in out.parents:
        raise OutputError(
            f"The output {path} and the image {image} lie inside each other; choose "
            "another output."
        )


def _remove(path: Path) -> None:
    """Remove a prediction or a single Zarr image, never anything else."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir() or not _is_single_store(path):
        raise OutputError(
            f"{path} is not a single Zarr image, so it is not overwritten; remove it "
            "yourself or choose another output."
        )
    check_free(path / PRIVATE / "lock", path)
    # Moved first: a kill while removing must not leave half a store at the path.
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    shutil.rmtree(aside)


def _is_single_store(path: Path) -> bool:
    """Whether a folder is our store, or a Zarr image that holds no other group."""
    if read_record(path) is not None:
        return True
    if not any((path / name).is_file() for name in ZARR_MARKERS):
        return False
    return not any(_is_group(child) for child in path.iterdir())


def _is_group(path: Path) -> bool:
    if (path / ".zgroup").is_file():
        return True
    metadata = read_json(path / "zarr.json") or {}
    return bool(metadata.get("node_type") == "group")
