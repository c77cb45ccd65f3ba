"""Boxes, ellipses, brush masks and regions: at any place and scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_muvit.core.data import outlines as outlines_module
from napari_muvit.core.data.annotations import (
    Annotations,
    BrushMask,
    Ellipse,
    LabelImage,
    Polygon,
    Rectangle,
    Region,
    label_classes,
)
from napari_muvit.core.data.geojson import read_geojson, write_geojson
from napari_muvit.core.data.items import relabelled
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.outlines import masks_of, outlines, trace_mask
from napari_muvit.core.errors import AnnotationError
from napari_muvit.core.geometry import Box

MAP = np.array([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]], bool)
number = st.floats(-20, 40).map(lambda v: round(v, 2))
length = st.floats(0.05, 30).map(lambda v: round(v, 2) + 0.05)
factors = st.sampled_from([0.25, 0.5, 1, 2, 3.7, 8])
masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(np.any)


def centres(lower, factor, shape):
    return np.stack(
        np.meshgrid(
            *(
                v + factor * (np.arange(n) + 0.5)
                for v, n in zip(lower, shape, strict=True)
            ),
            indexing="ij",
        )
    )


def drawn(item, lower=(0, 0), factor=1.0, shape=(24, 24)):
    upper = tuple(v + factor * n for v, n in zip(lower, shape, strict=True))
    return Annotations((item,)).rasterise(Box(lower, upper), shape)


@given(number, number, length, length, st.floats(-400, 400), number, factors)
@settings(max_examples=150, deadline=None)
def test_an_ellipse_is_exact_at_pixel_centres(y, x, a, b, angle, lower, factor):
    ellipse = Ellipse(3, (y, x), (a, b), angle)
    got = drawn(ellipse, (lower, 1.5), factor)
    offset = centres((lower, 1.5), factor, got.shape) - np.reshape((y, x), (2, 1, 1))
    # The inverse of the half axes takes the ellipse to the unit circle.
    along = np.tensordot(np.linalg.inv(ellipse.axes), offset, axes=1)
    radius = np.sqrt((along**2).sum(axis=0))
    assert (got[radius < 1 - 1e-6] == 3).all()
    assert (got[radius > 1 + 1e-6] == 0).all()
    # The bounding box touches the outline on all sides.
    low, high = ellipse.lower, ellipse.upper
    outline = ellipse.outline(1e-4)
    np.testing.assert_allclose(outline.min(axis=0), low, atol=1e-2)
    np.testing.assert_allclose(outline.max(axis=0), high, atol=1e-2)


@given(number, number, length, length, number, factors)
@settings(max_examples=80, deadline=None)
def test_a_rectangle_is_the_polygon_of_its_corners(y, x, h, w, lower, factor):
    rectangle = Rectangle(2, (y, x), (h, w))
    (polygon,) = outlines(rectangle)
    np.testing.assert_array_equal(
        drawn(rectangle, (lower, -3.0), factor), drawn(polygon, (lower, -3.0), factor)
    )


@given(masks, number, number, factors, number, factors)
@settings(max_examples=100, deadline=None)
def test_a_mask_is_a_label_image_at_its_place(mask, y, x, scale, lower, factor):
    item = BrushMask(5, mask, (y, x), (scale, 2 * scale))
    image = LabelImage(
        open_pyramid(mask.astype(np.uint8) * 5), None, (y, x), (scale, 2 * scale)
    )
    place = (lower + 0.013, -1.017)  # no pixel centre on an edge
    np.testing.assert_array_equal(
        drawn(item, place, factor), drawn(image, place, factor)
    )


def test_a_mask_keeps_the_painted_part_only():
    canvas = np.zeros((2000, 3000), bool)
    canvas[700:710, 900:930] = True
    canvas[700, 900] = False
    item = BrushMask(1, canvas, (10, 20), (2, 4))
    assert item.mask.shape == (10, 30)
    assert item.mask.base is None
    assert item.offset == (10 + 2 * 700, 20 + 4 * 900)
    moved = item.scaled(np.array([2.0, 0.5]))
    assert moved.mask is item.mask
    assert (moved.offset, moved.scale) == ((2820, 1810), (4, 2))


@given(st.sampled_from([0.5, 3.0]), st.sampled_from([0.25, 2.0]))
@settings(max_examples=4, deadline=None)
def test_scaled_items_cover_the_scaled_places(zoom_y, zoom_x):
    zoom = np.array([zoom_y, zoom_x])
    items = (
        Region(Rectangle(1, (2, 1), (20, 22))),
        Ellipse(2, (12.3, 11.1), (4.2, 9.3), 33),
        BrushMask(3, MAP, (3, 5), (2, 3)),
        Polygon(4, [(15, 3), (20, 9), (18, 12)]),
    )
    before = Annotations(items)
    box = Box(tuple(zoom * 0.3), tuple(zoom * 24.3))
    got = before.scaled(zoom).rasterise(box, (24, 24))
    np.testing.assert_array_equal(
        got, before.rasterise(Box((0.3,) * 2, (24.3,) * 2), (24, 24))
    )
    assert set(np.unique(got)) == {0, 1, 2, 3, 4}


def test_order_regions_below_then_later_over_earlier_and_0_takes_away():
    annotations = Annotations(
        (
            Ellipse(2, (4, 4), (3, 3)),
            Rectangle(3, (4, 4), (4, 4)),
            Region(Rectangle(1, (0, 0), (7, 8))),
            BrushMask(0, np.ones((1, 8), bool), (5, 0)),
        )
    )
    assert isinstance(annotations.items[0], Region)
    got = annotations.rasterise(Box.from_shape((8, 8)), (8, 8))
    np.testing.assert_array_equal(got[0], [1] * 8)
    np.testing.assert_array_equal(got[4], [1, 2, 2, 2, 3, 3, 3, 3])
    np.testing.assert_array_equal(got[5], [0] * 8)
    np.testing.assert_array_equal(got[7], [0, 0, 0, 0, 3, 3, 3, 3])
    assert annotations.bounds() == Box((0, 0), (8, 8))
    assert label_classes(annotations).largest == 3
    index = annotations.index(Box.from_shape((8, 8)), 3, seed=0)
    np.testing.assert_array_equal(index.counts, np.bincount(got.ravel(), minlength=4))
    shares = annotations.fractions(Box.from_shape((8, 8)), (2, 2), 3)
    wanted = (got == 1).reshape(2, 4, 2, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(shares[1], wanted)


@pytest.mark.parametrize("scale", [0.125, 4.0])
def test_the_index_counts_world_pixels_of_masks_at_any_scale(scale):
    mask = np.ones((24, 32), bool)
    annotations = Annotations((BrushMask(1, mask, (8, 8), (scale, scale)),))
    index = annotations.index(Box.from_shape((300, 300)), 1, seed=0)
    assert index.counts[1] == mask.size * scale**2
    assert annotations.rasterise(Box.from_shape((300, 300)), (300, 300)).max() == 1


def test_a_turned_box_around_an_ellipse_gives_the_ellipse():
    wanted = Ellipse(1, (5, 6), (4, 2), 30)
    found = Ellipse.from_diameters(1, (5, 6), *wanted.axes.T)
    np.testing.assert_allclose(found.radii, wanted.radii)
    np.testing.assert_allclose(found.angle % 180, 30)
    with pytest.raises(AnnotationError, match="half axes"):
        Ellipse.from_diameters(1, (5, 6), (1, 1), (2, 2))


def test_wrong_input_is_refused():
    for make, message in (
        (lambda: Rectangle(1, (0, 0), (0, 5)), "larger than 0"),
        (lambda: Rectangle(256, (0, 0), (1, 5)), "from 0 to 255"),
        (lambda: Rectangle(1.5, (0, 0), (1, 5)), "whole number"),
        (lambda: Rectangle(1, (1.7e308, 0), (1, 5)), "up to 1e.12"),
        (lambda: Ellipse(True, (0, 0), (1, 5)), "whole number"),
        (lambda: Ellipse(1, (np.nan, 0), (1, 5)), "finite"),
        (lambda: Ellipse(1, (0, 0), (1, 5), np.inf), "finite"),
        (lambda: Ellipse(1, (0, 0, 0), (1, 5)), "two finite numbers"),
        (lambda: Ellipse(1, "ab", (1, 5)), "two finite numbers"),
        (lambda: BrushMask(1, np.ones((3, 3))), "bool is needed"),
        (lambda: BrushMask(1, np.zeros((3, 3), bool)), "no painted pixel"),
        (lambda: BrushMask(1, np.zeros((0, 3), bool)), "no painted pixel"),
        (lambda: BrushMask(1, MAP, scale=(1, 0)), "larger than 0"),
        (lambda: BrushMask(1, np.broadcast_to(True, (2**15, 2**15))), "coarser"),
        (lambda: Region(Rectangle(0, (0, 0), (1, 1))), "background class"),
        (lambda: Region(Region(Rectangle(1, (0, 0), (1, 1)))), "made of Region"),
    ):
        with pytest.raises(AnnotationError, match=message):
            make()


def test_items_far_outside_the_box_draw_nothing():
    for far in (1e12, -1e12):
        for item in (
            Rectangle(1, (far, far), (1, 1)),
            Ellipse(1, (far, 5), (2, 2)),
            BrushMask(1, MAP, (5, far)),
        ):
            out = np.zeros((4, 4), np.uint8)
            item.fill(out, Box.from_shape((10, 10)))
            assert not out.any()
    assert drawn(Rectangle(1, (-1e11, -1e11), (2e11, 2e11))).all()


def test_labels_change_and_0_stays():
    region = Region(Rectangle(1, (0, 0), (1, 1)))
    assert relabelled(region, lambda k: k + 4).label == 5
    assert relabelled(BrushMask(0, MAP), lambda k: k + 4).label == 0


@given(masks)
@settings(max_examples=300, deadline=None)
def test_outlines_of_a_mask_enclose_its_pixels(mask):
    got = np.zeros(mask.shape, np.uint8)
    for outer, *holes in trace_mask(mask):
        for ring in (outer, *holes):
            step = np.abs(ring - np.roll(ring, -1, axis=0))
            assert ((step == 0).sum(axis=1) == 1).all()  # along pixel edges, no doubles
            assert len(np.unique(ring, axis=0)) == len(ring)  # touches itself nowhere
        part = np.zeros(mask.shape, np.uint8)
        Polygon(1, outer, tuple(holes)).fill(part, Box.from_shape(mask.shape))
        got += part
    np.testing.assert_array_equal(got, mask)


@given(masks, number, factors)
@settings(max_examples=60, deadline=None)
def test_a_mask_comes_back_from_geojson(tmp_path_factory, mask, place, scale):
    path = tmp_path_factory.mktemp("g") / "a.geojson"
    item = BrushMask(1, mask, (place, 3.5), (scale, scale))
    write_geojson(Annotations((item,), ("a",)), path)
    back = read_geojson(path).annotations()
    shape = item.mask.shape
    box = Box(tuple(item.lower), tuple(item.upper))
    np.testing.assert_array_equal(back.rasterise(box, shape), item.mask)


def test_all_kinds_come_back_from_geojson(tmp_path):
    items = (
        Region(Ellipse(1, (40, 40), (39, 30), 20)),
        Rectangle(2, (30, 30), (9, 14)),
        Ellipse(3, (50, 40), (9, 14), 70),
        BrushMask(0, MAP, (35, 35), (4, 4)),
    )
    before = Annotations(items, ("background", "a", "b"))
    write_geojson(before, tmp_path / "a.geojson")
    after = read_geojson(tmp_path / "a.geojson").annotations()
    assert after.class_names == before.class_names
    assert isinstance(after.items[0], Region)
    box = Box.from_shape((80, 80))
    wanted, got = before.rasterise(box, (80, 80)), after.rasterise(box, (80, 80))
    assert np.mean(wanted != got) < 0.01
    # A region of a class of another name is an ordinary area at the bottom.
    write_geojson(Annotations(items, ("c", "a", "b")), tmp_path / "a.geojson")
    after = read_geojson(tmp_path / "a.geojson").annotations()
    np.testing.assert_array_equal(after.rasterise(box, (80, 80)), got)


def test_noise_is_not_outlined(monkeypatch):
    monkeypatch.setattr(outlines_module, "MAX_EDGES", 20)
    with pytest.raises(AnnotationError, match="too many for an outline"):
        trace_mask(np.eye(6, dtype=bool))
    monkeypatch.setattr(outlines_module, "MAX_PIXELS", 20)
    image = Annotations.from_labels(np.ones((5, 5), np.uint8)).items[0]
    with pytest.raises(AnnotationError, match="5 x 5 pixels"):
        list(masks_of(image))
