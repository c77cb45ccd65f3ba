"""Outlines with holes as one ring, and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit._outline_rings import join_rings, split_rings
from napari_muvit.core.data.annotations import Annotations, Polygon
from napari_muvit.core.geometry import Box

point = st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 2)
ring = st.lists(point, min_size=3, max_size=8, unique=True)


@given(ring, st.lists(ring, max_size=3))
@settings(max_examples=80, deadline=None)
def test_round_trips_are_exact(outer, holes):
    outer = np.array(outer)
    # A vertex that is the first one of the outline is what a bridge is known by.
    holes = [
        np.array(h) for h in holes if outer[0].tolist() not in np.array(h).tolist()
    ]
    found, found_holes = split_rings(join_rings(outer, holes))
    np.testing.assert_array_equal(found, outer)
    assert len(found_holes) == len(holes)
    for one, other in zip(found_holes, holes, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_ring_covers_what_outline_and_holes_cover():
    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 40))
    star = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    outer = 50 + star * rng.uniform(30, 45, (40, 1))
    holes = (42 + star * 6, 60 + star[::-1] * 7)
    box, shape = Box.from_shape((100, 100)), (100, 100)
    joined = Annotations((Polygon(1, join_rings(outer, holes)),))
    np.testing.assert_array_equal(
        joined.rasterise(box, shape),
        Annotations((Polygon(1, outer, holes),)).rasterise(box, shape),
    )


@pytest.mark.parametrize(
    "ring",
    [
        [(0, 0), (0, 4), (4, 4), (0, 0)],  # closed by hand
        [(0, 0), (0, 4), (4, 4), (0, 0), (1, 1), (1, 2), (2, 2)],  # no closed loop
        [(0, 0), (0, 4), (0, 0), (1, 1), (1, 2), (2, 2), (1, 1)],  # no outer ring
    ],
)
def test_other_rings_stay_as_they_are(ring):
    found, holes = split_rings(np.array(ring))
    assert holes == ()
    np.testing.assert_array_equal(found, ring)
