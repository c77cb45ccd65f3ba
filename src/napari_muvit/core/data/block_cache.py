"""Decoded pixels that are kept: blocks of large levels, small levels as a whole.

One cache serves all slides of a process, so that the memory for decoded pixels does not
grow with the number of slides that are open.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = tuple[int, ...]
Pixels = NDArray[Any]

CACHE_BYTES = 256 * 2**20
"""Decoded pixels that a process keeps at most, all slides together."""
WHOLE_SHARE = 8
"""A level of at most this part of the cache is kept as one array."""
BLOCK_SHARE = 4
"""A block that is larger than this part of the cache is not kept."""


@dataclass(frozen=True, eq=False)
class BlockGrid:
    """A level as a grid of blocks that can be read."""

    key: Hashable
    """The same for the same pixels only, within a process."""
    shape: tuple[int, ...]
    """(C, *spatial)."""
    dtype: np.dtype[Any]
    """Pixel type."""
    edges: Index
    """Edge of a block along each spatial axis."""
    read: Callable[[Sequence[int], Sequence[int]], Pixels]
    """Pixels [lower, upper) as (C, *spatial)."""

    @property
    def counts(self) -> Index:
        """Blocks along each spatial axis."""
        return tuple(
            -(-n // e) for n, e in zip(self.shape[1:], self.edges, strict=True)
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the whole level."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def block_nbytes(self) -> int:
        """Bytes of a whole block."""
        return self.shape[0] * math.prod(self.edges) * self.dtype.itemsize


class _Whole:
    """A small level in memory, filled block by block as pixels are asked for."""

    def __init__(self, grid: BlockGrid) -> None:
        self.pixels: Pixels = np.empty(grid.shape, dtype=grid.dtype)
        self.nbytes = self.pixels.nbytes
        self._have = np.zeros(grid.counts, dtype=bool)
        self._complete = False
        self._lock = threading.Lock()

    def read(self, grid: BlockGrid, lower: Index, upper: Index) -> Pixels:
        """Return a view that nobody may write to."""
        if not self._complete:
            with self._lock:
                self._fill(grid, lower, upper)
        spans = [slice(v, u) for v, u in zip(lower, upper, strict=True)]
        view = self.pixels[(slice(None), *spans)]
        view.flags.writeable = False
        return view

    def _fill(self, grid: BlockGrid, lower: Index, upper: Index) -> None:
        first, last = _block_range(grid.edges, lower, upper)
        window = self._have[tuple(map(slice, first, last))]
        if window.all():
            return
        # One call for all that is missing: each call has its price.
        missing = np.argwhere(~window)
        first = tuple(
            int(f + m) for f, m in zip(first, missing.min(axis=0), strict=True)
        )
        size = missing.max(axis=0) - missing.min(axis=0) + 1
        last = tuple(int(f + s) for f, s in zip(first, size, strict=True))
        start, stop = _pixel_range(grid, first, last)
        spans = tuple(map(slice, start, stop))
        self.pixels[(slice(None), *spans)] = grid.read(start, stop)
        self._have[tuple(map(slice, first, last))] = True
        self._complete = bool(self._have.all())


class BlockCache:
    """Least recently used blocks, bounded in bytes, safe between threads.

    Parameters
    ----------
    max_bytes
        Bytes that are kept at most.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._start()

    def _start(self) -> None:
        self._held: OrderedDict[Hashable, Any] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process starts empty.
        if self is shared_cache():
            return shared_cache, ()
        return BlockCache, (self.max_bytes,)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept now."""
        return self._bytes

    def read(
        self, grid: BlockGrid, lower: Sequence[int], upper: Sequence[int]
    ) -> Pixels:
        """Return pixels [lower, upper) of a level, which must lie inside.

        Blocks are decoded once and kept as long as there is room.

        Returns
        -------
        ndarray
            (C, *spatial), not to be written to.
        """
        if self._pid != os.getpid():
            # Forked: a thread that is not in this process may hold a lock.
            self._start()
        low, high = tuple(lower), tuple(upper)
        if grid.nbytes <= self.max_bytes // WHOLE_SHARE:
            return self._whole(grid).read(grid, low, high)
        if grid.block_nbytes > self.max_bytes // BLOCK_SHARE:
            # In the order in which kept pixels lie: sums depend on it.
            return np.ascontiguousarray(grid.read(low, high))
        return self._assembled(grid, low, high)

    def _whole(self, grid: BlockGrid) -> _Whole:
        key = ("whole", grid.key)
        with self._lock:
            whole = self._held.get(key)
            if whole is None:
                whole = _Whole(grid)
                self._keep(key, whole)
            else:
                self._held.move_to_end(key)
        kept: _Whole = whole
        return kept

    def _assembled(self, grid: BlockGrid, lower: Index, upper: Index) -> Pixels:
        first, last = _block_range(grid.edges, lower, upper)
        found: dict[Index, Pixels | None] = {}
        found |= dict.fromkeys(itertools.product(*map(range, first, last)))
        with self._lock:
            for index in found:
                key = ("block", grid.key, index)
                block = self._held.get(key)
                if block is not None:
                    self._held.move_to_end(key)
                    found[index] = block
        missing = [index for index, block in found.items() if block is None]
        if missing:
            self._read_blocks(grid, missing, found)
        return _joined(grid, found, lower, upper)

    def _read_blocks(
        self, grid: BlockGrid, missing: list[Index], found: dict[Index, Pixels | None]
    ) -> None:
        """Read missing blocks by one call, and keep them."""
        first = tuple(min(axis) for axis in zip(*missing, strict=True))
        last = tuple(max(axis) + 1 for axis in zip(*missing, strict=True))
        start, stop = _pixel_range(grid, first, last)
        pixels = grid.read(start, stop)
        for index in missing:
            low, high = _pixel_range(grid, index, tuple(i + 1 for i in index))
            spans = tuple(
                slice(v - s, u - s) for v, u, s in zip(low, high, start, strict=True)
            )
            # A copy: a view would keep all that was read.
            found[index] = np.array(pixels[(slice(None), *spans)], order="C")
        with self._lock:
            for index in missing:
                self._keep(("block", grid.key, index), found[index])

    def _keep(self, key: Hashable, entry: Any) -> None:
        """Keep an entry and drop the oldest ones beyond the limit; under the lock."""
        if key in self._held:
            return
        self._held[key] = entry
        self._bytes += entry.nbytes
        while self._bytes > self.max_bytes and len(self._held) > 1:
            _, old = self._held.popitem(last=False)
            self._bytes -= old.nbytes


@functools.cache
def shared_cache() -> BlockCache:
    """Return the cache of this process."""
    return BlockCache()


def _block_range(edges: Index, lower: Index, upper: Index) -> tuple[Index, Index]:
    """First and last (exclusive) block along each axis."""
    first = tuple(v // e for v, e in zip(lower, edges, strict=True))
    return first, tuple(-(-u // e) for u, e in zip(upper, edges, strict=True))


def _pixel_range(grid: BlockGrid, first: Index, last: Index) -> tuple[Index, Index]:
    """Pixels [lower, upper) of blocks [first, last)."""
    lower = tuple(f * e for f, e in zip(first, grid.edges, strict=True))
    ends = zip(last, grid.edges, grid.shape[1:], strict=True)
    return lower, tuple(min(m * e, n) for m, e, n in ends)


def _joined(
    grid: BlockGrid, blocks: dict[Index, Pixels | None], lower: Index, upper: Index
) -> Pixels:
    """Put the parts of blocks that lie in [lower, upper) together."""
    size = tuple(u - v for v, u in zip(lower, upper, strict=True))
    out = np.empty((grid.shape[0], *size), dtype=grid.dtype)
    for index, block in blocks.items():
        if block is None:
            continue
        to, of = [slice(None)], [slice(None)]
        for i, e, v, u, n in zip(
            index, grid.edges, lower, upper, block.shape[1:], strict=True
        ):
            start = i * e
            first, last = max(v, start), min(u, start + n)
            to.append(slice(first - v, last - v))
            of.append(slice(first - start, last - start))
        out[tuple(to)] = block[tuple(of)]
    return out
