"""Where is painted, and what comes back from a file."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from napari_muvit.core.data.brush_mask import BrushMask
from napari_muvit.core.geometry import Box
from napari_muvit.widgets.brush_canvas import (
    MAX_EDGE,
    canvas_around,
    canvas_of,
    grouped,
)

EXTENT = (30_000, 50_000)
sizes = st.floats(2, 60_000)


@settings(max_examples=60)
@given(st.floats(0, 29_000), st.floats(0, 49_000), sizes, sizes, st.floats(0.01, 200))
def test_a_canvas_holds_the_view_and_stays_small(y, x, height, width, pixel):
    view = Box((y, x), (min(y + height, EXTENT[0]), min(x + width, EXTENT[1])))
    canvas = canvas_around(view, pixel, EXTENT)
    factor = canvas.scale[0]
    assert max(canvas.shape) <= MAX_EDGE
    assert np.log2(factor) % 1 == 0
    assert (np.asarray(canvas.lower) % factor == 0).all()
    assert (np.asarray(canvas.lower) >= 0).all()
    assert (np.asarray(canvas.box.lower) <= np.asarray(view.lower) + factor).all()
    assert (np.asarray(canvas.box.upper) >= np.asarray(view.upper) - factor).all()


corners = st.tuples(st.integers(0, 9000), st.integers(0, 9000))


@settings(max_examples=40)
@given(st.lists(corners, min_size=1, max_size=5), st.sampled_from([1.0, 4.0, 2.5]))
def test_masks_of_a_file_find_a_canvas_of_their_grid(places, scale):
    masks = [
        BrushMask(1, np.ones((3, 5), bool), np.multiply(place, scale), (scale, scale))
        for place in places
    ]
    groups = grouped(masks)
    assert sum(map(len, groups)) == len(masks)
    for group in groups:
        canvas = canvas_of(group, EXTENT)
        assert max(canvas.shape) <= MAX_EDGE
        assert all(canvas.holds(mask) for mask in group)
        other = BrushMask(1, np.ones((3, 5), bool), (0.3, 0.3), (scale, scale))
        assert not canvas.holds(other)


def test_a_window_is_what_meets_a_box():
    canvas = canvas_around(Box((1000, 1000), (2000, 3000)), 4.0, EXTENT)
    window = canvas.window(np.array([1010.0, 1010.0]), np.array([1013.0, 1030.0]))
    part = canvas.part(window)
    assert part.lower == (1008, 1008)
    assert part.upper == (1016, 1032)
    outside = canvas.window(np.array([0.0, 0.0]), np.array([10.0, 10.0]))
    assert outside[0].stop - outside[0].start == 0
