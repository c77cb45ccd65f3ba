"""Lines that touch."""

from __future__ import annotations

import numpy as np
import pytest

from napari_muvit.core.export import contacts
from napari_muvit.core.export.contacts import Segments, swept_pairs, touching_pairs


def segments(lines, rings=None, owners=None, loose: bool = True) -> Segments:
    points = np.array(lines)
    count = len(points)
    low = 10 * np.arange(count)
    return Segments(
        points[:, 0], points[:, 1], low, low + (2 if loose else 1),
        np.array(range(count) if rings is None else rings),
        np.array([0] * count if owners is None else owners),
    )  # fmt: skip


def found(lines: Segments) -> set[tuple[int, int]]:
    return {
        pair
        for one, other in touching_pairs(lines)
        for pair in zip(one.tolist(), other.tolist(), strict=True)
    }


CROSSING = [((0, 0), (10, 10)), ((0, 10), (10, 0))]


def test_lines_of_one_object_cross() -> None:
    assert found(segments(CROSSING)) == {(0, 1)}
    assert found(segments(CROSSING, owners=[0, 1])) == set()
    # What the exact outline does is right.
    assert found(segments(CROSSING, loose=False)) == set()


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        (((0, 0), (0, 9)), ((0, 9), (5, 9)), True),  # at their ends
        (((0, 0), (0, 9)), ((0, 4), (7, 5)), True),  # an end upon the other
        (((0, 0), (0, 9)), ((0, 5), (0, 20)), True),  # upon each other
        (((0, 0), (0, 9)), ((0, 10), (0, 20)), False),
        (((0, 0), (9, 9)), ((1, 0), (10, 9)), False),
        (((0, 0), (9, 9)), ((4, 5), (4, 9)), False),
    ],
)
def test_lines_that_touch(one, other, meet: bool) -> None:
    assert bool(found(segments([one, other]))) == meet
    assert bool(found(segments([other[::-1], one]))) == meet


def test_neighbours_in_a_ring_may_meet_but_not_fold_back() -> None:
    triangle = [((0, 0), (0, 9)), ((0, 9), (9, 0)), ((9, 0), (0, 0))]
    assert found(segments(triangle, rings=[0, 0, 0])) == set()
    spike = [((0, 0), (0, 9)), ((0, 9), (0, 4)), ((0, 4), (9, 0)), ((9, 0), (0, 0))]
    assert (0, 1) in found(segments(spike, rings=[0] * 4))


def test_far_lines_and_many_pairs(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    start = rng.integers(0, 3000, (300, 2))
    lines = np.stack([start, start + rng.integers(-400, 400, (300, 2))], axis=1)
    some = segments(lines)
    a, b = some.start, some.stop
    one, other = np.triu_indices(300, 1)
    hits = contacts._meet(a[one], b[one], a[other], b[other])
    wanted = set(zip(one[hits].tolist(), other[hits].tolist(), strict=True))
    assert len(wanted) > 100
    assert found(some) == wanted
    monkeypatch.setattr(contacts, "MOST_PAIRS", 10)
    assert found(some) == wanted


def test_a_line_that_has_passed_over_a_ring() -> None:
    points = np.array([(0, 0), (3, 0), (3, 20), (0, 20), (1, 9), (1, 10), (2, 10)])
    lines = Segments(
        points[[0, 4, 5, 6]], points[[3, 5, 6, 4]], np.array([0, 4, 5, 6]),
        np.array([3, 5, 6, 7]), np.array([0, 1, 1, 1]), np.array([0, 0, 0, 0]),
    )  # fmt: skip
    begins = np.array([0, 4])
    assert swept_pairs(lines, points, begins, 3.0).tolist() == [0]
    other = points.copy()
    other[4:] += (20, 0)
    away = Segments(
        other[[0, 4, 5, 6]], other[[3, 5, 6, 4]], lines.low, lines.high,
        lines.ring, lines.owner,
    )  # fmt: skip
    assert swept_pairs(away, other, begins, 3.0).tolist() == []
