"""The coarse levels of a pyramid that grows: chunks in memory, written late.

Each tile changes a few pixels of many coarse chunks. Writing each of those chunks for
each tile takes more than twice as long as all else (docs/benchmarks/prediction.md), so
chunks are kept in memory and written when they have not changed for a while, when there
are too many, and at the end. Who reads through this module sees the newest pixels.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ..data.zarr_writer import halve_labels

if TYPE_CHECKING:
    from .checks import PixelBox

KEPT_CHUNKS = 32
"""Of a level, in memory, at most."""
KEPT_BYTES = 8 * 2**20
"""Of a level, in memory: less chunks where there are many classes."""
LEAST_CHUNKS = 2
"""Of a level, in memory, however many classes there are."""


class CoarseLevel:
    """A zarr array whose chunks are changed in memory; safe from any thread.

    Parameters
    ----------
    array
        (h, w) or (K, h, w). All K planes of a chunk are kept together.
    kept
        Chunks in memory; None: as many as are cheap.
    """

    def __init__(self, array: zarr.Array[Any], kept: int | None = None) -> None:
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype = array.dtype
        self.chunks: tuple[int, ...] = array.chunks
        self.ndim: int = array.ndim
        self._plane: tuple[int, int] = (array.shape[-2], array.shape[-1])
        self._edges: tuple[int, int] = (array.chunks[-2], array.chunks[-1])
        if kept is None:
            each = math.prod((*array.shape[:-2], *self._edges)) * array.dtype.itemsize
            kept = max(LEAST_CHUNKS, min(KEPT_CHUNKS, KEPT_BYTES // each))
        self._kept = kept
        self._lock = threading.RLock()
        self._chunks: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._changed: set[tuple[int, int]] = set()

    @property
    def size(self) -> int:
        """Pixels."""
        return math.prod(self.shape)

    def __getitem__(self, key: Any) -> Any:
        box = _box(key, self.shape)
        if box is None:
            self.flush()
            return self.array[key]
        y0, x0, y1, x1 = box
        out = np.empty((*self.shape[:-2], y1 - y0, x1 - x0), dtype=self.dtype)
        with self._lock:
            for place, mine, theirs in self._pieces(box):
                out[..., *mine] = self._chunk(place)[..., *theirs]
        return out

    def __setitem__(self, key: Any, pixels: NDArray[Any]) -> None:
        box = _box(key, self.shape)
        if box is None:
            raise IndexError(f"{key} is not a box of rows and columns.")
        with self._lock:
            for place, mine, theirs in self._pieces(box):
                self._chunk(place)[..., *theirs] = pixels[..., *mine]
                self._changed.add(place)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[..., :, :], dtype=dtype)

    def flush(self) -> None:
        """Write what has changed."""
        with self._lock:
            for place in sorted(self._changed):
                self._write(place)

    def _pieces(
        self, box: tuple[int, int, int, int]
    ) -> Iterator[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
        """Chunks of a box: place, part of the box, part of the chunk."""
        axes = [
            list(_split(box[axis], box[axis + 2], self._edges[axis]))
            for axis in range(2)
        ]
        for (row, my_rows, rows), (column, my_columns, columns) in product(*axes):
            yield (row, column), (my_rows, my_columns), (rows, columns)

    def _chunk(self, place: tuple[int, int]) -> NDArray[Any]:
        chunk = self._chunks.get(place)
        if chunk is None:
            chunk = np.array(self.array[self._region(place)])
            self._chunks[place] = chunk
        self._chunks.move_to_end(place)
        while len(self._chunks) > self._kept:
            oldest = next(iter(self._chunks))
            if oldest in self._changed:
                self._write(oldest)
            del self._chunks[oldest]
        return chunk

    def _write(self, place: tuple[int, int]) -> None:
        self.array[self._region(place)] = self._chunks[place]
        self._changed.discard(place)

    def _region(self, place: tuple[int, int]) -> tuple[Any, ...]:
        rows, columns = (
            slice(p * c, min((p + 1) * c, n))
            for p, c, n in zip(place, self._edges, self._plane, strict=True)
        )
        return ..., rows, columns


def _split(lower: int, upper: int, chunk: int) -> Iterator[tuple[int, slice, slice]]:
    """Cut a span at chunk borders: place, part of the span, part of the chunk."""
    for place in range(lower // chunk, -(-upper // chunk)):
        first = max(place * chunk, lower)
        last = min((place + 1) * chunk, upper)
        yield (
            place,
            slice(first - lower, last - lower),
            slice(first - place * chunk, last - place * chunk),
        )


Level = zarr.Array[Any] | CoarseLevel
Halve = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Pixels (..., h, w) at half the size."""


def write_levels(
    levels: Sequence[Level],
    box: PixelBox,
    pixels: NDArray[np.uint8],
    first: int = 0,
    halve: Halve = halve_labels,
) -> None:
    """Write pixels at level 0 and what follows from them at the coarser levels.

    Parameters
    ----------
    levels
        Level k of shape (..., ceil(h / 2**k), ceil(w / 2**k)), uint8.
    box
        (y0, x0, y1, x1) in pixels of level 0.
    pixels
        (..., *shape of ``box``).
    first
        Finest level to be written.
    halve
        Makes the next coarser level; the last row or column of an odd edge alone.
    """
    y0, x0, y1, x1 = box
    if first == 0:
        levels[0][..., y0:y1, x0:x1] = pixels
    for finer, level in pairwise(levels):
        height, width = finer.shape[-2:]
        top, left, bottom, right = y0 // 2, x0 // 2, -(-y1 // 2), -(-x1 // 2)
        whole = (2 * top, 2 * left, min(2 * bottom, height), min(2 * right, width))
        if whole != (y0, x0, y1, x1):
            # A pixel here has parts of other tiles, which are on disk.
            y0, x0, y1, x1 = whole
            pixels = np.asarray(finer[..., y0:y1, x0:x1])
        pixels = halve(pixels)
        y0, x0, y1, x1 = top, left, bottom, right
        level[..., y0:y1, x0:x1] = pixels


def _box(key: Any, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Rows and columns of a plain box in all planes, None for any other index."""
    if not isinstance(key, tuple):
        return None
    if len(key) == 3 and key[0] is Ellipsis:
        key = key[1:]
    elif len(key) != len(shape):
        return None
    if len(key) != 2:
        return None
    spans = []
    for part, length in zip(key, shape[-2:], strict=True):
        if not isinstance(part, slice) or part.step not in (None, 1):
            return None
        start, stop, _ = part.indices(length)
        spans.append((start, max(start, stop)))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]
