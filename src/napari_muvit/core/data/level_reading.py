"""Reading a level at any place and step: copied, averaged or interpolated.

Positions are pixels of the level, edge to edge: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

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

LARGEST = 1e37
"""Beyond that a number is none of a pixel's: sums of them would overflow in float32."""
LEAST_SHARE = 1e-6
"""Of an output pixel has to be known; less is rounding."""

Floats = NDArray[np.float32]
Fetch = Callable[[Sequence[int], Sequence[int]], Pixels]
"""Returns stored pixels [lower, upper), not to be changed."""


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
    return _average(source, start, step, shape, fill, _fetcher(source, cache))


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
    edge = round(AVERAGED_BLOCK ** (1 / len(counts)))
    edges = tuple(max(1, min(edge, n)) for n in counts)

    def read(lower: Sequence[int], upper: Sequence[int]) -> Floats:
        size = [u - v for v, u in zip(lower, upper, strict=True)]
        out = np.empty((source.shape[0], *size), dtype=np.float32)
        for first, last, fetch in _groups(source, step, edges, lower, upper, cache):
            for block in _boxes(first, last, edges):
                _put_block(source, step, block, counts, fetch, out, lower)
        return out

    return BlockGrid(
        key=("averaged", source.key, tuple(round(t, 9) for t in step)),
        shape=(source.shape[0], *counts),
        dtype=np.dtype(np.float32),
        edges=edges,
        read=read,
    )


def _groups(
    source: ArraySource,
    step: Sequence[float],
    edges: Sequence[int],
    lower: Sequence[int],
    upper: Sequence[int],
    cache: BlockCache,
) -> Iterator[tuple[Sequence[int], Sequence[int], Fetch]]:
    """Whole blocks that cover [lower, upper), with what fetches their source pixels.

    As many at a time as may be read by one call: each call has its price, and a chunk
    that is too large to be kept is decoded by each.
    """
    most = _piece_edge(source, step)
    low = [v // e * e for v, e in zip(lower, edges, strict=True)]
    high = [-(-u // e) * e for u, e in zip(upper, edges, strict=True)]
    for first, last in _boxes(low, high, [max(e, most // e * e) for e in edges]):
        if most < max(edges):
            yield first, last, _fetcher(source, cache)
            continue
        # Rounded as the first and the last block round for themselves.
        start, stop = [], []
        axes = zip(first, last, edges, step, source.shape[1:], strict=True)
        for f, end, e, t, n in axes:
            final = end - e
            start.append(source_span(f * t, t, e)[0])
            stop.append(min(n, source_span(final * t, t, e)[1]))
        yield first, last, _fetcher_from(read_stored(source, start, stop, cache), start)


def _boxes(
    lower: Sequence[int], upper: Sequence[int], edges: Sequence[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Cut [lower, upper) into boxes of at most these edges."""
    ranges = map(range, lower, upper, edges)
    for first in itertools.product(*ranges):
        ends = zip(first, edges, upper, strict=True)
        yield list(first), [min(f + e, u) for f, e, u in ends]


def _put_block(
    source: ArraySource,
    step: Sequence[float],
    block: tuple[list[int], list[int]],
    counts: Sequence[int],
    fetch: Fetch,
    out: Floats,
    lower: Sequence[int],
) -> None:
    """Average a whole block and put what lies inside into ``out``, from ``lower`` on.

    Always the whole one: a sum that begins elsewhere may differ in its last digit, and
    no pixel may depend on what was read before.
    """
    first, last = block[0], [min(b, n) for b, n in zip(block[1], counts, strict=True)]
    size = [b - f for f, b in zip(first, last, strict=True)]
    start = [f * t for f, t in zip(first, step, strict=True)]
    means = _average(source, start, step, size, 0.0, fetch)
    to, of = [slice(None)], [slice(None)]
    for v, n, f, b in zip(lower, out.shape[1:], first, last, strict=True):
        low, high = max(v, f), min(v + n, b)
        to.append(slice(low - v, high - v))
        of.append(slice(low - f, high - f))
    out[tuple(to)] = means[tuple(of)]


def _fetcher(source: ArraySource, cache: BlockCache) -> Fetch:
    return lambda lower, upper: read_stored(source, lower, upper, cache)


def _fetcher_from(pixels: Pixels, origin: Sequence[int]) -> Fetch:
    """Fetch from pixels that are in memory."""

    def fetch(lower: Sequence[int], upper: Sequence[int]) -> Pixels:
        spans = zip(lower, upper, origin, strict=True)
        return pixels[(slice(None), *(slice(v - o, u - o) for v, u, o in spans))]

    return fetch


def _piece_edge(source: ArraySource, step: Sequence[float]) -> int:
    """Edge in output pixels of what is averaged at a time."""
    # Channels count beyond the few that most slides have.
    pixels = MAX_SOURCE_PIXELS / max(1.0, source.shape[0] / 4)
    return max(1, int(pixels ** (1 / len(step)) / max(*step, 1.0)))


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
    fetch: Fetch,
) -> Floats:
    """Average a stored level, in pieces of bounded size."""
    out = _filled(source.shape[0], shape, fill)
    edge = _piece_edge(source, step)
    if max(shape) <= edge:
        _average_piece(source, start, step, out, fetch)
        return out
    ranges = [range(0, n, edge) for n in shape]
    for corner in itertools.product(*ranges):
        count = [min(edge, n - c) for n, c in zip(shape, corner, strict=True)]
        at = [a + c * t for a, c, t in zip(start, corner, step, strict=True)]
        target = tuple(slice(c, c + n) for c, n in zip(corner, count, strict=True))
        _average_piece(source, at, step, out[(slice(None), *target)], fetch)
    return out


def _average_piece(
    source: ArraySource,
    start: Sequence[float],
    step: Sequence[float],
    out: Floats,
    fetch: Fetch,
) -> None:
    """Average into ``out`` where it overlaps the image; leave the rest."""
    if _copy_piece(source, start, step, out, fetch):
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
    block: Pixels = fetch(lower, upper)
    grid = [
        (axis + 1, at - v, t, n)
        for axis, (at, t, n, v) in enumerate(
            zip(starts, step, counts, lower, strict=True)
        )
    ]
    out[(slice(None), *inside)] = _means(block, grid)


def _means(block: Pixels, grid: Sequence[tuple[int, float, float, int]]) -> Pixels:
    """Average along all axes; ``grid`` has axis, start, step and count of each.

    Pixels that are no numbers count for nothing: at a coarse level, where each output
    averages a thousand pixels, a few of them would leave nothing.
    """
    known = _known(block)
    if known is None:
        return _averaged_along(block, grid)
    shares = _averaged_along(known, grid)
    sums = _averaged_along(np.where(known, block, 0), grid)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(shares > LEAST_SHARE, sums / shares, np.float32(np.nan))


def _averaged_along(
    block: Pixels, grid: Sequence[tuple[int, float, float, int]]
) -> Pixels:
    for axis, start, step, count in grid:
        block = average_axis(block, axis, start, step, count)
    return block


def _known(block: Pixels) -> NDArray[np.bool_] | None:
    """Which pixels are numbers that float32 holds; None: all of them."""
    if block.dtype.kind != "f":
        return None
    with np.errstate(invalid="ignore"):
        # False for NaN. As float32: a float16 would not hold the bound.
        known = np.abs(block) <= np.float32(LARGEST)
    return None if known.all() else known


def _copy_piece(
    source: ArraySource,
    start: Sequence[float],
    step: Sequence[float],
    out: Floats,
    fetch: Fetch,
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
    # A number that float32 does not hold becomes infinite.
    with np.errstate(over="ignore"):
        out[tuple(to)] = fetch(lower, upper)
    return True


def _filled(
    channels: int, shape: Sequence[int], fill: float | Sequence[float]
) -> Floats:
    """Return (C, *shape) of the padding value."""
    out = np.empty((channels, *shape), dtype=np.float32)
    values = np.asarray(fill, dtype=np.float32).reshape(-1, *[1] * len(shape))
    out[:] = values
    return out
