"""How much of a prediction each class covers; torch-free.

From a coarse level at once, while a prediction runs; from the finest one exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ..data.units import micrometres
from ..errors import OutputError
from ..progress import (
    Progress,
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)
from .marks import shard_marks
from .record import read_record
from .store import read_marks

VALUES = 256
"""Of a byte."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassArea:
    """One class of a prediction."""

    label: int
    """1..K."""
    name: str
    color: str
    """``#rrggbb``."""
    pixels: int
    """Of the slide's finest level."""
    um2: float | None
    """Square micrometres; None where the size of a pixel is not known."""
    share: float
    """Of all pixels with a label; 0 where there are none."""


def count_labels(labels: NDArray[np.uint8]) -> Counts:
    """Return how often each of the values 0 to 255 comes, shape (256,)."""
    return np.bincount(labels.ravel(), minlength=VALUES).astype(np.int64)


def class_areas(
    counts: Counts,
    names: Sequence[str],
    colors: Sequence[str],
    pixel_size: Sequence[float] | None,
    step: int = 1,
) -> tuple[ClassArea, ...]:
    """Turn counts of labels into areas.

    Parameters
    ----------
    counts
        (256,), see `count_labels`.
    names, colors
        Of the labels from 1 on.
    pixel_size
        Micrometres (y, x) of a pixel of the finest level; None: not known.
    step
        Pixels of the finest level along the edge of a counted one.
    """
    total = int(counts[1:].sum())
    area = None if pixel_size is None else math.prod(pixel_size)
    found = []
    for label, (name, color) in enumerate(zip(names, colors, strict=True), start=1):
        pixels = int(counts[label]) * step**2
        share = int(counts[label]) / total if total else 0.0
        um2 = None if area is None else pixels * area
        found.append(ClassArea(label, name, color, pixels, um2, share))
    return tuple(found)


def count_prediction(
    prediction: str | Path,
    *,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> Counts:
    """Count the pixels of each label, exactly; only finished tiles are read.

    Parameters
    ----------
    prediction
        A store of ours, finished or not.
    on_progress, should_stop
        Called after each tile.

    Returns
    -------
    ndarray
        (256,) int64; that of 0 is of finished tiles alone.

    Raises
    ------
    Cancelled
        If ``should_stop`` said so.
    """
    path = Path(prediction)
    finest = zarr.open_array(path / "0", mode="r")
    tiles = list(_tiles(path, finest))
    counts = np.zeros(VALUES, dtype=np.int64)
    for number, place in enumerate(tiles, start=1):
        check_stop(should_stop)
        counts += count_labels(np.asarray(finest[place]))
        on_progress(
            Progress(stage="evaluate", done=number, total=len(tiles), unit="tile")
        )
    return counts


def measure_areas(
    prediction: str | Path,
    *,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> tuple[ClassArea, ...]:
    """Return what each class of a prediction covers; see `count_prediction`.

    Raises
    ------
    OutputError
        If there is no prediction.
    Cancelled
        If ``should_stop`` said so.
    """
    path = Path(prediction)
    record = read_record(path)
    if record is None:
        raise OutputError(
            f"{path} holds no prediction of napari-muvit; predict the slide first."
        )
    counts = count_prediction(path, on_progress=on_progress, should_stop=should_stop)
    image = record.get("image", {})
    size, unit = image.get("pixel_size"), micrometres(image.get("unit"))
    um = None if size is None or unit is None else [float(v) * unit for v in size]
    return class_areas(counts, record["class_names"], record["class_colors"], um)


def _tiles(path: Path, finest: zarr.Array[Any]) -> Iterator[tuple[slice, slice]]:
    """Chunks of the finest level that are written."""
    flags = read_marks(path)
    done = flags.astype(bool) | shard_marks(path, len(flags))
    (height, width), (rows, columns) = finest.shape, finest.chunks
    grid = (-(-height // rows), -(-width // columns))
    for index, (row, column) in enumerate(product(*map(range, grid))):
        if len(done) == math.prod(grid) and not done[index]:
            continue
        yield (
            slice(row * rows, min((row + 1) * rows, height)),
            slice(column * columns, min((column + 1) * columns, width)),
        )
