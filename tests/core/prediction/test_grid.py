"""Crops along an axis: windows lie in their crops, shares sum to one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.prediction.grid import Axis, core_size

even_axes = st.builds(
    lambda first, length, crop, overlap: Axis(
        first, first + length, crop, core_size(crop, overlap)
    ),
    st.integers(-40, 40),
    st.integers(1, 900),
    st.integers(1, 200),
    st.floats(0, 0.9),
)
axes = even_axes | even_axes.map(Axis.shifted)


@settings(max_examples=150, deadline=None)
@given(axis=axes)
def test_shares_of_every_pixel_sum_to_one(axis: Axis) -> None:
    total = np.zeros(axis.last - axis.first)
    for index in range(axis.count):
        lower, upper = axis.window(index)
        assert axis.first <= lower < upper <= axis.last
        assert upper - lower <= axis.crop
        weights = axis.weights(index)
        assert (weights >= 0).all()
        total[lower - axis.first : upper - axis.first] += weights
    np.testing.assert_allclose(total, 1, atol=1e-5)


@settings(max_examples=150, deadline=None)
@given(axis=axes, ends=st.tuples(st.integers(-60, 1000), st.integers(1, 300)))
def test_touching_is_what_its_name_says(axis: Axis, ends: tuple[int, int]) -> None:
    lower, upper = ends[0], ends[0] + ends[1]
    expected = [
        index
        for index in range(axis.count)
        if axis.window(index)[0] < upper and axis.window(index)[1] > lower
    ]
    assert list(axis.touching(lower, upper)) == expected


def test_without_overlap_every_pixel_has_one_crop() -> None:
    axis = Axis(0, 130, 64, core_size(64, 0))
    assert [axis.window(i) for i in range(axis.count)] == [
        (0, 43), (43, 86), (86, 130),
    ]  # fmt: skip
    assert all((axis.weights(i) == 1).all() for i in range(axis.count))


def test_shares_fall_off_away_from_the_core() -> None:
    axis = Axis(0, 640, 128, core_size(128, 0.25))
    weights = axis.weights(2)
    middle = len(weights) // 2
    assert (np.diff(weights[:middle]) >= 0).all()
    assert (np.diff(weights[middle:]) <= 0).all()
    assert weights[middle] == 1
    assert weights[0] < 0.01
    # Half and half where two cores meet.
    edge = axis.edge(2) - axis.window(2)[0]
    assert 0.4 < weights[edge - 1] <= 0.5 <= weights[edge] < 0.6


@settings(max_examples=150, deadline=None)
@given(axis=even_axes)
def test_shifted_cores_lie_between_the_others(axis: Axis) -> None:
    shifted = axis.shifted()
    cores = [shifted.edge(i) for i in range(shifted.count + 1)]
    assert (cores[0], cores[-1]) == (axis.first, axis.last)
    assert 0 < min(np.diff(cores)) <= max(np.diff(cores)) <= axis.core
    if axis.count == 1:
        assert shifted == axis
    elif (axis.last - axis.first) // axis.count > 1:
        assert shifted.count == axis.count + 1
        mean = (axis.last - axis.first) / axis.count
        for index in range(1, axis.count + 1):
            off = axis.edge(index) - cores[index]
            assert mean / 2 - 1 <= off <= mean / 2
