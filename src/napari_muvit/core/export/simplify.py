"""Outlines with fewer corners, within a tolerance, that stay valid polygons.

Douglas and Peucker's rule for all rings of many objects at once. Where lines of one
object would then touch, or a ring would come to lie on another side of one, the lines
get corners back until nothing does: at worst those of the exact outline.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .contacts import Segments, swept_pairs, touching_pairs
from .runs import Ints

Vertices = NDArray[np.int64]
Mask = NDArray[np.bool_]


def simplify(
    rings: Sequence[Vertices], owner: Ints, tolerance: float
) -> list[Vertices]:
    """Leave out corners.

    Parameters
    ----------
    rings
        Each (n, 2) corners (y, x), whole numbers, not closed; no ring touches itself.
    owner
        (r,) object of each ring. Those of one object do not cross one another.
    tolerance
        Pixels by which the outline may move.

    Returns
    -------
    list of ndarray
        The same rings, each with three of its corners or more, in the same sense. No
        corner of the exact outline is farther from the new one than the tolerance.
    """
    if not rings or not tolerance > 0:
        return list(rings)
    lines = _Lines(rings, owner)
    lines.thin_out(tolerance)
    while True:
        wrong = lines.wrong(tolerance)
        if not wrong.any():
            return lines.rings()
        lines.thin_out(tolerance, lines.refine(wrong))


class _Lines:
    """Rings one after the other, each with its first corner again at its end."""

    def __init__(self, rings: Sequence[Vertices], owner: Ints) -> None:
        closed = [np.concatenate([ring, ring[:1]]) for ring in rings]
        lengths = np.array([len(ring) for ring in closed])
        self.points: Vertices = np.concatenate(closed).astype(np.int64)
        self.ends = np.cumsum(lengths) - 1
        self.begins = self.ends - lengths + 1
        self.ring = np.repeat(np.arange(len(rings)), lengths)
        self.owner = owner
        self.kept: Mask = np.zeros(len(self.points), dtype=bool)
        self.kept[self.begins] = self.kept[self.ends] = True
        far = self.points - self.points[self.begins][self.ring]
        self._keep_farthest((far**2).sum(axis=1).astype(np.float64), self.begins)
        self.areas = self._areas()
        self._active = np.ones(len(rings), dtype=bool)
        """Rings of objects of which a line was wrong when they were last looked at."""

    def _keep_farthest(self, distance: NDArray[np.float64], begins: Ints) -> None:
        """Keep the first of the farthest corners of each stretch."""
        most = np.maximum.reduceat(distance, begins)
        stretch = np.repeat(
            np.arange(len(begins)), np.diff(np.append(begins, len(distance)))
        )
        at = np.flatnonzero(distance == most[stretch])
        _, first = np.unique(stretch[at], return_index=True)
        self.kept[at[first]] = True

    def segments(self) -> Segments:
        """Lines between the corners that are kept."""
        at = np.flatnonzero(self.kept)
        real = self.ring[at[:-1]] == self.ring[at[1:]]
        low, high = at[:-1][real], at[1:][real]
        ring = self.ring[low]
        return Segments(
            self.points[low], self.points[high], low, high, ring, self.owner[ring]
        )

    def thin_out(self, tolerance: float, corners: Ints | None = None) -> None:
        """Keep corners until none is farther from its line than the tolerance.

        Parameters
        ----------
        tolerance
            Pixels.
        corners
            Those whose lines have changed, in order; None: all.
        """
        free = np.arange(len(self.points)) if corners is None else corners
        while True:
            free = free[~self.kept[free]]
            if len(free) == 0:
                return
            at = np.flatnonzero(self.kept)
            line = np.searchsorted(at, free)
            low, high = at[line - 1], at[line]
            distance = _distances(self.points, free, low, high)
            new = np.append(True, low[1:] != low[:-1])
            most = np.maximum.reduceat(distance, np.flatnonzero(new))
            far = (most > tolerance)[np.cumsum(new) - 1]
            if not far.any():
                return
            self._split(free[far], distance[far], low[far])
            free = free[far]

    def _split(self, corner: Ints, distance: NDArray[np.float64], low: Ints) -> None:
        """Keep the farthest corner of each line; ``low`` tells lines apart."""
        new = np.append(True, low[1:] != low[:-1])
        begins = np.flatnonzero(new)
        most = np.maximum.reduceat(distance, begins)
        at = np.flatnonzero(distance == most[np.cumsum(new) - 1])
        _, first = np.unique(low[at], return_index=True)
        self.kept[corner[at[first]]] = True

    def refine(self, wrong: Mask) -> Ints:
        """Give each of these lines a corner back.

        Parameters
        ----------
        wrong
            (s,) which of `segments`.

        Returns
        -------
        ndarray
            Corners whose lines have changed, in order.
        """
        lines = self.segments()
        low, high = lines.low[wrong], lines.high[wrong]
        inside = high - low > 1
        low, high = low[inside], high[inside]
        count = high - low - 1
        start = np.repeat(low, count)
        within = np.arange(len(start)) - np.repeat(np.cumsum(count) - count, count)
        corner: Ints = start + 1 + within
        distance = _distances(self.points, corner, start, np.repeat(high, count))
        self._split(corner, distance, start)
        return corner

    def wrong(self, tolerance: float) -> Mask:
        """Which of `segments` have to be refined; only such that can be."""
        lines = self.segments()
        wrong = np.zeros(len(lines.low), dtype=bool)
        count = np.bincount(lines.ring, minlength=len(self.owner))
        turned = np.sign(self._areas()) != np.sign(self.areas)
        wrong |= ((count < 3) | turned)[lines.ring] & ~lines.exact
        if wrong.any():
            return wrong
        active = np.flatnonzero(self._active[lines.ring])
        if len(active) == 0:
            return wrong
        part = lines.select(active)
        for touching in touching_pairs(part):
            for side in touching:
                wrong[active[side[~part.exact[side]]]] = True
        # What lies where can be said of objects only whose lines do not touch.
        clear = active[~np.isin(part.owner, part.owner[wrong[active]])]
        part = lines.select(clear)
        wrong[clear[swept_pairs(part, self.points, self.begins, tolerance)]] = True
        self._active &= np.isin(self.owner, lines.owner[wrong])
        return wrong

    def _areas(self) -> NDArray[np.float64]:
        """Signed area of each ring, of all corners at first, then of the kept ones."""
        at = np.flatnonzero(self.kept)
        if not hasattr(self, "areas"):
            at = np.arange(len(self.points))
        points = (self.points - self.points[self.begins][self.ring]).astype(np.float64)
        y, x = points[at].T
        ring = self.ring[at]
        inner = ring[1:] == ring[:-1]
        cross = (x[:-1] * y[1:] - x[1:] * y[:-1])[inner]
        return np.bincount(ring[:-1][inner], cross, minlength=len(self.owner)) / 2

    def rings(self) -> list[Vertices]:
        """The corners that are kept, without the repeated one."""
        kept = self.kept.copy()
        kept[self.ends] = False
        at = np.flatnonzero(kept)
        cuts = np.searchsorted(at, self.begins[1:])
        return list(np.split(self.points[at], cuts))


def _distances(
    points: Vertices, corner: Ints, low: Ints, high: Ints
) -> NDArray[np.float64]:
    """Distance of corners from the lines between two others."""
    start = points[low].astype(np.float64)
    along, off = points[high] - start, points[corner] - start
    length = (along**2).sum(axis=1)
    share = (off * along).sum(axis=1) / np.where(length > 0, length, 1)
    off -= share.clip(0, 1)[:, None] * along
    distances: NDArray[np.float64] = np.sqrt((off**2).sum(axis=1))
    return distances
