"""Pieces to rings, rings to objects: what is too small, filled, or left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .links import NONE
from .runs import Ints
from .tracer import Pairs, Tracer

Corners = NDArray[np.int32]
CHUNK = 2**20
"""Corners that are read at a time."""


@dataclass(frozen=True, eq=False, slots=True)
class _Rings:
    """Closed outlines."""

    rows: NDArray[Any]
    """(r,) sums and limits as in `PIECE`; ``next`` is one of its pieces, ``above`` the
    ring over its first left edge."""

    @property
    def is_outer(self) -> NDArray[np.bool_]:
        """Whether it runs around its part, not around a hole."""
        outer: NDArray[np.bool_] = self.rows["area"] > 0
        return outer


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects that are left, in reading order of their first pixels."""

    value: NDArray[np.uint8]
    """(n,) label."""
    area: Ints
    """(n,) pixels."""
    centroid: NDArray[np.float64]
    """(n, 2) mean (y, x), edge to edge."""
    box: Ints
    """(n, 4) y0, x0, y1, x1."""
    outer: Ints
    """(n,) piece of the outer ring."""
    holes: Ints
    """(h,) a piece of each hole, object by object."""
    hole_bounds: Ints
    """(n + 1,) where the holes of an object begin."""
    corners: Ints
    """(n,) stored corners of all rings of an object."""
    following: Ints = field(repr=False)
    """(p,) piece that follows each piece."""
    pieces: NDArray[Any] = field(repr=False)
    stored: Corners = field(repr=False)
    """Corners of all pieces."""
    dropped: int = 0
    """Objects that were too small."""
    filled: int = 0
    """Holes that were filled."""

    def __len__(self) -> int:
        return len(self.value)

    def rings(self, index: int) -> list[int]:
        """A piece of each ring of an object, the outer one first."""
        low, high = self.hole_bounds[index : index + 2]
        return [int(self.outer[index]), *self.holes[low:high].tolist()]

    def ring(self, piece: int) -> Iterator[Corners]:
        """Corners of a ring, as they are stored, from its first one in reading order.

        Parameters
        ----------
        piece
            Any of its pieces.

        Yields
        ------
        ndarray
            (n, 2) corners (x, y), at most `CHUNK`.
        """
        spans = list(self._spans(piece))
        if len(spans) == 1 and spans[0][1] - spans[0][0] <= CHUNK:
            corners = self.stored[slice(*spans[0])]
            first = int(np.lexsort((corners[:, 0], corners[:, 1]))[0])
            yield np.roll(corners, -first, axis=0)
            return
        number, first = self._first(spans)
        low, high = spans[number]
        before = [*spans[:number], (low, first)]
        for start, stop in [(first, high), *spans[number + 1 :], *before]:
            for at in range(start, stop, CHUNK):
                yield np.asarray(self.stored[at : min(at + CHUNK, stop)])

    def _spans(self, piece: int) -> Iterator[tuple[int, int]]:
        """Where the corners of a ring lie in the file."""
        at = piece
        while True:
            low, count = int(self.pieces["offset"][at]), int(self.pieces["count"][at])
            if count:
                yield low, low + count
            at = int(self.following[at])
            if at == piece:
                return

    def _first(self, spans: list[tuple[int, int]]) -> tuple[int, int]:
        """Span and place of the first corner in reading order."""
        best: tuple[int, int, int, int] | None = None
        for number, (low, high) in enumerate(spans):
            for at in range(low, high, CHUNK):
                part = self.stored[at : min(at + CHUNK, high)]
                k = int(np.lexsort((part[:, 0], part[:, 1]))[0])
                found = (int(part[k, 1]), int(part[k, 0]), number, at + k)
                best = found if best is None else min(best, found)
        if best is None:
            raise ValueError("A ring without corners.")
        return best[2], best[3]


def find_objects(tracer: Tracer, least: int, most: int) -> Objects:
    """Put the pieces together, and decide which objects are left.

    An object of fewer than ``least`` pixels is dropped. A hole of an object that is not
    dropped, of up to ``most`` pixels, is filled: the object takes all of it, objects
    that lie in it included.

    Parameters
    ----------
    tracer
        What was followed, to the end of the image.
    least
        Fewest pixels of an object.
    most
        Most pixels of a hole that is filled.
    """
    pieces = tracer.pieces.rows
    part = _parts(tracer.num_parts, tracer.merged)
    pieces["part"] = part[pieces["part"]]
    enter, out = np.arange(len(pieces)), pieces["next"].copy()
    _exchange(enter, pieces["part"], tracer.falling)
    _exchange(out, pieces["part"], tracer.rising)
    following = out[enter]
    ring = _numbers(following)
    rings = _sums(pieces, ring)
    above = _above(rings, ring, out)
    chosen = _choose(rings, above, least, most, tracer.num_parts)
    return _objects(rings, chosen, pieces, following, tracer)


def _parts(count: int, merged: list[Pairs]) -> Ints:
    """Final part of each number."""
    part = np.arange(count)
    for numbers, became in merged:
        part[numbers] = became
    while True:
        further = part[part]
        if np.array_equal(further, part):
            return part
        part = further


def _exchange(values: Ints, part: Ints, pairs: list[Pairs]) -> None:
    if not pairs:
        return
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    same = part[one] == part[other]
    one, other = one[same], other[same]
    values[one], values[other] = values[other], values[one]


def _numbers(following: Ints) -> Ints:
    """Ring of each piece; most are rings by themselves."""
    own = np.arange(len(following))
    chained = np.flatnonzero(following != own)
    ring = own.copy()
    if len(chained):
        place = np.zeros(len(following), dtype=np.int64)
        place[chained] = np.arange(len(chained))
        ones = np.ones(len(chained), dtype=np.int8)
        shape = (len(chained), len(chained))
        graph = coo_array((ones, (place[chained], place[following[chained]])), shape)
        _, number = connected_components(graph, directed=False)
        first = np.full(len(chained), len(following))
        np.minimum.at(first, number, chained)
        ring[chained] = first[number]
    numbers: Ints = np.unique(ring, return_inverse=True)[1].astype(np.int64)
    return numbers


def _sums(pieces: NDArray[Any], ring: Ints) -> _Rings:
    """Add up the pieces of each ring."""
    order = np.lexsort((pieces["top"], ring))
    ordered = ring[order]
    begin = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    if len(ring) == 0:
        return _Rings(pieces[:0].copy())
    # The piece with the first left edge leads.
    rows = pieces[order[begin]]
    rows["next"] = order[begin]
    for name in ("area", "moment_y", "moment_x", "count"):
        rows[name] = np.add.reduceat(pieces[name][order], begin)
    for name in ("y0", "x0"):
        rows[name] = np.minimum.reduceat(pieces[name][order], begin)
    for name in ("y1", "x1"):
        rows[name] = np.maximum.reduceat(pieces[name][order], begin)
    return _Rings(rows)


def _above(rings: _Rings, ring: Ints, out: Ints) -> Ints:
    """Ring over the first left edge of each ring, or `NONE`."""
    code = rings.rows["above"]
    above = np.full(len(code), NONE)
    plain, cut = code >= 0, code <= -2
    above[plain] = ring[code[plain]]
    above[cut] = ring[out[-2 - code[cut]]]
    return above


@dataclass(frozen=True, eq=False, slots=True)
class _Chosen:
    """Which objects and holes are left."""

    outer: Ints
    """(n,) outer ring of each object."""
    hole: Ints
    """(h,) rings of holes, object by object."""
    owner: Ints
    """(h,) place in ``outer`` of their objects."""
    dropped: int
    filled: int


def _choose(
    rings: _Rings, above: Ints, least: int, most: int, num_parts: int
) -> _Chosen:
    rows = rings.rows
    outer = np.flatnonzero(rings.is_outer)
    outer = outer[np.argsort(rows["top"][outer])]
    hole = np.flatnonzero(~rings.is_outer)
    place = np.full(num_parts, NONE)
    place[rows["part"][outer]] = np.arange(len(outer))
    owner = place[rows["part"][hole]]
    size = rows["area"][outer].copy()
    np.add.at(size, owner, rows["area"][hole])
    is_object = rows["value"][outer] > 0
    big = is_object & (size >= least)
    fills = np.zeros(len(rows), dtype=bool)
    fills[hole] = big[owner] & (-rows["area"][hole] <= most)
    owner_of = np.full(len(rows), NONE)
    owner_of[outer], owner_of[hole] = np.arange(len(outer)), owner
    inside = _holes_around(rings, outer, above, owner_of)
    kept = big & ~_swallowed(inside, fills, owner_of)
    number = np.cumsum(kept) - 1
    left = ~fills[hole] & kept[owner]
    hole, owner = hole[left], number[owner[left]]
    order = np.lexsort((rows["top"][hole], owner))
    return _Chosen(
        outer[kept],
        hole[order],
        owner[order],
        dropped=int((is_object & ~big).sum()),
        filled=int(fills.sum()),
    )


def _holes_around(rings: _Rings, outer: Ints, above: Ints, owner_of: Ints) -> Ints:
    """Hole in which each object lies at once, or `NONE`.

    What lies over its first pixel either has it in a hole, or lies in the same hole.
    """
    over = above[outer]
    known = over >= 0
    is_hole = known & ~rings.is_outer[over]
    hole = np.where(is_hole, over, NONE)
    same = np.where(known & ~is_hole, owner_of[over], NONE)
    while True:
        waiting = np.flatnonzero(same >= 0)
        if len(waiting) == 0:
            return hole
        beyond = same[waiting]
        hole[waiting], same[waiting] = hole[beyond], same[beyond]


def _swallowed(inside: Ints, fills: NDArray[np.bool_], owner_of: Ints) -> Any:
    """Whether an object lies in a hole that is filled, however deep."""
    lies = inside >= 0
    around = owner_of[inside]
    gone = lies & fills[inside]
    while True:
        more = gone | (lies & gone[around])
        if np.array_equal(more, gone):
            return gone
        gone = more


def _objects(
    rings: _Rings,
    chosen: _Chosen,
    pieces: NDArray[Any],
    following: Ints,
    tracer: Tracer,
) -> Objects:
    rows, outer, hole = rings.rows, chosen.outer, chosen.hole
    sums = {}
    for name in ("area", "moment_y", "moment_x", "count"):
        sums[name] = rows[name][outer].copy()
        np.add.at(sums[name], chosen.owner, rows[name][hole])
    moments = np.stack([sums["moment_y"], sums["moment_x"]], axis=1)
    return Objects(
        value=rows["value"][outer],
        area=sums["area"],
        centroid=moments / (2.0 * sums["area"][:, None]),
        box=np.stack(
            [rows[n][outer].astype(np.int64) for n in ("y0", "x0", "y1", "x1")], axis=1
        ),
        outer=rows["next"][outer],
        holes=rows["next"][hole],
        hole_bounds=np.searchsorted(chosen.owner, np.arange(len(outer) + 1)),
        corners=sums["count"],
        following=following,
        pieces=pieces,
        stored=tracer.corners.read(),
        dropped=tracer.dropped + chosen.dropped,
        filled=chosen.filled,
    )
