"""How much is drawn of each class."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from napari_muvit.core.data.amounts import AmountCounter, area_of
from napari_muvit.core.data.areas import Ellipse, Rectangle
from napari_muvit.core.data.brush_mask import BrushMask
from napari_muvit.core.data.items import Region
from napari_muvit.core.data.polygons import Polygon
from napari_muvit.core.geometry import Box

BOX = Box((0, 0), (100, 100))


def filled(item):
    out = np.zeros((800, 800), np.uint8)
    item.fill(out, BOX)
    return np.count_nonzero(out) / 64


PATCHES = np.zeros((40, 40), bool)
PATCHES[2:9, 3:20] = PATCHES[30:38, 5:9] = PATCHES[9, 20] = True
ITEMS = [
    Rectangle(1, (3, 4), (20, 30)),
    Ellipse(1, (50, 50), (20, 35), 30),
    Polygon(1, np.array([(5.0, 5), (5, 95), (60, 95), (90, 5)])),
    Polygon(
        1,
        np.array([(5.0, 5), (5, 95), (95, 95), (95, 5)]),
        (np.array([(20.0, 20), (20, 40), (50, 30)]),),
    ),
    BrushMask(1, PATCHES, (10, 10), (2, 1.5)),
]


@pytest.mark.parametrize("item", ITEMS, ids=["box", "ellipse", "bent", "hole", "paint"])
def test_the_area_is_what_is_filled(item):
    assert area_of(item) == pytest.approx(filled(item), rel=0.01)


@settings(max_examples=30)
@given(st.lists(st.tuples(*[st.floats(0, 100)] * 2), min_size=3, max_size=3))
def test_a_triangle_far_away_has_the_same_area(corners):
    near = Polygon(1, np.array(corners))
    far = Polygon(1, np.array(corners) + 1e5)
    assert area_of(far) == pytest.approx(area_of(near), abs=1e-3)


def test_each_class_by_itself():
    counter = AmountCounter()
    items = [
        *ITEMS,
        Rectangle(2, (0, 0), (2, 2)),
        Region(ITEMS[0]),
        Rectangle(3, (0, 0), (1, 1)),
    ]
    for _ in range(2):
        nothing, first, second = counter.count(items, 2)
        assert (nothing.regions, first.regions, second.regions) == (0, 6, 1)
        assert second.pixels == 4
        assert first.pixels == pytest.approx(sum(map(area_of, ITEMS)))
