"""Levels of a prediction that another process writes, always fresh on screen.

napari keeps the coarsest level of a multiscale layer in memory for ever, and dask keeps
every chunk, so a store that grows behind them stays empty on screen. Therefore levels
that are small enough are plain numpy arrays which are kept up to date here. Larger ones
are the zarr arrays that the prediction writes: the finest one at once, the others some
seconds later, so that new tiles are laid over them meanwhile.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.data.zarr_writer import halve_labels
from ..core.prediction.levels import write_levels

NUMPY_PIXELS = 6250**2
"""Levels of up to this many pixels are kept as numpy arrays (37 MiB)."""
LAID_OVER_SECONDS = 15.0
"""Longer than a prediction waits before it writes its coarse levels."""

PixelBox = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Tile:
    """Labels of a part of a slide."""

    box: PixelBox
    """(y0, x0, y1, x1) in pixels of the slide's finest level."""
    labels: NDArray[np.uint8]
    """Of its shape; 0 where nothing is known."""


class LateLevel:
    """An array that is written late, under tiles that are newer.

    Parameters
    ----------
    array
        (h, w) zarr array, uint8.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape: tuple[int, int] = array.shape
        self.dtype = array.dtype
        self.ndim = 2
        self.chunks: tuple[int, int] = array.chunks
        self._newer: deque[tuple[float, PixelBox, NDArray[np.uint8]]] = deque()

    @property
    def size(self) -> int:
        """Pixels."""
        return math.prod(self.shape)

    def lay(self, box: PixelBox, labels: NDArray[np.uint8]) -> None:
        """Show a tile until the array has it."""
        now = time.monotonic()
        while self._newer and now - self._newer[0][0] > LAID_OVER_SECONDS:
            self._newer.popleft()
        self._newer.append((now, box, labels))

    def __getitem__(self, key: Any) -> Any:
        # Whatever napari asks for is rows and columns, with or without steps.
        rows, columns = (
            np.arange(length)[part]
            for part, length in zip(as_slices(key), self.shape, strict=True)
        )
        out = np.array(self.array[key])
        for _, (y0, x0, y1, x1), labels in list(self._newer):
            inside = np.flatnonzero((rows >= y0) & (rows < y1))
            across = np.flatnonzero((columns >= x0) & (columns < x1))
            if inside.size and across.size:
                out[np.ix_(inside, across)] = labels[
                    np.ix_(rows[inside] - y0, columns[across] - x0)
                ]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:, :], dtype=dtype)


def as_slices(key: Any) -> tuple[slice, slice]:
    """Return the rows and the columns that an index asks for."""
    parts = key if isinstance(key, tuple) else (key,)
    whole = [p for p in parts if p is not Ellipsis]
    whole += [slice(None)] * (2 - len(whole))
    if len(whole) != 2 or not all(isinstance(part, slice) for part in whole):
        raise IndexError(f"{key} is not a box of rows and columns.")
    return whole[0], whole[1]


@dataclass
class GrowingLevels:
    """The levels of a prediction, finest first, of which the coarse ones are numpy."""

    levels: list[Any]
    first: int
    """Index of the finest numpy level."""

    @classmethod
    def from_store(cls, levels: Sequence[Any]) -> GrowingLevels:
        """Read the small levels of a store; call it outside the GUI thread."""
        small = [math.prod(level.shape) <= NUMPY_PIXELS for level in levels]
        first = small.index(True) if any(small) else len(levels) - 1
        kept: list[Any] = []
        for index, level in enumerate(levels):
            if index >= first:
                kept.append(np.array(level[:, :], dtype=np.uint8))
            else:
                # A coarse level of the writer has the array on the disk inside.
                array = getattr(level, "array", level)
                kept.append(array if index == 0 else LateLevel(array))
        return cls(kept, first)

    def put(self, tile: Tile) -> None:
        """Write a tile into the numpy levels as the prediction writes its store."""
        y0, x0, y1, x1 = tile.box
        labels = np.asarray(tile.labels, dtype=np.uint8)
        for index in range(self.first):
            if index:
                self.levels[index].lay((y0, x0, y1, x1), labels)
            labels = halve_labels(labels)
            y0, x0, y1, x1 = y0 // 2, x0 // 2, -(-y1 // 2), -(-x1 // 2)
        write_levels(self.levels[self.first :], (y0, x0, y1, x1), labels)
