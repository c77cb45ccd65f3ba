"""Which lines of an object touch, and which sweep over a corner of another ring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .runs import Ints

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
LEAST_CELL = 8.0
"""Pixels; lines are looked up in cells of this edge or more."""
MARGIN = 1e-3
"""Pixels around a line, so that no rounding hides it from a cell."""
MOST_PAIRS = 2**22
"""Pairs that are looked at together."""


@dataclass(frozen=True, eq=False, slots=True)
class Segments:
    """Straight lines, ring by ring."""

    start: Ints
    """(s, 2) corners (y, x)."""
    stop: Ints
    """(s, 2)."""
    low: Ints
    """(s,) number of the start among all corners of the exact outlines."""
    high: Ints
    """(s,) the same of the stop."""
    ring: Ints
    """(s,)."""
    owner: Ints
    """(s,) object."""

    @property
    def exact(self) -> Mask:
        """Whether it is a line of the exact outline."""
        exact: Mask = self.high - self.low == 1
        return exact

    def select(self, which: Ints) -> Segments:
        """Return some of them."""
        return Segments(
            self.start[which], self.stop[which], self.low[which], self.high[which],
            self.ring[which], self.owner[which],
        )  # fmt: skip


def touching_pairs(lines: Segments) -> Iterator[tuple[Ints, Ints]]:
    """Find lines of one object that cross, touch or lie upon each other.

    Neighbours in a ring share a corner; they count where one folds back onto the other.
    Pairs of exact lines do not count.

    Parameters
    ----------
    lines
        All lines of some objects, in the order of their rings.

    Yields
    ------
    tuple of ndarray
        Indices of both.
    """
    size = np.abs(lines.stop - lines.start).max(axis=1)
    cell = max(LEAST_CELL, 2.0 * float(size.mean()))
    number, key = _cells(lines, cell, MARGIN)
    exact = lines.exact
    first, last = _ring_ends(lines.ring)
    for one, other in _pairs(number, key):
        loose = ~(exact[one] & exact[other])
        one, other = np.minimum(one, other)[loose], np.maximum(one, other)[loose]
        a, b = lines.start[one], lines.stop[one]
        c, d = lines.start[other], lines.stop[other]
        ring = lines.ring[one]
        same = ring == lines.ring[other]
        follows = same & (other == one + 1)
        closes = same & (one == first[ring]) & (other == last[ring])
        folded = (_cross(b - a, d - c) == 0) & (((b - a) * (d - c)).sum(axis=1) < 0)
        hit = np.where(follows | closes, folded, _meet(a, b, c, d))
        yield one[hit], other[hit]


def _ring_ends(ring: Ints) -> tuple[Ints, Ints]:
    """First and last line of each ring."""
    first = np.full(int(ring.max()) + 1, -1)
    last = first.copy()
    first[ring[::-1]] = np.arange(len(ring))[::-1]
    last[ring] = np.arange(len(ring))
    return first, last


def _meet(a: Ints, b: Ints, c: Ints, d: Ints) -> Mask:
    """Whether the closed lines a-b and c-d have a point in common; exact."""
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    near = (low <= high).all(axis=1)
    ab, cd = b - a, d - c
    apart = np.sign(_cross(ab, c - a)) * np.sign(_cross(ab, d - a)) > 0
    apart |= np.sign(_cross(cd, a - c)) * np.sign(_cross(cd, b - c)) > 0
    meet: Mask = near & ~apart
    return meet


def _cross(u: Ints, v: Ints) -> Ints:
    cross: Ints = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    return cross


def swept_pairs(lines: Segments, points: Ints, begins: Ints, tolerance: float) -> Ints:
    """Find lines that have passed over another ring of their object.

    Parameters
    ----------
    lines
        All lines of some objects; none touch.
    points
        (v, 2) corners of all exact outlines.
    begins
        Number of the first corner of each ring, which is kept.
    tolerance
        No corner is farther from its line.

    Returns
    -------
    ndarray
        Indices of lines; not of exact ones. Those between which and the exact outline
        the first corner of another ring lies.
    """
    loose = np.flatnonzero(~lines.exact)
    rings, at = np.unique(lines.ring, return_index=True)
    if len(loose) == 0 or len(rings) < 2:
        return loose[:0]
    corner = points[begins[rings]]
    dots = Segments(corner, corner, begins[rings], begins[rings], rings,
                    lines.owner[at])  # fmt: skip
    some = lines.select(loose)
    both = Segments(
        *(np.concatenate([getattr(some, name), getattr(dots, name)])
          for name in ("start", "stop", "low", "high", "ring", "owner"))
    )  # fmt: skip
    size = np.abs(some.stop - some.start).max(axis=1)
    cell = max(LEAST_CELL, 2.0 * float(size.mean()), 2.0 * tolerance)
    number, key = _cells(both, cell, tolerance + MARGIN)
    found: set[int] = set()
    for one, other in _pairs(number, key):
        line, dot = np.minimum(one, other), np.maximum(one, other) - len(loose)
        fits = (line < len(loose)) & (dot >= 0)
        line, dot = line[fits], dot[fits]
        foreign = some.ring[line] != rings[dot]
        for k, j in zip(line[foreign].tolist(), dot[foreign].tolist(), strict=True):
            if k in found:
                continue
            chain = points[some.low[k] : some.high[k] + 1]
            if _inside_or_on(chain, corner[j]):
                found.add(k)
    return loose[sorted(found)]


def _inside_or_on(chain: Ints, point: Ints) -> bool:
    """Whether a point lies within a closed chain of corners, or upon it; exact."""
    low, high = chain.min(axis=0), chain.max(axis=0)
    if (point < low).any() or (point > high).any():
        return False
    a, b = chain - point, np.roll(chain, -1, axis=0) - point
    cross = _cross(a, b)
    if ((cross == 0) & ((a * b).sum(axis=1) <= 0)).any():
        return True
    spans = (a[:, 0] <= 0) != (b[:, 0] <= 0)
    right = np.where(b[:, 0] > a[:, 0], cross > 0, cross < 0)
    return bool(np.count_nonzero(spans & right) % 2)


def _cells(lines: Segments, cell: float, margin: float) -> tuple[Ints, Ints]:
    """Cells that each line touches, as number of the line and key of the cell."""
    start, along = lines.start.astype(np.float64), lines.stop - lines.start
    pieces = np.maximum(1, np.ceil(np.abs(along).max(axis=1) / cell)).astype(np.int64)
    number = np.repeat(np.arange(len(pieces)), pieces)
    step = np.arange(len(number)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    share = pieces[number][:, None]
    one = start[number] + along[number] * (step[:, None] / share)
    other = start[number] + along[number] * ((step[:, None] + 1) / share)
    low = np.floor((np.minimum(one, other) - margin) / cell).astype(np.int64)
    high = np.floor((np.maximum(one, other) + margin) / cell).astype(np.int64)
    extent = high - low + 1
    count = extent.prod(axis=1)
    which = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(within, extent[which, 1])
    place = np.stack([low[which, 0] + row, low[which, 1] + column], axis=1)
    place -= place.min(axis=0)
    tall, wide = (place.max(axis=0) + 1).tolist()
    owner = np.unique(lines.owner, return_inverse=True)[1][number[which]]
    return number[which], (owner * tall + place[:, 0]) * wide + place[:, 1]


def _pairs(number: Ints, key: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of lines that share a cell; one that shares several comes repeatedly."""
    order = np.argsort(key, kind="stable")
    number, key = number[order], key[order]
    end = np.searchsorted(key, key, side="right")
    count = end - np.arange(len(key)) - 1
    total = np.cumsum(count)
    start = 0
    while start < len(key):
        held = int(total[start - 1]) if start else 0
        stop = int(np.searchsorted(total, held + MOST_PAIRS, side="right"))
        stop = max(stop, start + 1)
        some = count[start:stop]
        one = np.repeat(np.arange(start, stop), some)
        within = np.arange(len(one)) - np.repeat(np.cumsum(some) - some, some)
        other = one + 1 + within
        differ = number[one] != number[other]
        yield number[one[differ]], number[other[differ]]
        start = stop
