"""Many outlines filled at once, against one outline at a time."""

import time
import tracemalloc
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data import scanlines
from napari_muvit.core.data.annotations import Annotations, Rectangle, Region
from napari_muvit.core.data.polygons import Polygon
from napari_muvit.core.geometry import Box


def one_ring(vertices, shape):
    """Pixel centres inside one ring, by parity along each row of a whole mask."""
    height, width = shape
    start, stop = vertices, np.roll(vertices, -1, axis=0)
    odd = np.zeros((height, width + 1), dtype=bool)
    for (y0, x0), (y1, x1) in zip(start, stop, strict=True):
        first, last = np.ceil(np.sort([y0, y1]) - 0.5).clip(0, height).astype(int)
        for row in range(first, last):
            crossing = x0 + (row + 0.5 - y0) / (y1 - y0) * (x1 - x0)
            odd[row, int(np.clip(np.ceil(crossing - 0.5), 0, width))] ^= True
    return np.bitwise_xor.accumulate(odd, axis=1)[:, :width]


def one_by_one(polygons, box, shape):
    step, lower = np.asarray(box.shape) / shape, np.asarray(box.lower)
    out = np.zeros(shape, np.uint8)
    for polygon in polygons:
        mask = one_ring((polygon.vertices - lower) / step, shape)
        for hole in polygon.holes:
            mask &= ~one_ring((hole - lower) / step, shape)
        out[mask] = polygon.label
    return out


coordinate = st.floats(-8, 24).map(lambda v: round(v, 2))
ring = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=12).map(
    np.array
)
polygon = st.builds(
    Polygon, st.integers(0, 4), ring, st.lists(ring, max_size=2).map(tuple)
)


@given(
    st.lists(polygon, min_size=1, max_size=6),
    st.sampled_from([0.5, 1.0, 3.7]),
    st.sampled_from([(13, 9), (1, 1), (4, 30)]),
    st.sampled_from([1, 3, 32]),
    st.sampled_from([4, 2**20]),
    st.sampled_from([0, 2**20]),
)
@settings(max_examples=150, deadline=None)
def test_all_at_once_is_one_after_the_other(
    polygons, factor, shape, block, crossings, large
):
    # No pixel centre lies on an edge to the last bit: there, either side is right.
    lower = np.array((-3.001234567, 2.00198765))
    box = Box(tuple(lower), tuple(lower + factor * np.array(shape)))
    settings_ = {"BLOCK": block, "MAX_CROSSINGS": crossings, "LARGE_ITEM": large}
    with mock.patch.multiple(scanlines, **settings_):
        found = Annotations(polygons).rasterise(box, shape)
    np.testing.assert_array_equal(found, one_by_one(polygons, box, shape))


whole = st.integers(-20, 60).map(lambda v: v / 2)
grid_ring = st.lists(st.tuples(whole, whole), min_size=3, max_size=9).map(np.array)


@given(
    st.lists(st.builds(Polygon, st.integers(1, 3), grid_ring), min_size=1, max_size=4),
    st.integers(0, 20),
    st.integers(0, 20),
)
@settings(max_examples=60, deadline=None)
def test_a_crop_is_a_part_of_the_whole(polygons, y, x):
    annotations = Annotations(polygons)
    whole = annotations.rasterise(Box.from_shape((32, 32)), (32, 32))
    part = annotations.rasterise(Box((y, x), (y + 12, x + 9)), (12, 9))
    # Points on an edge count as well, but there the last bit may decide.
    differ = part != whole[y : y + 12, x : x + 9]
    for i, j in np.argwhere(differ):
        assert any(
            _on_edge((y + i + 0.5, x + j + 0.5), polygon.vertices)
            for polygon in polygons
        )


def _on_edge(point, vertices):
    start, along = vertices, np.roll(vertices, -1, axis=0) - vertices
    away = np.asarray(point) - start
    cross = along[:, 0] * away[:, 1] - along[:, 1] * away[:, 0]
    return np.abs(cross).min() < 1e-9


@given(st.lists(st.integers(0, 64), min_size=2, max_size=12))
@settings(max_examples=60, deadline=None)
def test_neighbours_that_share_an_edge_leave_no_gap_and_do_not_overlap(border):
    """Centres on the shared edge too, whichever way round it is walked."""
    y = np.linspace(0, 32, len(border))
    shared = np.stack([y, np.array(border) / 2], axis=1)
    left = Polygon(1, np.concatenate([shared, [(32, -1), (0, -1)]]))
    right = Polygon(2, np.concatenate([shared[::-1], [(0, 40), (32, 40)]]))
    box, shape = Box.from_shape((32, 32)), (32, 32)
    found = Annotations((left, right)).rasterise(box, shape)
    assert (found > 0).all()
    np.testing.assert_array_equal(
        found, Annotations((right, left)).rasterise(box, shape)
    )


def test_a_window_of_another_array_is_filled_in_place():
    canvas = np.zeros((20, 30), np.uint8)
    square = Polygon(3, [(0, 0), (0, 4), (4, 4), (4, 0)], ([(1, 1), (1, 2), (2, 1)],))
    square.fill(canvas[5:15, 6:16], Box((-1, -2), (9, 8)))
    wanted = np.zeros_like(canvas)
    wanted[6:10, 8:12] = 3
    wanted[7, 9] = 3  # the centre lies on the slope of the hole: not cut out
    np.testing.assert_array_equal(canvas, wanted)


def test_a_million_short_edges():
    angle = np.linspace(0, 2 * np.pi, 1_000_000, endpoint=False)
    circle = 10_000 + 8_000 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    annotations = Annotations.from_polygons([(1, circle)])
    whole = annotations.rasterise(Box((0, 0), (20_000, 20_000)), (250, 250))
    y, x = np.mgrid[:250, :250] * 80 + 40 - 10_000
    np.testing.assert_array_equal(whole, np.hypot(y, x) < 8_000)
    start = time.perf_counter()
    for k in range(20):
        box = Box((9_900 + k, 17_800), (10_100 + k, 18_200))
        assert annotations.rasterise(box, (200, 400)).sum() > 200 * 195
    assert time.perf_counter() - start < 1


def test_memory_is_bounded_when_all_edges_cross_all_rows():
    points = np.random.default_rng(0).uniform(0, 512, (40_000, 2))
    annotations = Annotations.from_polygons([(1, points)])
    tracemalloc.start()
    found = annotations.rasterise(Box.from_shape((512, 512)), (512, 512))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.4 < found.mean() < 0.6
    assert peak < 2**28


def test_regions_and_other_areas_keep_their_order():
    square = np.array([(0, 0), (0, 8), (8, 8), (8, 0)], dtype=float)
    items = (
        Polygon(2, square + 2),
        Rectangle(3, corner=(4, 4), size=(3, 3)),
        Polygon(4, square / 2 + 5),
        Region(Polygon(1, square * 2)),
    )
    box, shape = Box.from_shape((16, 16)), (16, 16)
    wanted = np.zeros(shape, np.uint8)
    for item in (items[3], *items[:3]):
        item.fill(wanted, box)
    annotations = Annotations(items)
    np.testing.assert_array_equal(annotations.rasterise(box, shape), wanted)
    assert sorted(np.unique(wanted)) == [1, 2, 3, 4]
