"""Follows all outlines of a label image while its rows go by, without a seam.

Known in memory are the rows that are followed at a time, the last row before them, and
a record of each piece of an outline; corners go to a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .links import (
    NONE,
    Keys,
    Overlaps,
    falling_corners,
    node_under,
    overlaps,
    parts,
    rising_corners,
    run_above,
    successors,
)
from .pieces import FAR, PIECE, CornerFile, PieceTable
from .runs import Ints, Runs
from .walk import Turns, Walk, turns, walk

NONE_YET = np.empty(0, dtype=np.int64)
EMPTY = Runs(NONE_YET, NONE_YET, NONE_YET, np.empty(0, dtype=np.uint8))
Pairs = tuple[Ints, Ints]


@dataclass(frozen=True, eq=False, slots=True)
class Frontier:
    """The last row that was read."""

    runs: Runs
    part: Ints
    """(n,) part of each run."""
    ends: Ints
    """(n,) piece that ends with its right edge."""
    starts: Ints
    """(n,) piece that starts with its left edge."""


@dataclass(frozen=True, eq=False, slots=True)
class _Rows:
    """What is followed at a time."""

    runs: Runs
    """The row before, then the new ones."""
    old: int
    """How many are of the row before."""
    keys: Keys
    pairs: Overlaps
    number: Ints
    """(n,) part of each run, numbered among these."""
    part: Ints
    """Part of each such number, numbered over the whole image."""
    is_open: NDArray[np.bool_]
    """(n,) whether the part of a run goes on below."""


@dataclass(eq=False)
class Tracer:
    """Outlines of all parts of one label whose pixels meet at edges.

    Parameters
    ----------
    width
        Columns of the image.
    corners
        Where corners go.
    least
        Parts of fewer pixels may be dropped as soon as they are complete.
    enclosing
        Find out what lies over the first pixel of each part, so that it is known which
        hole it lies in. Every pixel has to be in a run then.
    """

    width: int
    corners: CornerFile
    least: int = 0
    enclosing: bool = False
    pieces: PieceTable = field(default_factory=PieceTable)
    num_parts: int = 0
    merged: list[Pairs] = field(default_factory=list)
    """Numbers of parts, and the smaller ones of the same part."""
    falling: list[Pairs] = field(default_factory=list)
    """Pieces whose ways are to be exchanged where they are of one part."""
    rising: list[Pairs] = field(default_factory=list)
    """Pieces whose ends are to be exchanged where they are of one part."""
    dropped: int = 0
    """Parts of fewer pixels that are forgotten already."""
    _frontier: Frontier = field(init=False)

    def __post_init__(self) -> None:
        self._frontier = Frontier(EMPTY, NONE_YET, NONE_YET, NONE_YET)

    def add(self, bottom: int, new: Runs) -> None:
        """Follow the outlines through the runs of the next rows.

        Parameters
        ----------
        bottom
            Row behind the last of them.
        new
            Their runs.
        """
        front = self._frontier
        rows = self._joined(new, bottom - 1)
        after = successors(rows.runs, rows.pairs, len(front.part), bottom - 1)
        turn = turns(
            after,
            falling_corners(rows.runs, rows.keys),
            rising_corners(rows.runs, rows.keys),
            rows.number,
            rows.is_open.astype(np.int64),
        )
        path = self._walk(rows, turn, bottom - 1)
        owner = path.owners(len(after))
        known = np.where(owner >= 0, owner + len(self.pieces), NONE)
        # The outline goes on in a piece that is known already.
        known[1 : 2 * rows.old : 2] = front.starts
        for kind, pair in ((self.falling, turn.falling), (self.rising, turn.rising)):
            if len(pair[0]):
                kind.append((known[pair[0]], known[pair[1]]))
        self.pieces.rows["next"][front.ends] = known[0 : 2 * rows.old : 2]
        self._append(rows, turn, path, known)
        row = np.flatnonzero(rows.runs.row == bottom - 1)
        self._frontier = Frontier(
            rows.runs.select(row),
            rows.part[rows.number[row]],
            known[2 * row],
            known[2 * row + 1],
        )

    def finish(self, height: int) -> None:
        """Close what is open at the lower edge of the image."""
        self.add(height + 1, EMPTY)

    def _joined(self, new: Runs, open_row: int) -> _Rows:
        front = self._frontier
        runs = Runs(
            *(np.concatenate([getattr(front.runs, name), getattr(new, name)])
              for name in ("row", "first", "last", "value"))
        )  # fmt: skip
        old = len(front.runs)
        keys = Keys.of(runs, self.width)
        pairs = overlaps(runs, keys)
        number = parts(len(runs), pairs, front.part)
        count = int(number.max()) + 1 if len(number) else 0
        part = np.full(count, FAR)
        np.minimum.at(part, number[:old], front.part)
        fresh = part == FAR
        part[fresh] = self.num_parts + np.arange(int(fresh.sum()))
        self.num_parts += int(fresh.sum())
        became = part[number[:old]]
        moved = became != front.part
        if moved.any():
            self.merged.append((front.part[moved], became[moved]))
        goes_on = np.zeros(count, dtype=bool)
        goes_on[number[runs.row == open_row]] = True
        return _Rows(runs, old, keys, pairs, number, part, goes_on[number])

    def _walk(self, rows: _Rows, turn: Turns, open_row: int) -> Walk:
        after, old = turn.after, rows.old
        known = np.arange(1, 2 * old, 2)
        is_known = np.zeros(len(after) + 1, dtype=bool)  # the last one is `NONE`
        is_known[known] = True
        stops = turn.cut | (after < 0) | is_known[after]
        resumed = after[turn.cut]
        starts = np.concatenate(
            [
                2 * np.arange(old),
                2 * np.flatnonzero(rows.runs.row == open_row) + 1,
                resumed[~is_known[resumed]],
            ]
        )
        return walk(after, stops, known, starts)

    def _append(self, rows: _Rows, turn: Turns, path: Walk, known: Ints) -> None:
        """Record the pieces, and write their corners."""
        if len(path.nodes) == 0:
            return
        table = np.zeros(len(path.bounds) - 1, dtype=PIECE)
        begin = path.bounds[:-1]
        run = path.nodes[begin] // 2
        table["value"] = rows.runs.value[run]
        table["part"] = rows.part[rows.number[run]]
        ahead = turn.after[path.nodes[path.bounds[1 : path.opened + 1] - 1]]
        table["next"][: path.opened] = np.where(ahead >= 0, known[ahead], NONE)
        _measure(table, rows, path)
        table["above"] = NONE
        if self.enclosing:
            self._look_above(table, rows, turn, known)
        kept = self._worth_keeping(table, rows, run, path.opened)
        x, y, turned = _corners(rows.runs, turn.after, path.nodes)
        table["count"] = np.add.reduceat(turned.astype(np.int64), begin)
        turned &= np.repeat(kept, np.diff(path.bounds))
        table = table[kept]
        closed = slice(path.opened, None)
        table["next"][closed] = (len(self.pieces) + np.arange(len(table)))[closed]
        table["offset"] = self.corners.count + np.cumsum(table["count"])
        table["offset"] -= table["count"]
        self.corners.append(x[turned], y[turned])
        self.pieces.append(table)

    def _worth_keeping(
        self, table: NDArray[Any], rows: _Rows, run: Ints, opened: int
    ) -> NDArray[np.bool_]:
        """Without those of parts that are complete and too small.

        They come last, so that the numbers of the open ones do not depend on it.
        """
        if self.enclosing or self.least <= 1:
            return np.ones(len(table), dtype=bool)
        length = (rows.runs.last - rows.runs.first).astype(np.float64)
        size = np.bincount(rows.number, weights=length, minlength=len(rows.part))
        complete = ~rows.is_open
        complete &= ~np.isin(rows.number, rows.number[: rows.old])
        kept = ~(complete[run] & (size[rows.number[run]] < self.least))
        kept[:opened] = True
        self.dropped += int((table["area"][~kept] > 0).sum())
        return kept

    def _look_above(
        self, table: NDArray[Any], rows: _Rows, turn: Turns, known: Ints
    ) -> None:
        """Find the piece of the outline over the first left edge of each piece.

        Where that outline is cut just there it is ``-2 - piece`` before the cut.
        """
        which = np.flatnonzero(table["top"] < FAR)
        run = np.searchsorted(rows.keys.first, table["top"][which])
        meets = np.zeros(len(rows.runs), dtype=bool)
        meets[rows.pairs.lower] = True
        free = ~meets[run] & (rows.runs.row[run] > 0)
        which, run = which[free], run[free]
        if len(run) == 0:
            return
        above = run_above(rows.runs, rows.keys, run)
        way = turn.before[node_under(rows.pairs, above, run)]
        node = turn.enter[way]
        table["above"][which] = np.where(
            turn.cut[node], -2 - known[node], known[node]
        )  # fmt: skip


def _measure(table: NDArray[Any], rows: _Rows, path: Walk) -> None:
    """Sums and limits over the edges of each piece, but those of the row before."""
    begin, run = path.bounds[:-1], path.nodes // 2
    right = path.nodes % 2 == 0
    own = run >= rows.old
    y = rows.runs.row[run]
    x = np.where(right, rows.runs.last[run], rows.runs.first[run])
    signed = np.where(right, x, -x) * own
    table["area"] = np.add.reduceat(signed, begin)
    table["moment_y"] = np.add.reduceat(signed * (2 * y + 1), begin)
    table["moment_x"] = np.add.reduceat(signed * x, begin)
    least, most = np.iinfo(np.int32).max, -1
    table["y0"] = np.minimum.reduceat(np.where(own, y, least), begin)
    table["x0"] = np.minimum.reduceat(np.where(own, x, least), begin)
    table["y1"] = np.maximum.reduceat(np.where(own, y + 1, most), begin)
    table["x1"] = np.maximum.reduceat(np.where(own, x, most), begin)
    key = np.where(own & ~right, rows.keys.first[run], FAR)
    table["top"] = np.minimum.reduceat(key, begin)


def _corners(
    runs: Runs, after: Ints, nodes: Ints
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Column and row at which each node is left, and whether the outline turns."""
    columns = np.empty(2 * len(runs), dtype=np.int64)
    columns[0::2], columns[1::2] = runs.last, runs.first
    x, ahead = columns[nodes], after[nodes]
    y = runs.row[nodes // 2] + (nodes % 2 == 0)
    return x, y, (ahead >= 0) & (columns[ahead] != x)
