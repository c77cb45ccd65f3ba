"""Where to annotate next: the places about which a prediction says least; torch-free.

A place is a square of a given size. Those of the highest mean are taken one after the
other, none of them over another, so that each click goes somewhere new.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from ..errors import ConfigError, OutputError
from .checks import PixelBox
from .record import read_record

if TYPE_CHECKING:
    from ..data.tissue import TissueMask

WINDOW = 16
"""Pixels of a place at the level that is looked at, about: fine enough to tell places
apart, and a slide of 100,000 pixels is a map of some millions."""
MOST_PIXELS = 2**23
"""Of that level; beyond, a coarser one is looked at."""
LEAST_KNOWN = 0.5
"""Share of a place that must be predicted, and tissue."""

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A place to look at."""

    box: PixelBox
    """(y0, x0, y1, x1) in pixels of the slide's finest level."""
    score: float
    """From 0 to 1: mean uncertainty (1 - confidence), or share of changed pixels."""
    reason: Literal["uncertain", "context"]


def best_places(
    scores: Scores, known: Mask, window: tuple[int, int], count: int
) -> Iterator[tuple[int, int, float]]:
    """Find windows of the highest mean that do not overlap.

    Parameters
    ----------
    scores
        (h, w), 0 and up.
    known
        (h, w): which pixels count.
    window
        Edges (rows, columns) of a place in pixels; cut to the map where it is smaller.
    count
        How many, at most.

    Yields
    ------
    tuple of (int, int, float)
        First row, first column and mean over the known pixels, best first. Windows of
        which less than half is known, or with a mean of 0, are left out.
    """
    rows, columns = (min(w, n) for w, n in zip(window, scores.shape, strict=True))
    counts = _window_sums(known, rows, columns)
    sums = _window_sums(np.where(known, scores, 0.0), rows, columns)
    enough = counts >= LEAST_KNOWN * rows * columns
    means = np.where(enough, sums / np.maximum(counts, 1), 0.0)
    for _ in range(count):
        row, column = np.unravel_index(int(means.argmax()), means.shape)
        best = float(means[row, column])
        if best <= 0:
            return
        yield int(row), int(column), best
        means[
            max(0, row - rows + 1) : row + rows,
            max(0, column - columns + 1) : column + columns,
        ] = 0.0


def _window_sums(values: NDArray[Any], rows: int, columns: int) -> NDArray[np.float64]:
    """Sum of each window, (h - rows + 1, w - columns + 1)."""
    total = np.pad(values.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    lower, upper = total[:-rows], total[rows:]
    sums = upper[:, columns:] - upper[:, :-columns]
    sums -= lower[:, columns:] - lower[:, :-columns]
    # Differences of large sums leave crumbs where there is nothing.
    return np.where(sums > 1e-6, sums, 0.0)


def uncertain_places(
    prediction: str | Path,
    size: int,
    count: int = 5,
    *,
    tissue: TissueMask | None = None,
) -> tuple[Suggestion, ...]:
    """Find the places of a prediction about which the model is least sure.

    A coarse level is read, some megabytes whatever the size of the slide; the
    prediction may be unfinished.

    Parameters
    ----------
    prediction
        A store that was written with ``confidence``.
    size
        Edge of a place, pixels of the finest level.
    count
        How many, at most.
    tissue
        Only places with tissue; its world coordinates are pixels of the finest level.
        None: anywhere.

    Returns
    -------
    tuple of Suggestion
        Least sure first; fewer where there is no room for more.

    Raises
    ------
    ConfigError
        If ``size`` is no size, or the prediction has no confidence.
    OutputError
        If there is no prediction.
    """
    path = Path(prediction)
    if size < 1:
        raise ConfigError(f"The size of a place is {size}; 1 pixel or more is needed.")
    from scipy import ndimage

    names = _levels_with_confidence(path)
    shape = zarr.open_array(path / "0", mode="r").shape
    level = _level_for(shape, size, len(names))
    sure = np.asarray(zarr.open_array(path / "confidence" / names[level], mode="r")[:])
    labels = np.asarray(zarr.open_array(path / names[level], mode="r")[:])
    # Pixels at the border of what is predicted are means with nothing in them.
    known = ndimage.binary_erosion((labels > 0) & (sure > 0), border_value=1)
    step = 2**level
    if tissue is not None:
        known &= _tissue_on(tissue, known.shape, step)
    edge = max(1, round(size / step))
    unsure = np.asarray(1 - sure / np.float32(255), dtype=np.float32)
    found = best_places(unsure, known, (edge, edge), count)
    return tuple(
        Suggestion(_box(row, column, edge, step, shape), score, "uncertain")
        for row, column, score in found
    )


def _levels_with_confidence(path: Path) -> list[str]:
    record = read_record(path)
    if record is None:
        raise OutputError(
            f"{path} holds no prediction of napari-muvit; predict the slide first."
        )
    if "confidence" not in record.get("outputs", ()):
        raise ConfigError(
            f"{path.name} was predicted without confidence, so it does not say where "
            "the model is unsure; predict with confidence into a new output.",
            "outputs",
        )
    return sorted((p.name for p in path.iterdir() if p.name.isdigit()), key=int)


def _level_for(shape: tuple[int, ...], size: int, levels: int) -> int:
    """Return the level at which a place has about `WINDOW` pixels."""
    level = max(0, math.floor(math.log2(max(1.0, size / WINDOW))))
    while math.prod(n / 2**level for n in shape) > MOST_PIXELS:
        level += 1
    return min(level, levels - 1)


def _tissue_on(tissue: TissueMask, shape: tuple[int, ...], step: int) -> Mask:
    """Whether the middle of each pixel of a level lies in tissue, (h, w)."""
    places = []
    for axis, count in enumerate(shape):
        centres = (np.arange(count) + 0.5) * step
        place = (centres - tissue.extent.lower[axis]) / tissue.step[axis]
        last = tissue.mask.shape[axis] - 1
        places.append(np.clip(np.floor(place).astype(np.intp), 0, last))
    return np.asarray(tissue.mask[np.ix_(*places)])


def _box(
    row: int, column: int, edge: int, step: int, shape: tuple[int, ...]
) -> PixelBox:
    """Pixels of the finest level of a window at a level."""
    y0, x0 = row * step, column * step
    y1, x1 = (row + edge) * step, (column + edge) * step
    return y0, x0, min(y1, shape[0]), min(x1, shape[1])
