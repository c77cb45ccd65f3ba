"""Writing a prediction: a label pyramid on disk that can be continued at any moment.

The store is an OME-Zarr label image. Beside its levels lies ``.muvit/`` with
``run.json`` (what the prediction was made from), ``done`` (one byte a tile, set after
the tile's chunks are on disk) and ``lock`` (one writer at a time). A kill between
chunks and flag costs that one tile, which is then written again with the same pixels.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ..data.zarr_writer import halve_labels
from ..errors import OutputError
from ..lock import OutputLock, check_free
from .record import PRIVATE, read_record

if TYPE_CHECKING:
    from ..config import ModelConfig
    from ..data.pyramid import Pyramid
    from .checks import PixelBox
    from .plan import PredictionPlan, Tile

ZARR_MARKERS = ("zarr.json", ".zgroup", ".zarray")
"""Files of which a Zarr store has one."""


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
        self._lock: OutputLock | None = None
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
            aside.rename(self.path)
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
        self.levels = open_levels(self.path)
        if len(flags) != plan.num_tiles or self.levels[0].shape != plan.shape:
            raise OutputError(f"{self.path} is damaged; overwrite it.")
        self.done: NDArray[np.bool_] = flags.astype(bool)

    def begin(self) -> None:
        """Become the one writer, and read again what is done.

        Raises
        ------
        OutputError
            If another writer is at work or the disk refuses.
        """
        try:
            self._lock = OutputLock(self.path / PRIVATE / "lock", self.path)
            flags = (self.path / PRIVATE / "done").read_bytes()
            self.done = np.frombuffer(flags, np.uint8).astype(bool)
            # Left by a writer that was killed within a chunk.
            for partial in self.path.rglob("*.partial"):
                partial.unlink(missing_ok=True)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(_refused(self.path, error)) from error

    def write(self, tile: Tile, labels: NDArray[np.uint8]) -> None:
        """Write a tile at all levels, then mark it as done.

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
            write_levels(self.levels, tile.box, labels)
            with open(self.path / PRIVATE / "done", "r+b", buffering=0) as file:
                file.seek(tile.index)
                file.write(b"\x01")
        except OSError as error:
            raise OutputError(_refused(self.path, error)) from error
        self.done[tile.index] = True
        if self._lock is not None:
            self._lock.touch()

    def close(self) -> None:
        """Let others write; calling it again does nothing."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def write_levels(
    levels: list[zarr.Array[Any]], box: PixelBox, labels: NDArray[np.uint8]
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
    """
    y0, x0, y1, x1 = box
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
    try:
        metadata = json.loads((path / "zarr.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return bool(metadata.get("node_type") == "group")
