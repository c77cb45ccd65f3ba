"""The coarse levels of a label pyramid that grows: chunks in memory, written late.

Each tile changes a few pixels of many coarse chunks. Writing each of those chunks for
each tile takes more than twice as long as all else (docs/benchmarks/prediction.md), so
chunks are kept in memory and written when they have not changed for a while, when there
are too many, and at the end. Who reads through this module sees the newest pixels.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import zarr

KEPT_CHUNKS = 32
"""Of a level, in memory."""


class CoarseLevel:
    """A 2D zarr array whose chunks are changed in memory; safe from any thread.

    Parameters
    ----------
    array
        (h, w) labels.
    kept
        Chunks in memory.
    """

    def __init__(self, array: zarr.Array[Any], kept: int = KEPT_CHUNKS) -> None:
        self.array = array
        self.shape: tuple[int, int] = (array.shape[0], array.shape[1])
        self.dtype = array.dtype
        self.chunks: tuple[int, int] = (array.chunks[0], array.chunks[1])
        self.ndim = 2
        self._kept = kept
        self._lock = threading.RLock()
        self._chunks: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._changed: set[tuple[int, int]] = set()

    @property
    def size(self) -> int:
        """Pixels."""
        return self.shape[0] * self.shape[1]

    def __getitem__(self, key: Any) -> Any:
        box = _box(key, self.shape)
        if box is None:
            self.flush()
            return self.array[key]
        y0, x0, y1, x1 = box
        out = np.empty((y1 - y0, x1 - x0), dtype=self.dtype)
        with self._lock:
            for place, mine, theirs in self._pieces(box):
                out[mine] = self._chunk(place)[theirs]
        return out

    def __setitem__(self, key: tuple[slice, slice], labels: NDArray[Any]) -> None:
        box = _box(key, self.shape)
        if box is None:
            raise IndexError(f"{key} is not a box of rows and columns.")
        with self._lock:
            for place, mine, theirs in self._pieces(box):
                self._chunk(place)[theirs] = labels[mine]
                self._changed.add(place)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:, :], dtype=dtype)

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
            list(_split(box[axis], box[axis + 2], self.chunks[axis]))
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

    def _region(self, place: tuple[int, int]) -> tuple[slice, slice]:
        rows, columns = (
            slice(p * c, min((p + 1) * c, n))
            for p, c, n in zip(place, self.chunks, self.shape, strict=True)
        )
        return rows, columns


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


def _box(key: Any, shape: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Rows and columns of a plain box, None for any other index."""
    if not (isinstance(key, tuple) and len(key) == 2):
        return None
    spans = []
    for part, length in zip(key, shape, strict=True):
        if not isinstance(part, slice) or part.step not in (None, 1):
            return None
        start, stop, _ = part.indices(length)
        spans.append((start, max(start, stop)))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]
