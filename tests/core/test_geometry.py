from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_muvit.core.geometry import (
    Box,
    NestedCrop,
    naive_boxes,
    nest,
    place_fine,
)

sizes = st.integers(8, 64)
extents = st.tuples(st.integers(8, 3000), st.integers(8, 3000))
factors = st.sampled_from([(1,), (1, 4), (1, 8, 32), (1, 2.5, 7), (1, 3)])


@given(sizes, extents, factors, st.integers(0, 2**32 - 1))
def test_random_crops_nest_and_stay_inside_where_the_slide_is_large_enough(
    size: int, extent: tuple[int, int], scale_factors: tuple[float, ...], seed: int
) -> None:
    slide = Box.from_shape(extent)
    rng = np.random.default_rng(seed)
    centre = [float(rng.uniform(0, e)) for e in extent]
    fine = place_fine(centre, (size, size), slide)
    crop = nest(fine, scale_factors, slide, rng)
    for box, factor in zip(crop.boxes, scale_factors, strict=True):
        assert np.allclose(box.shape, size * factor)
        for axis in range(2):
            if extent[axis] >= box.shape[axis]:
                assert box.lower[axis] >= -1e-6
                assert box.upper[axis] <= extent[axis] + 1e-6
            else:
                # A slide that is smaller than the box lies inside it.
                assert box.lower[axis] <= 1e-6
                assert box.upper[axis] >= extent[axis] - 1e-6
    for a, b in zip(crop.boxes, crop.boxes[1:], strict=False):
        assert b.contains(a, tolerance=1e-3)


def test_random_crops_are_not_centred_and_cover_the_allowed_range() -> None:
    slide = Box.from_shape((4000, 4000))
    fine = Box((2000, 2000), (2064, 2064))
    rng = np.random.default_rng(0)
    lower = np.array(
        [nest(fine, (1, 4), slide, rng).boxes[1].lower for _ in range(800)]
    )
    # Allowed: the 256 px box contains the 64 px box, so 1808 <= lower <= 2000.
    assert lower.min() >= 1808
    assert lower.max() <= 2000
    assert lower.min() < 1820
    assert lower.max() > 1988
    assert abs(lower.mean() - 1904) < 6


def test_prediction_centres_coarse_boxes_and_clamps_them() -> None:
    slide = Box.from_shape((1000, 1000))
    middle = nest(Box((480, 480), (544, 544)), (1, 4), slide)
    assert middle.boxes[1] == Box((384, 384), (640, 640))
    corner = nest(Box((0, 0), (64, 64)), (1, 4), slide)
    assert corner.boxes[1] == Box((0, 0), (256, 256))


@given(sizes, extents)
def test_fine_crops_lie_on_whole_pixels_inside(
    size: int, extent: tuple[int, int]
) -> None:
    slide = Box.from_shape(extent)
    for centre in ((0, 0), (extent[0], extent[1]), (extent[0] / 2, extent[1] / 3)):
        box = place_fine(centre, (size, size), slide)
        assert all(float(v).is_integer() for v in box.lower)
        for axis in range(2):
            if extent[axis] >= size:
                assert 0 <= box.lower[axis] <= extent[axis] - size


def test_boxes_refuse_what_is_no_box() -> None:
    with pytest.raises(ValueError, match="above the lower edge"):
        Box((0, 5), (3, 5))
    with pytest.raises(ValueError, match="finite"):
        Box((0, float("nan")), (3, 5))
    with pytest.raises(ValueError, match="inside"):
        NestedCrop((Box((0, 0), (8, 8)), Box((4, 4), (40, 40))))


def test_naive_boxes_are_the_same_everywhere() -> None:
    boxes = naive_boxes((64, 64), (1, 4)).as_array()
    assert boxes.tolist() == [[[-32, -32], [32, 32]], [[-128, -128], [128, 128]]]


def test_box_algebra() -> None:
    a, b = Box((0, 0), (4, 6)), Box((2, 3), (9, 9))
    assert a.intersection(b) == Box((2, 3), (4, 6))
    assert a.intersection(Box((4, 0), (5, 1))) is None
    assert a.centre == (2, 3)
    assert a.shifted((1, -1)) == Box((1, -1), (5, 5))
    assert Box.from_centre((2, 3), (4, 6)) == a
