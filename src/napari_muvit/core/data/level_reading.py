"""Reading a level at any place and step: copied, averaged or interpolated.

Positions are pixels of the level, edge to edge: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import PyramidError
from .arrays import ArraySource
from .averaged import averaged_shape
from .block_cache import BlockCache, BlockGrid, Pixels
from .resample import GRID_TOLERANCE, average_axis, source_span

MAX_SOURCE_PIXELS = 2**22
"""Source pixels averaged at a time, so that a coarse box never loads all of level 0."""
AVERAGED_BLOCK = 2**12
"""Pixels of the blocks in which a level that the file lacks is averaged and kept."""
COARSER = 1.5
"""From this step on the averages are kept as if they were a level."""

Floats = NDArray[np.float32]


def read_level(
    source: ArraySource,
    start: Sequence[float],
    step: Sequence[float],
    shape: Sequence[int],
    fill: float | Sequence[float],
    cache: BlockCache,
    kept: ArraySource | None = None,
) -> Floats:
    """Read from a level, averaged over the area of each output pixel.

    Parameters
    ----------
    source
        The level.
    start
        Position of output 0's lower edge along each axis.
    step
        Level pixels per output pixel; below 1 the level is interpolated.
    shape
        Output pixels along each axis.
    fill
        Value outside the level, one or one a channel.
    cache
        Keeps decoded blocks and averages.
    kept
        The averages at this step, where they are kept on disk.

    Returns
    -------
    ndarray
        (C, *shape), float32.
    """
    if max(step) > COARSER:
        return _read_averaged(source, start, step, shape, fill, cache, kept)
    return _average(source, start, step, shape, fill, cache)


def read_stored(
    source: ArraySource, lower: Sequence[int], upper: Sequence[int], cache: BlockCache
) -> Pixels:
    """Return stored pixels [lower, upper), which must lie inside; not to be changed."""
    if source.grid is None:
        return source.read(lower, upper)
    return cache.read(source.grid, lower, upper)


def _read_averaged(
    source: ArraySource,
    start: Sequence[float],
    step: Sequence[float],
    shape: Sequence[int],
    fill: float | Sequence[float],
    cache: BlockCache,
    kept: ArraySource | None,
) -> Floats:
    """Read a level that the file lacks, block by block.

    Blocks on the grid of the missing level are averaged once and kept, so neighbouring
    crops do not average the same pixels again. A request off that grid is resampled
    between its pixels.
    """
    origin = [s / t for s, t in zip(start, step, strict=True)]
    first = [math.floor(o + 1e-4) for o in origin]
    shift = [o - f for o, f in zip(origin, first, strict=True)]
    on_grid = all(abs(s) < 1e-3 for s in shift)
    size = list(shape) if on_grid else [n + 1 for n in shape]
    grid = _averaged_grid(source, step, cache)
    if kept is not None and kept.shape == grid.shape:
        grid = _kept_grid(kept, grid)
    limits = grid.shape[1:]
    lower = [min(max(f, 0), n) for f, n in zip(first, limits, strict=True)]
    upper = [
        min(max(f + n, 0), limit)
        for f, n, limit in zip(first, size, limits, strict=True)
    ]
    out = _filled(source.shape[0], size, fill)
    if all(u > v for v, u in zip(lower, upper, strict=True)):
        to = (slice(v - f, u - f) for v, u, f in zip(lower, upper, first, strict=True))
        out[(slice(None), *to)] = cache.read(grid, lower, upper)
    if on_grid:
        return out
    for axis, (move, count) in enumerate(zip(shift, shape, strict=True)):
        out = average_axis(out, axis + 1, move, 1.0, count)
    return np.ascontiguousarray(out)


def _averaged_grid(
    source: ArraySource, step: Sequence[float], cache: BlockCache
) -> BlockGrid:
    """A level that the file lacks, averaged from a stored one when it is read."""
    counts = averaged_shape(source.shape[1:], step)

    def read(lower: Sequence[int], upper: Sequence[int]) -> Floats:
        start = [v * t for v, t in zip(lower, step, strict=True)]
        size = [u - v for v, u in zip(lower, upper, strict=True)]
        return _average(source, start, step, size, 0.0, cache)

    edge = round(AVERAGED_BLOCK ** (1 / len(counts)))
    return BlockGrid(
        key=("averaged", source.key, tuple(round(t, 9) for t in step)),
        shape=(source.shape[0], *counts),
        dtype=np.dtype(np.float32),
        edges=tuple(max(1, min(edge, n)) for n in counts),
        read=read,
    )


def _kept_grid(kept: ArraySource, averaged: BlockGrid) -> BlockGrid:
    """Read what was averaged before; average it again where that is damaged."""

    def read(lower: Sequence[int], upper: Sequence[int]) -> Pixels:
        try:
            return kept.read(lower, upper)
        except PyramidError:
            return averaged.read(lower, upper)

    edges = kept.chunks or averaged.edges
    return dataclasses.replace(averaged, key=kept.key, edges=edges, read=read)


def _average(
    source: ArraySource,
    start: Sequence[float],
    step: Sequence[float],
    shape: Sequence[int],
    fill: float | Sequence[float],
    cache: BlockCache,
) -> Floats:
    """Average a stored level, in pieces of bounded size."""
    out = _filled(source.shape[0], shape, fill)
    edge = max(1, int(MAX_SOURCE_PIXELS ** (1 / len(shape)) / max(*step, 1.0)))
    if max(shape) <= edge:
        _average_piece(source, start, step, out, cache)
        return out
    ranges = [range(0, n, edge) for n in shape]
    for corner in itertools.product(*ranges):
        count = [min(edge, n - c) for n, c in zip(shape, corner, strict=True)]
        at = [a + c * t for a, c, t in zip(start, corner, step, strict=True)]
        target = tuple(slice(c, c + n) for c, n in zip(corner, count, strict=True))
        _average_piece(source, at, step, out[(slice(None), *target)], cache)
    return out


def _average_piece(
    source: ArraySource,
    start: Sequence[float],
    step: Sequence[float],
    out: Floats,
    cache: BlockCache,
) -> None:
    """Average into ``out`` where it overlaps the image; leave the rest."""
    if _copy_piece(source, start, step, out, cache):
        return
    inside: list[slice] = []
    starts: list[float] = []
    sizes = source.shape[1:]
    for at, t, count, size in zip(start, step, out.shape[1:], sizes, strict=True):
        # Outputs whose centre lies inside the image hold image, the rest padding.
        centres = at + t * (np.arange(count) + 0.5)
        hit = np.flatnonzero((centres > 0) & (centres < size))
        if len(hit) == 0:
            return
        inside.append(slice(int(hit[0]), int(hit[-1]) + 1))
        starts.append(at + t * int(hit[0]))
    counts = [s.stop - s.start for s in inside]
    spans = [source_span(a, t, n) for a, t, n in zip(starts, step, counts, strict=True)]
    margin = [1 if t < 1 else 0 for t in step]
    lower = [max(0, s[0] - m) for s, m in zip(spans, margin, strict=True)]
    upper = [min(n, s[1] + m) for s, m, n in zip(spans, margin, sizes, strict=True)]
    block: Pixels = read_stored(source, lower, upper, cache)
    for axis, (at, t, n, v) in enumerate(zip(starts, step, counts, lower, strict=True)):
        block = average_axis(block, axis + 1, at - v, t, n)
    out[(slice(None), *inside)] = block


def _copy_piece(
    source: ArraySource,
    start: Sequence[float],
    step: Sequence[float],
    out: Floats,
    cache: BlockCache,
) -> bool:
    """Copy stored pixels where the request lies on them; else return False."""
    counts = zip(step, out.shape[1:], strict=True)
    if any(abs(t - 1) * n > GRID_TOLERANCE for t, n in counts):
        return False
    first = [round(a) for a in start]
    if any(abs(a - f) > GRID_TOLERANCE for a, f in zip(start, first, strict=True)):
        return False
    to, lower, upper = [slice(None)], [], []
    sizes = zip(first, out.shape[1:], source.shape[1:], strict=True)
    for begin, count, size in sizes:
        low, high = max(begin, 0), min(begin + count, size)
        if high <= low:
            return True
        lower.append(low)
        upper.append(high)
        to.append(slice(low - begin, high - begin))
    out[tuple(to)] = read_stored(source, lower, upper, cache)
    return True


def _filled(
    channels: int, shape: Sequence[int], fill: float | Sequence[float]
) -> Floats:
    """Return (C, *shape) of the padding value."""
    out = np.empty((channels, *shape), dtype=np.float32)
    values = np.asarray(fill, dtype=np.float32).reshape(-1, *[1] * len(shape))
    out[:] = values
    return out
