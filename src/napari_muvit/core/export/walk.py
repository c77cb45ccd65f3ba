"""Outlines within some rows: order of their edges, and where they are cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .links import NONE, Corners
from .runs import Ints

SEEN = -2


@dataclass(frozen=True, eq=False, slots=True)
class Turns:
    """How outlines go on at corners at which two runs of one label touch.

    Where both belong to one part, its outline turns from one to the other, so that no
    ring comes to a corner twice. Where they may turn out to be one part further down,
    the outlines are cut, to be joined one way or the other in the end.
    """

    before: Ints
    """(2 n,) node that leads to each, as if all such runs were apart."""
    enter: Ints
    """(2 n,) node whose way along the row each one takes; its own inverse."""
    after: Ints
    """(2 n,) node that follows each."""
    cut: NDArray[np.bool_]
    """(2 n,) whether the outline is cut behind a node."""
    falling: tuple[Ints, Ints]
    """Pairs of nodes whose ways are to be exchanged if the parts are one."""
    rising: tuple[Ints, Ints]
    """Pairs of nodes whose ends are to be exchanged if the parts are one."""


def turns(
    after: Ints, falling: Corners, rising: Corners, part: Ints, is_open: Ints
) -> Turns:
    """Decide at each such corner.

    Parameters
    ----------
    after
        (2 n,) node that follows each, as if all such runs were apart.
    falling, rising
        The corners.
    part
        (n,) part of each run.
    is_open
        (n,) whether its part goes on in rows that are not read yet.
    """
    nodes = np.arange(len(after))
    before = np.full(len(after), NONE)
    leads = after >= 0
    before[after[leads]] = nodes[leads]
    enter, out, cut = nodes.copy(), after.copy(), np.zeros(len(after), dtype=bool)

    now, later = _decided(falling, part, is_open)
    _exchange(enter, 2 * falling.upper[now], 2 * falling.lower[now] + 1)
    fallen = (2 * falling.upper[later], 2 * falling.lower[later] + 1)

    now, later = _decided(rising, part, is_open)
    one, other = before[2 * rising.upper + 1], before[2 * rising.lower]
    _exchange(out, one[now], other[now])
    risen = (enter[one[later]], enter[other[later]])

    for pair in (fallen, risen):
        for which in pair:
            cut[which] = True
    return Turns(before, enter, out[enter], cut, fallen, risen)


def _decided(
    corners: Corners, part: Ints, is_open: Ints
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether both runs are of one part, and whether they may become so."""
    now = part[corners.upper] == part[corners.lower]
    later = ~now & (is_open[corners.upper] & is_open[corners.lower]).astype(bool)
    return now, later


def _exchange(values: Ints, one: Ints, other: Ints) -> None:
    values[one], values[other] = values[other], values[one]


@dataclass(frozen=True, eq=False, slots=True)
class Walk:
    """Edges of all pieces, one after the other."""

    nodes: Ints
    """(m,) nodes in the order of the outlines."""
    bounds: Ints
    """(p + 1,) where each piece begins in ``nodes``."""
    opened: int
    """How many of them, the first ones, are not closed."""

    def owners(self, count: int) -> Ints:
        """Piece of each of ``count`` nodes; `NONE` for those of other rows."""
        piece = np.full(count, NONE)
        lengths = np.diff(self.bounds)
        piece[self.nodes] = np.repeat(np.arange(len(lengths)), lengths)
        return piece


def walk(after: Ints, stops: NDArray[np.bool_], skip: Ints, starts: Ints) -> Walk:
    """Follow all outlines.

    Parameters
    ----------
    after
        Node that follows each.
    stops
        Whether a piece ends with a node.
    skip
        Nodes that belong to pieces which are known already.
    starts
        Nodes with which the pieces begin that are not closed.
    """
    onward = np.where(stops, NONE, after)
    onward[skip] = SEEN
    following = onward.tolist()
    nodes: list[int] = []
    bounds = [0]
    for start in starts.tolist():
        node = start
        while node >= 0:
            nodes.append(node)
            ahead = following[node]
            following[node] = SEEN
            node = ahead
        bounds.append(len(nodes))
    opened = len(bounds) - 1
    for start in range(len(following)):
        if following[start] == SEEN:
            continue
        node = start
        while following[node] != SEEN:
            nodes.append(node)
            ahead = following[node]
            following[node] = SEEN
            node = ahead
        bounds.append(len(nodes))
    return Walk(np.array(nodes, dtype=np.int64), np.array(bounds), opened)
