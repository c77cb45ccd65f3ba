"""Annotations as a label image on disk: block by block, whatever size the slide has."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from ..errors import AnnotationError, OutputError
from ..geometry import Box
from ..progress import (
    Progress,
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)
from .annotations import Annotations
from .pyramid import Pyramid
from .zarr_writer import write_pyramid

TILE = 512
"""Edge of the tiles of a TIFF, pixels."""
CENTIMETRES = {"micrometer": 1e-4, "nanometer": 1e-7, "millimeter": 0.1}
FINEST = 0.01
"""A smaller factor is a mistake, and would take years."""
CLASSIC_TIFF = 2**31
"""Larger ones are BigTIFF."""


def write_label_image(
    annotations: Annotations,
    image: Pyramid,
    out: str | Path,
    *,
    factor: float = 1,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> Path:
    """Write annotations as a label image over a slide.

    Pixel (i, j) holds the label at its centre, world position ``factor * (i + 0.5,
    j + 0.5)`` from the slide's corner; 0 = not annotated. ``Annotations.from_labels``
    with ``scale=factor`` reads it back.

    Parameters
    ----------
    annotations
        In the world coordinates of ``image``.
    image
        Gives extent, pixel size and translation; no pixel is read.
    out
        ``.zarr``: an OME-Zarr 0.5 label pyramid with class names and colours.
        ``.tif`` or ``.tiff``: one tiled level, the classes in its description. Nothing
        may be there yet; a run that ends early leaves nothing there.
    factor
        World pixels per pixel of the label image.
    on_progress, should_stop
        See `napari_muvit.core.progress`; the unit is blocks.

    Raises
    ------
    AnnotationError
        If the factor is wrong, or a label image among the items cannot be read.
    OutputError
        If the name is of another format, something is there, or it cannot be written.
    Cancelled
        If ``should_stop`` said so.
    """
    path = Path(os.path.abspath(out))
    if not np.isfinite(factor) or factor < FINEST:
        raise AnnotationError(f"The factor is {factor!r}; at least {FINEST} is needed.")
    if annotations.ndim != 2 or image.ndim != 2:
        raise AnnotationError(
            "Label images are written of planes only; the slide or its labels are a "
            "volume."
        )
    writers = {".zarr": _write_zarr, ".tif": _write_tiff, ".tiff": _write_tiff}
    if path.suffix.lower() not in writers:
        raise OutputError(f"{path} is none of .zarr, .tif and .tiff; choose one.")
    if path.exists():
        raise OutputError(f"{path} exists already; remove it or choose another name.")
    # A name of its own, so that whatever is there beforehand stays.
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    grid = _Grid(annotations, image, float(factor))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writers[path.suffix.lower()](grid, part, on_progress, should_stop)
        part.replace(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}. Free the disk, or "
            "choose another folder."
        ) from error
    finally:
        _remove(part)
    return path


class _Grid:
    """The pixels of the label image, rasterised where they are asked for."""

    def __init__(self, annotations: Annotations, image: Pyramid, factor: float) -> None:
        self.annotations, self.image, self.factor = annotations, image, factor
        self.origin = np.asarray(image.extent.lower)
        # A part of a pixel at the end is a pixel; one to the last bit is none.
        edges = np.asarray(image.extent.shape) / factor
        self.shape = tuple(int(n) for n in np.maximum(1, np.ceil(edges - 1e-6)))

    def read(self, lower: tuple[int, ...], upper: tuple[int, ...]) -> NDArray[np.uint8]:
        """Labels between two pixel edges, (h, w)."""
        low, high = (self.origin + self.factor * np.asarray(v) for v in (lower, upper))
        shape = [b - a for a, b in zip(lower, upper, strict=True)]
        return self.annotations.rasterise(Box(tuple(low), tuple(high)), shape)

    @property
    def pixel_size(self) -> tuple[float, ...] | None:
        """Physical edge of a pixel along y and x; None: unknown."""
        if self.image.pixel_size is None:
            return None
        pairs = zip(self.image.pixel_size, self.image.zoom, strict=True)
        return tuple(size / zoom * self.factor for size, zoom in pairs)

    @property
    def translation(self) -> tuple[float, ...] | None:
        """Physical centre of the first pixel; None: unknown."""
        size, stored = self.pixel_size, self.image.pixel_size
        if size is None or stored is None:
            return None
        first = self.image.translation or (0.0,) * len(stored)
        # Both first pixels begin at the same edge.
        triples = zip(first, stored, size, strict=True)
        return tuple(t + (b - a) / 2 for t, a, b in triples)


def _write_zarr(
    grid: _Grid, part: Path, on_progress: ProgressFn, should_stop: StopFn
) -> None:
    write_pyramid(
        part,
        grid.read,
        shape=grid.shape,
        dtype=np.uint8,
        labels=True,
        class_names=grid.annotations.class_names or (),
        class_colors=grid.annotations.class_colors or (),
        pixel_size=grid.pixel_size,
        translation=grid.translation,
        unit=grid.image.unit,
        name=grid.image.name,
        chunk=TILE,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def _write_tiff(
    grid: _Grid, part: Path, on_progress: ProgressFn, should_stop: StopFn
) -> None:
    edge = CENTIMETRES.get(grid.image.unit)
    resolution = None
    if grid.pixel_size is not None and edge is not None:
        y, x = (1 / (size * edge) for size in grid.pixel_size)
        resolution = (x, y)
    classes = {
        "class_names": grid.annotations.class_names,
        "class_colors": grid.annotations.class_colors,
    }
    large = int(np.prod(grid.shape)) > CLASSIC_TIFF
    with tifffile.TiffWriter(part, bigtiff=large) as file:
        file.write(
            _tiles(grid, on_progress, should_stop),
            shape=grid.shape,
            dtype=np.uint8,
            tile=(TILE, TILE),
            compression="zlib",
            photometric="minisblack",
            resolution=resolution,
            resolutionunit=None if resolution is None else "CENTIMETER",
            description=json.dumps(classes),
            metadata=None,
        )


def _tiles(
    grid: _Grid, on_progress: ProgressFn, should_stop: StopFn
) -> Iterator[NDArray[np.uint8]]:
    """Whole tiles, row by row; those at the end reach beyond the image."""
    corners = list(itertools.product(*(range(0, n, TILE) for n in grid.shape)))
    for done, corner in enumerate(corners):
        check_stop(should_stop)
        yield grid.read(corner, tuple(v + TILE for v in corner))
        on_progress(
            Progress(stage="write", done=done + 1, total=len(corners), unit="block")
        )


def _remove(part: Path) -> None:
    with contextlib.suppress(OSError):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()
