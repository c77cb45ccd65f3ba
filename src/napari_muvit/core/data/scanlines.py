"""Many outlines filled at once, exactly at pixel centres, by scanlines.

Every edge of every outline that meets a crop gives one crossing a row; sorted by
outline, row and column they pair up to runs of pixels, which are painted in order.
Edges are looked up in blocks: a block between two row centres has no crossing at all,
so that neither a corner of a huge outline nor a coarse view of it walks its edges.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry import Box

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK = 32
"""Neighbouring edges that are looked up together."""
MAX_CROSSINGS = 2**20
"""Crossings held at a time, unless one row has more."""
LARGE_ITEM = 4000
"""Mean pixels an item from which filling item by item is faster than all at once."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of pixels [first, last) in a row, n arrays' entries in painting order."""

    owner: Ints
    """Number of the outline that a run belongs to."""
    row: Ints
    first: Ints
    last: Ints


@dataclass(frozen=True, eq=False, slots=True)
class EdgeTable:
    """Edges of many outlines, in order; world coordinates."""

    labels: NDArray[np.uint8]
    """Of each item; later items lie over earlier ones."""
    item: Ints
    """Item of each ring."""
    is_hole: NDArray[np.bool_]
    """Whether a ring is cut out of its item."""
    low: Floats
    """(2, e): y and x of the upper end of each edge, the one with the smaller y."""
    high: Floats
    """(2, e): of the other end."""
    ring: Ints
    """Ring of each block."""
    first: Ints
    """First edge of each block."""
    count: Ints
    """Edges of each block."""
    rows: Floats
    """(2, b): least and largest y of each block."""
    columns: Floats
    """(2, b): least and largest x of the ring of each block."""

    @classmethod
    def of(
        cls, labels: Sequence[int], outlines: Sequence[Sequence[Floats]]
    ) -> EdgeTable:
        """Collect edges.

        Parameters
        ----------
        labels
            One an item, 0 to 255.
        outlines
            Rings of each item, (n, 2) as (y, x): the outer one, then holes.
        """
        rings = [ring for item in outlines for ring in item]
        sizes = np.array([len(ring) for ring in rings], dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        points = np.concatenate(rings).T
        following = np.arange(1, points.shape[1] + 1)
        following[starts + sizes - 1] = starts
        other = points[:, following]
        # From the smaller y on, so that both sides of a shared edge cross alike.
        swap = other[0] < points[0]
        low, high = np.where(swap, other, points), np.where(swap, points, other)
        blocks = -(-sizes // BLOCK)
        ring = np.repeat(np.arange(len(rings)), blocks)
        first = starts[ring] + BLOCK * ranges(np.zeros_like(blocks), blocks)
        count = np.minimum(BLOCK, (starts + sizes)[ring] - first)
        rows = np.stack(
            [np.minimum.reduceat(low[0], first), np.maximum.reduceat(high[0], first)]
        )
        x = points[1]
        bounds = [np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)]
        return cls(
            labels=np.array(labels, dtype=np.uint8),
            item=np.repeat(np.arange(len(outlines)), [len(o) for o in outlines]),
            is_hole=np.array([k > 0 for o in outlines for k in range(len(o))]),
            low=low,
            high=high,
            ring=ring,
            first=first,
            count=count,
            rows=rows,
            columns=np.stack(bounds)[:, ring],
        )

    @property
    def lower(self) -> Floats:
        """Smallest y and x."""
        return np.asarray(np.minimum(self.low, self.high).min(axis=1))

    @property
    def upper(self) -> Floats:
        """Largest y and x."""
        return np.asarray(np.maximum(self.low, self.high).max(axis=1))

    def fill(self, out: NDArray[np.uint8], box: Box) -> None:
        """Write the labels into ``out`` wherever a pixel centre lies inside.

        Parameters
        ----------
        out
            (h, w), changed in place.
        box
            World box that ``out`` covers.
        """
        for runs in self._runs(out.shape, box):
            if len(runs.row):
                _paint(out, runs, self.labels)

    def _runs(self, shape: tuple[int, ...], box: Box) -> Iterator[Runs]:
        """Runs inside a crop, in bands of rows that bound the memory."""
        height, width = shape
        (top, left), (bottom, right) = box.lower, box.upper
        step, pitch = (bottom - top) / height, (right - left) / width
        rows = _rows(self.rows, top, step, height)
        met = (rows[0] < rows[1]) & (self.columns[0] < right) & (self.columns[1] > left)
        block = np.flatnonzero(met)
        edge = ranges(self.first[block], self.count[block])
        ring = np.repeat(self.ring[block], self.count[block])
        first = _rows(self.low[0, edge], top, step, height)
        last = _rows(self.high[0, edge], top, step, height)
        crosses = np.flatnonzero(first < last)
        edge, ring, first, last = (a[crosses] for a in (edge, ring, first, last))
        y0, y1 = (self.low[0, edge] - top) / step, (self.high[0, edge] - top) / step
        x0, x1 = (self.low[1, edge] - left) / pitch, (self.high[1, edge] - left) / pitch
        for start, stop in _bands(first, last, height):
            begin = first.clip(start, stop)
            counts = last.clip(start, stop) - begin
            number = np.repeat(np.arange(len(edge)), counts)
            row = ranges(begin, counts)
            share = (row + 0.5 - y0[number]) / (y1 - y0)[number]
            crossing = x0[number] + share * (x1 - x0)[number]
            # The first pixel whose centre lies right of the crossing flips.
            column = np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)
            runs = _paired(ring[number], row, column, (height, width + 1))
            yield self._owned(runs, (height, width + 1))

    def _owned(self, runs: Runs, shape: tuple[int, int]) -> Runs:
        """Runs of rings to runs of items: holes are cut out."""
        item, hole = self.item[runs.owner], self.is_hole[runs.owner]
        if not hole.any():
            return Runs(item, runs.row, runs.first, runs.last)
        height, width = shape
        line = (item * height + runs.row) * width
        ends = np.concatenate([line + runs.first, line + runs.last])
        # Inside the outer ring and no hole, the weights that are open sum up to 1.
        weight = np.where(hole, -2, 1)
        order = np.argsort(ends, kind="stable")
        ends = ends[order]
        inside = np.cumsum(np.concatenate([weight, -weight])[order])[:-1] == 1
        inside &= ends[1:] > ends[:-1]
        return _split(ends[:-1][inside], ends[1:][inside], shape)


def ranges(first: Ints, count: Ints) -> Ints:
    """Return ``first``, ``first + 1``, ...: ``count`` numbers of each."""
    before = np.cumsum(count) - count
    found: Ints = np.repeat(first - before, count)
    found += np.arange(len(found))
    return found


def _rows(y: Floats, top: float, step: float, height: int) -> Ints:
    """First row whose centre lies at or below y, within [0, height]."""
    rows: Floats = np.ceil((y - top) / step - 0.5)
    return rows.clip(0, height).astype(np.int64)


def _bands(first: Ints, last: Ints, height: int) -> Iterator[tuple[int, int]]:
    """Cut the rows so that no band has more than `MAX_CROSSINGS`."""
    total = int((last - first).sum())
    if total <= MAX_CROSSINGS:
        if total:
            yield 0, height
        return
    change = np.bincount(first, minlength=height + 1)
    change -= np.bincount(last, minlength=height + 1)
    crossings = np.cumsum(change)[:height]
    start, held = 0, 0
    for row, count in enumerate(crossings.tolist()):
        if held and held + count > MAX_CROSSINGS:
            yield start, row
            start, held = row, 0
        held += count
    yield start, height


def _paired(ring: Ints, row: Ints, column: Ints, shape: tuple[int, int]) -> Runs:
    """Every second crossing of a ring in a row opens a run, every other closes it."""
    height, width = shape
    key = (ring * height + row) * width + column
    key.sort()
    start, stop = key[0::2], key[1::2]
    long = stop > start
    return _split(start[long], stop[long], shape)


def _split(start: Ints, stop: Ints, shape: tuple[int, int]) -> Runs:
    """Undo (owner * height + row) * width + column."""
    height, width = shape
    line = start // width
    owner = line // height
    return Runs(owner, line - owner * height, start - line * width, stop - line * width)


def _paint(out: NDArray[np.uint8], runs: Runs, labels: NDArray[np.uint8]) -> None:
    """Fill runs, later owners over earlier ones."""
    count = runs.last - runs.first
    cuts = [0, *(np.flatnonzero(np.diff(runs.owner)) + 1).tolist(), len(count)]
    small = int(count.sum()) < LARGE_ITEM * (len(cuts) - 1)
    if small and out.flags.c_contiguous:
        pixels = ranges(runs.row * out.shape[1] + runs.first, count)
        # Of a pixel that is named twice the last value stays.
        out.reshape(-1)[pixels] = np.repeat(labels[runs.owner], count)
        return
    for begin, end in itertools.pairwise(cuts):
        row, first, last = (a[begin:end] for a in (runs.row, runs.first, runs.last))
        top, bottom, left, right = row[0], row[-1] + 1, first.min(), last.max()
        width = right - left
        start = (row - top) * width - left
        ends = np.zeros(2 * len(row) + 2, dtype=np.int64)
        ends[1:-1:2], ends[2:-1:2] = start + first, start + last
        ends[-1] = (bottom - top) * width
        lengths = np.diff(ends)  # of a gap, a run, a gap, ...
        filled = np.arange(len(lengths)) % 2 == 1
        mask = np.repeat(filled, lengths).reshape(-1, width)
        window = out[top:bottom, left:right]
        np.copyto(window, labels[runs.owner[begin]], where=mask)
