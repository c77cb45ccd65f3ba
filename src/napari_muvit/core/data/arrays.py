"""Array-likes as channel-first sources, read in whole chunks through a cache."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import MuvitError, PyramidError

Index = tuple[int, ...]
Pixels = NDArray[Any]


class ArrayLike(Protocol):
    """What zarr, dask and numpy arrays have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        ...

    @property
    def dtype(self) -> Any:
        """Pixel type."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An array with named axes, seen as (C, *spatial).

    Leading axes such as t and z are fixed at one index. Nothing is read on creation.
    """

    array: ArrayLike
    """zarr, dask or numpy array, or anything with shape, dtype and basic slicing."""
    axes: str
    """One letter an array axis, such as ``tczyx`` or ``yxc``."""
    spatial: str = "yx"
    """The spatial axes, in the order in which they are handed out."""
    fixed: Mapping[str, int] = field(default_factory=dict)
    """Index of each axis that is neither spatial nor c; missing: 0."""
    channels: tuple[int, ...] | None = None
    """Channels handed out; None: all."""

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.array.shape) or len(set(self.axes)) != len(
            self.axes
        ):
            raise PyramidError(
                f"Axes {self.axes!r} do not fit an array of shape {self.array.shape}."
            )
        missing = [a for a in self.spatial if a not in self.axes]
        if missing:
            raise PyramidError(
                f"The image has axes {self.axes!r} but needs {self.spatial!r}."
            )
        dtype = np.dtype(self.array.dtype)
        if dtype.kind not in "buif":
            raise PyramidError(
                f"Pixels of type {dtype} cannot be used; integers or floats are needed."
            )
        if 0 in self.array.shape:
            raise PyramidError(f"The image is empty: its shape is {self.array.shape}.")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial)."""
        if self.channels is not None:
            count = len(self.channels)
        else:
            count = self.array.shape[self.axes.index("c")] if "c" in self.axes else 1
        return (count, *(self.array.shape[self.axes.index(a)] for a in self.spatial))

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Chunk edge along each spatial axis, or None when pixels are in memory."""
        if isinstance(self.array, np.ndarray) and not isinstance(self.array, np.memmap):
            return None
        chunks = getattr(self.array, "chunks", None)
        if not chunks or len(chunks) != len(self.axes):
            return tuple(min(512, n) for n in self.shape[1:])
        edges = (chunks[self.axes.index(a)] for a in self.spatial)
        # dask gives a tuple of edges an axis, zarr one edge.
        return tuple(int(max(e) if isinstance(e, tuple) else e) for e in edges)

    def read(self, lower: Sequence[int], upper: Sequence[int]) -> Pixels:
        """Read pixels [lower, upper) as (C, *spatial), which must lie inside."""
        spans = dict(zip(self.spatial, zip(lower, upper, strict=True), strict=True))
        key: list[int | slice] = []
        kept = ""
        for axis in self.axes:
            if axis in spans:
                key.append(slice(*spans[axis]))
                kept += axis
            elif axis == "c":
                key.append(slice(None))
                kept += axis
            else:
                key.append(self.fixed.get(axis, 0))
        try:
            block = np.asarray(self.array[tuple(key)])
        except (MuvitError, MemoryError):
            raise
        except Exception as error:  # a damaged chunk may raise anything
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise PyramidError(
                f"Pixels of {self.array!r} cannot be read: {reason.rstrip('.')}."
            ) from error
        if "c" not in kept:
            block, kept = block[None], "c" + kept
        block = block.transpose([kept.index(a) for a in "c" + self.spatial])
        return block if self.channels is None else block[list(self.channels)]


class BlockCache:
    """Least-recently-used blocks of pixels, bounded in bytes, safe between threads."""

    def __init__(self, max_bytes: int = 128 * 2**20) -> None:
        self.max_bytes = max_bytes
        self._blocks: OrderedDict[tuple[int, Index], Pixels] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[int, Index]) -> Pixels | None:
        """Return the block, or None when it is not held."""
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
            return block

    def put(self, key: tuple[int, Index], block: Pixels) -> None:
        """Hold the block and drop the oldest ones beyond the limit."""
        with self._lock:
            if key in self._blocks:
                return
            self._blocks[key] = block
            self._bytes += block.nbytes
            while self._bytes > self.max_bytes and self._blocks:
                _, old = self._blocks.popitem(last=False)
                self._bytes -= old.nbytes

    def __reduce__(self) -> tuple[type[BlockCache], tuple[int]]:
        # A copy in another process starts empty.
        return (BlockCache, (self.max_bytes,))


def read_cached(
    source: ArraySource,
    key: int,
    lower: Sequence[int],
    upper: Sequence[int],
    cache: BlockCache,
) -> Pixels:
    """Read [lower, upper) of ``source`` touching only the chunks that it needs.

    Chunks are decoded once and kept in ``cache`` under ``key``; chunks that are too
    large for it are sliced directly.
    """
    edges = source.chunks
    if edges is None:
        return source.read(lower, upper)
    channels = source.shape[0]
    block_bytes = channels * int(np.prod(edges)) * source.dtype.itemsize
    if block_bytes > cache.max_bytes // 4:
        return source.read(lower, upper)
    shape = source.shape[1:]
    out = np.empty(
        (channels, *(u - v for v, u in zip(lower, upper, strict=True))), source.dtype
    )
    ranges = [
        range(v // e, -(-u // e)) for v, u, e in zip(lower, upper, edges, strict=True)
    ]
    for index in itertools.product(*ranges):
        start = [i * e for i, e in zip(index, edges, strict=True)]
        stop = [min(s + e, n) for s, e, n in zip(start, edges, shape, strict=True)]
        block = cache.get((key, index))
        if block is None:
            block = np.ascontiguousarray(source.read(start, stop))
            cache.put((key, index), block)
        first = [max(v, s) for v, s in zip(lower, start, strict=True)]
        last = [min(u, s) for u, s in zip(upper, stop, strict=True)]
        spans = list(zip(first, last, start, lower, strict=True))
        to = tuple(slice(f - v, t - v) for f, t, _, v in spans)
        of = tuple(slice(f - s, t - s) for f, t, s, _ in spans)
        out[(slice(None), *to)] = block[(slice(None), *of)]
    return out


def blocks_between(
    lower: Sequence[int], upper: Sequence[int], edges: Sequence[int]
) -> list[tuple[int, ...]]:
    """Indices of the blocks that [lower, upper) touches."""
    if any(u <= v for v, u in zip(lower, upper, strict=True)):
        return []
    ranges = [
        range(v // e, -(-u // e)) for v, u, e in zip(lower, upper, edges, strict=True)
    ]
    return list(itertools.product(*ranges))
