"""Where the outline of a part goes on: from the edge of one run to that of another.

Each run has two upright edges, which are the nodes: ``2 * i`` at its right end,
followed downwards, and ``2 * i + 1`` at its left end, followed upwards, so that the
part lies at the right hand of who walks along its outline. Between them the outline
runs along rows.
Runs of one label in neighbouring rows that overlap belong to one part: pixels meet at
edges, not at corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .runs import Ints, Runs

NONE = -1
"""No node: the outline goes on in rows that are not read yet, or that were before."""


@dataclass(frozen=True, eq=False, slots=True)
class Overlaps:
    """Pairs of runs of one label in neighbouring rows that share a column.

    Sorted by both: neither index ever decreases.
    """

    upper: Ints
    """(m,) index of the run in the upper row."""
    lower: Ints
    """(m,) index of the run in the lower row."""


@dataclass(frozen=True, eq=False, slots=True)
class Corners:
    """Corners at which two runs of one label touch without an edge between them."""

    upper: Ints
    """(m,) index of the run in the upper row."""
    lower: Ints
    """(m,) index of the run in the lower row."""


@dataclass(frozen=True, eq=False, slots=True)
class Keys:
    """Numbers that sort the ends of runs by row and column."""

    first: Ints
    last: Ints
    span: int
    """Difference between two rows."""

    @classmethod
    def of(cls, runs: Runs, width: int) -> Keys:
        """Keys of runs in an image of this width."""
        span = width + 1
        return cls(runs.row * span + runs.first, runs.row * span + runs.last, span)


def overlaps(runs: Runs, keys: Keys) -> Overlaps:
    """Find the runs that belong together."""
    low = np.searchsorted(keys.last, keys.first - keys.span, side="right")
    high = np.searchsorted(keys.first, keys.last - keys.span, side="left")
    count = np.maximum(high - low, 0)
    lower = np.repeat(np.arange(len(runs)), count)
    within = np.arange(len(lower)) - np.repeat(np.cumsum(count) - count, count)
    upper = low[lower] + within
    same = runs.value[upper] == runs.value[lower]
    return Overlaps(upper[same], lower[same])


def successors(runs: Runs, pairs: Overlaps, old: int, open_row: int) -> Ints:
    """Node that follows each node.

    Parameters
    ----------
    runs
        All runs; the first ``old`` ones are of the row before, known already.
    pairs
        Their overlaps.
    old
        How many lead over from what was read before: their left edges lead there.
    open_row
        Row whose right edges lead to what is not read yet.

    Returns
    -------
    ndarray
        (2 * n,) nodes; `NONE` where the outline leaves these rows.
    """
    count = len(runs)
    after = np.empty(2 * count, dtype=np.int64)
    after[0::2] = _after_right(runs, pairs)
    after[1::2] = _after_left(runs, pairs)
    after[0::2][runs.row == open_row] = NONE
    after[1 : 2 * old : 2] = NONE
    return after


def _after_right(runs: Runs, pairs: Overlaps) -> Ints:
    """Down along the right edge, then along the row to the next upright edge."""
    count, found = len(runs), len(pairs.upper)
    following = 2 * np.arange(count) + 1
    pair = np.full(count, NONE)
    # The last assignment counts: the last overlap with the row below.
    pair[pairs.upper] = np.arange(found)
    upper = np.flatnonzero(pair >= 0)
    pair = pair[upper]
    lower = pairs.lower[pair]
    more = np.append(pairs.lower[1:] == pairs.lower[:-1], False)[pair]
    # Out to the right along the lower run, and up again where another one meets it.
    up_again = (runs.last[lower] > runs.last[upper]) & more
    beyond = pairs.upper[np.minimum(pair + 1, found - 1)]
    following[upper] = np.where(up_again, 2 * beyond + 1, 2 * lower)
    return following


def _after_left(runs: Runs, pairs: Overlaps) -> Ints:
    """Up along the left edge, then along the row to the next upright edge."""
    count, found = len(runs), len(pairs.lower)
    following = 2 * np.arange(count)
    pair = np.full(count, NONE)
    pair[pairs.lower[::-1]] = np.arange(found)[::-1]
    lower = np.flatnonzero(pair >= 0)
    pair = pair[lower]
    upper = pairs.upper[pair]
    more = np.append(False, pairs.upper[1:] == pairs.upper[:-1])[pair]
    down_again = (runs.first[upper] < runs.first[lower]) & more
    before = pairs.lower[np.maximum(pair - 1, 0)]
    following[lower] = np.where(down_again, 2 * before, 2 * upper + 1)
    return following


def falling_corners(runs: Runs, keys: Keys) -> Corners:
    """Corners with the upper run at their left and the lower one at their right."""
    return _matches(runs, keys.last, keys.first - keys.span)


def rising_corners(runs: Runs, keys: Keys) -> Corners:
    """Corners with the upper run at their right and the lower one at their left."""
    return _matches(runs, keys.first, keys.last - keys.span)


def _matches(runs: Runs, sorted_keys: Ints, wanted: Ints) -> Corners:
    at = np.searchsorted(sorted_keys, wanted).clip(max=max(len(runs) - 1, 0))
    hit = (sorted_keys[at] == wanted) & (runs.value[at] == runs.value)
    return Corners(at[hit], np.flatnonzero(hit))


def parts(count: int, pairs: Overlaps, known: Ints) -> Ints:
    """Number the parts of these rows.

    Parameters
    ----------
    count
        Number of runs.
    pairs
        Their overlaps.
    known
        (old,) part to which each of the first runs belongs by what was read before.

    Returns
    -------
    ndarray
        (count,) part of each run, from 0.
    """
    order = np.argsort(known, kind="stable")
    same = known[order[1:]] == known[order[:-1]]
    one = np.concatenate([pairs.upper, order[:-1][same]])
    other = np.concatenate([pairs.lower, order[1:][same]])
    ones: NDArray[np.int8] = np.ones(len(one), dtype=np.int8)
    graph = coo_array((ones, (one, other)), shape=(count, count))
    _, found = connected_components(graph, directed=False)
    numbers: Ints = found.astype(np.int64)
    return numbers


def run_above(runs: Runs, keys: Keys, lower: Ints) -> Ints:
    """Run over the first pixel of each of these; every row above has to be whole."""
    wanted = (runs.row[lower] - 1) * keys.span + runs.first[lower]
    return np.searchsorted(keys.last, wanted, side="right")


def node_under(pairs: Overlaps, above: Ints, lower: Ints) -> Ints:
    """Node to which the outline of the run above leads on, along its lower side.

    Parameters
    ----------
    pairs
        All overlaps.
    above
        Runs of another label over the first pixel of ``lower``.
    lower
        Runs that overlap with none of their own label above.
    """
    if len(pairs.lower) == 0:
        return 2 * above + 1
    before = np.searchsorted(pairs.lower, lower) - 1
    meets = (before >= 0) & (pairs.upper[before.clip(min=0)] == above)
    return np.where(meets, 2 * pairs.lower[before.clip(min=0)], 2 * above + 1)
