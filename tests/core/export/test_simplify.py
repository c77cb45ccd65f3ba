"""Fewer corners, within the tolerance, and still valid polygons."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_muvit.core.export.features import corners_of
from napari_muvit.core.export.simplify import simplify

Ring = list[tuple[int, int]]


def meet(a, b, c, d) -> bool:
    """Whether two closed lines have a point in common."""

    def side(p, q, r) -> int:
        turn = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
        return (turn > 0) - (turn < 0)

    for k in (0, 1):
        if max(min(a[k], b[k]), min(c[k], d[k])) > min(
            max(a[k], b[k]), max(c[k], d[k])
        ):
            return False
    return side(a, b, c) * side(a, b, d) <= 0 and side(c, d, a) * side(c, d, b) <= 0


def contains(ring: Ring, point: tuple[int, int]) -> bool:
    odd = False
    for a, b in zip(ring, [*ring[1:], ring[0]], strict=True):
        if (a[0] <= point[0]) != (b[0] <= point[0]):
            x = a[1] + (point[0] - a[0]) * (b[1] - a[1]) / (b[0] - a[0])
            odd ^= x > point[1]
    return odd


def lines_of(ring: Ring) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    return list(zip(ring, [*ring[1:], ring[0]], strict=True))


def check_valid(rings: list[Ring], exact: list[Ring]) -> None:
    """Lines touch where those of the exact outline do, and holes lie inside."""
    known = {line for ring in exact for line in lines_of(ring)}
    lines = [
        (number, place, len(ring), line)
        for number, ring in enumerate(rings)
        for place, line in enumerate(lines_of(ring))
    ]
    for one, other in itertools.combinations(lines, 2):
        apart = abs(one[1] - other[1])
        neighbours = one[0] == other[0] and apart in (1, one[2] - 1)
        if not neighbours and meet(*one[3], *other[3]):
            assert one[3] in known
            assert other[3] in known
    for ring in rings:
        assert len(ring) >= 3
        assert len(set(ring)) == len(ring)
    for number, hole in enumerate(rings[1:], start=1):
        for place, around in enumerate(rings):
            free = [p for p in hole if p not in around]
            if place != number and free:
                assert contains(around, free[0]) == (place == 0)


def distance_to(ring: Ring, point: tuple[int, int]) -> float:
    best = np.inf
    for a, b in lines_of(ring):
        along, off = np.subtract(b, a), np.subtract(point, a)
        share = np.clip(along @ off / (along @ along), 0, 1)
        best = min(best, float(np.hypot(*(off - share * along))))
    return best


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(4, 18), st.integers(4, 18)),
    blur=st.sampled_from([0.0, 0.6, 1.0]),
    tolerance=st.sampled_from([0.5, 0.75, 1.0, 1.5, 3.0, 8.0]),
)
def test_simplified_polygons_are_valid(follow, seed, shape, blur, tolerance) -> None:
    noise = np.random.default_rng(seed).random(shape)
    labels = (ndimage.gaussian_filter(noise, blur) > 0.45).astype(np.uint8)
    with follow(labels) as objects:
        rings, owner = [], []
        for k in range(len(objects)):
            for piece in objects.rings(k):
                ring = np.concatenate(list(corners_of(objects.ring(piece))))
                rings.append(ring[:, ::-1])
                owner.append(k)
        found = simplify(rings, np.array(owner), tolerance)
        for k in range(len(objects)):
            mine = [n for n, o in enumerate(owner) if o == k]
            check_valid(
                [list(map(tuple, found[n].tolist())) for n in mine],
                [list(map(tuple, rings[n].tolist())) for n in mine],
            )
        for exact, simple in zip(rings, found, strict=True):
            line = list(map(tuple, simple.tolist()))
            assert set(line) <= set(map(tuple, exact.tolist()))
            for corner in exact.tolist():
                assert distance_to(line, corner) <= tolerance + 1e-9


def square(top: int, left: int, edge: int) -> np.ndarray:
    corners = [(0, 0), (0, edge), (edge, edge), (edge, 0)]
    return np.array([(top + y, left + x) for y, x in corners])


def test_a_staircase_becomes_a_line() -> None:
    steps = [(k + d, k) for k in range(20) for d in (0, 1)]
    ring = np.array([*steps, (20, 20), (0, 20)])
    (line,) = simplify([ring], np.array([0]), 0.75)
    assert len(line) == 3
    assert simplify([ring], np.array([0]), 0.0)[0] is ring
    assert simplify([], np.array([], dtype=np.int64), 1.0) == []


def test_a_hole_in_a_bump_keeps_the_bump() -> None:
    bump = np.array([(10, 0), (10, 12), (7, 12), (7, 15), (10, 15), (10, 40),
                     (60, 40), (60, 0)])  # fmt: skip
    hole = square(8, 13, 1)
    alone, small = simplify([bump, square(30, 30, 1)], np.array([0, 0]), 4.0)
    assert len(alone) == 4
    assert len(small) >= 3
    around, _ = simplify([bump, hole], np.array([0, 0]), 4.0)
    assert len(around) > 4
    assert contains(list(map(tuple, around.tolist())), (8, 13))


def test_objects_do_not_mind_each_other() -> None:
    rings = [square(0, 0, 10), square(0, 10, 10)]
    found = simplify(rings, np.array([0, 1]), 1.0)
    assert [len(ring) for ring in found] == [4, 4]


@pytest.mark.parametrize("edge", [1, 2, 3])
def test_small_squares_stay_areas(edge: int) -> None:
    (ring,) = simplify([square(5, 5, edge)], np.array([0]), 50.0)
    y, x = ring.T.astype(float)
    assert len(ring) >= 3
    assert abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) > 0
