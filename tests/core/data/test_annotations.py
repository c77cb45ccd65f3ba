import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data.annotations import (
    Annotations,
    LabelImage,
    Polygon,
    label_classes,
)
from napari_muvit.core.data.ome_zarr import write_pyramid
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.errors import AnnotationError, Cancelled
from napari_muvit.core.geometry import Box


def point_in_polygon(y, x, vertices):
    """The even-odd rule, one point at a time."""
    inside = False
    corners = np.asarray(vertices).tolist()
    for (y0, x0), (y1, x1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
            inside = not inside
    return inside


coordinate = st.floats(-5, 25).map(lambda v: round(v, 2))
outline = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9)


@given(outline, st.none() | outline, st.sampled_from([0.5, 1, 2, 3.7]))
@settings(max_examples=60, deadline=None)
def test_polygons_are_filled_at_pixel_centres(vertices, hole, factor):
    vertices = np.array(vertices)
    holes = () if hole is None else (np.array(hole),)
    annotations = Annotations((Polygon(3, vertices, holes),))
    shape, lower = (6, 5), (-2.0, 1.5)
    box = Box(lower, tuple(v + factor * n for v, n in zip(lower, shape, strict=True)))
    got = annotations.rasterise(box, shape)
    for i, j in np.ndindex(shape):
        y, x = lower[0] + factor * (i + 0.5), lower[1] + factor * (j + 0.5)
        # Where a point lies on an edge to the last bit, either side is right.
        allowed = set()
        for nudged in (x - 1e-7, x, x + 1e-7):
            inside = point_in_polygon(y, nudged, vertices)
            inside &= not any(point_in_polygon(y, nudged, v) for v in holes)
            allowed.add(3 * inside)
        assert got[i, j] in allowed


def test_a_square_covers_its_pixels_exactly():
    square = [(2, 3), (2, 7), (5, 7), (5, 3)]
    got = Annotations.from_polygons([(1, square)]).rasterise(
        Box.from_shape((8, 10)), (8, 10)
    )
    want = np.zeros((8, 10), np.uint8)
    want[2:5, 3:7] = 1
    np.testing.assert_array_equal(got, want)


def test_later_items_lie_over_earlier_ones():
    labels = open_pyramid(np.array([[0, 2, 2], [1, 0, 0]], np.uint8))
    square = Polygon(3, [(0, 0), (0, 2), (2, 2), (2, 0)])
    box = Box.from_shape((2, 3))
    under = Annotations((LabelImage(labels), square)).rasterise(box, (2, 3))
    np.testing.assert_array_equal(under, [[3, 3, 2], [3, 3, 0]])
    over = Annotations((square, LabelImage(labels))).rasterise(box, (2, 3))
    np.testing.assert_array_equal(over, [[3, 2, 2], [1, 3, 0]])
    eraser = Polygon(0, [(0, 0), (0, 3), (1, 3), (1, 0)])
    cleared = Annotations((square, eraser)).rasterise(box, (2, 3))
    np.testing.assert_array_equal(cleared, [[0, 0, 0], [3, 3, 0]])


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([(0.0, 0.0), (3.0, -2.0)]),
    st.sampled_from([1.0, 2.0, 4.0]),
    st.sampled_from([np.uint8, np.int16, np.float32, np.int64]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_label_images_at_their_place(h, w, offset, scale, dtype, zero):
    values = np.random.default_rng(h * w).integers(0, 4, (h, w)).astype(dtype)
    annotations = Annotations.from_labels(
        values, offset=offset, scale=scale, zero_is_background=zero
    )
    shape = (30, 31)
    got = annotations.rasterise(Box((-4, -4), (26, 27)), shape)
    for i, j in np.ndindex(shape):
        y, x = ((v - 3.5 - o) / scale for v, o in zip((i, j), offset, strict=True))
        inside = 0 <= y < h and 0 <= x < w
        assert got[i, j] == (values[int(y), int(x)] + zero if inside else 0)


def test_values_are_mapped():
    annotations = Annotations.from_labels(
        np.array([[5, 700, -1, 0]], np.int32), values={5: 1, 700: 2, 0: 3}
    )
    box = Box((0, 0), (1, 6))
    np.testing.assert_array_equal(
        annotations.rasterise(box, (1, 6)), [[1, 2, 0, 3, 0, 0]]
    )


@given(st.sampled_from([1, 2, 4, 8, 3, 16]), st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_fractions_are_the_share_of_each_label(factor, seed):
    rng = np.random.default_rng(seed)
    labels = np.kron(
        rng.integers(0, 4, (6, 7)).astype(np.uint8),
        np.ones((factor * 2,) * 2, np.uint8),
    )
    labels[rng.random(labels.shape) < 0.2] = 2
    annotations = Annotations.from_labels(labels)
    shape = (8, 9)
    box = Box((0, 0), tuple(n * factor for n in shape))
    got = annotations.fractions(box, shape, 3)
    assert got.dtype == np.float32
    assert got.shape == (4, *shape)
    np.testing.assert_allclose(got.sum(axis=0), 1, atol=1e-6)
    if factor > 8 or factor == 3:
        return
    part = labels[: shape[0] * factor, : shape[1] * factor]
    blocks = part.reshape(shape[0], factor, shape[1], factor)
    for k in range(4):
        np.testing.assert_allclose(got[k], (blocks == k).mean(axis=(1, 3)), atol=1e-6)


def test_fractions_of_polygons():
    annotations = Annotations.from_polygons([(2, [(0, 0), (0, 16), (16, 0)])])
    got = annotations.fractions(Box.from_shape((16, 16)), (2, 2), 2)
    np.testing.assert_allclose(got[2], [[1, 0.5], [0.5, 0]], atol=0.1)


def test_index_counts_exactly_and_draws_evenly():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (1500, 1100)).astype(np.uint8)
    labels[1400, 1000] = 3
    annotations = Annotations.from_labels(labels)
    extent = Box.from_shape(labels.shape)
    index = annotations.index(extent, 4, seed=1, points_per_class=500)
    np.testing.assert_array_equal(
        index.counts, np.bincount(labels.ravel(), minlength=5)
    )
    assert index.counts.dtype == np.int64
    assert [len(p) for p in index.points] == [0, 500, 500, 1, 0]
    np.testing.assert_array_equal(index.points[3], [[1400.5, 1000.5]])
    for k in (1, 2, 3):
        where = tuple(np.floor(index.points[k]).astype(int).T)
        assert (labels[where] == k).all()
    # The scan goes block by block; its first block holds 62 % of the pixels.
    first = (index.points[1] < 1024).all(axis=1).mean()
    assert 0.55 < first < 0.72
    again = annotations.index(extent, 4, seed=1, points_per_class=500)
    other = annotations.index(extent, 4, seed=2, points_per_class=500)
    np.testing.assert_array_equal(index.points[1], again.points[1])
    assert not np.array_equal(index.points[1], other.points[1])


def test_index_sees_only_the_slide():
    annotations = Annotations.from_labels(np.ones((20, 20), np.uint8), offset=(-5, 0))
    index = annotations.index(Box.from_shape((30, 12)), 1, seed=0)
    np.testing.assert_array_equal(index.counts, [360 - 180, 180])
    outside = annotations.index(Box((100, 100), (110, 110)), 1, seed=0)
    np.testing.assert_array_equal(outside.counts, [100, 0])


def test_index_of_polygons_is_their_area():
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    circle = np.stack([900 + 300 * np.sin(angle), 1100 + 300 * np.cos(angle)], axis=1)
    far = circle + 40_000
    annotations = Annotations.from_polygons([(1, circle), (2, far)])
    start = time.perf_counter()
    index = annotations.index(Box.from_shape((100_000, 100_000)), 2, seed=0)
    assert time.perf_counter() - start < 5
    assert index.counts[1:] == pytest.approx(np.pi * 300**2, rel=0.01)
    away = np.linalg.norm(index.points[1] - (900, 1100), axis=1)
    assert away.max() < 300.1


def test_index_of_coarse_labels_counts_world_pixels():
    annotations = Annotations.from_labels(np.ones((20, 30), np.uint8), scale=8)
    index = annotations.index(Box.from_shape((160, 240)), 1, seed=0)
    np.testing.assert_array_equal(index.counts, [0, 160 * 240])
    assert len(index.points[1]) == 600
    assert Annotations(()).index(Box.from_shape((5, 5)), 1, 0).counts.tolist() == [
        25,
        0,
    ]


def test_index_stops():
    annotations = Annotations.from_labels(np.ones((20, 30), np.uint8))
    with pytest.raises(Cancelled):
        annotations.index(Box.from_shape((9, 9)), 1, 0, should_stop=lambda: True)


def test_outlines_on_a_volume_are_refused():
    outline = Annotations.from_polygons([(1, [(0, 0), (0, 9), (9, 9)])])
    with pytest.raises(AnnotationError, match="2 spatial axes, their image has 3"):
        outline.index(Box.from_shape((8, 8, 8)), 1, 0)


def test_bounds_and_scaling():
    annotations = Annotations(
        (
            Polygon(1, [(1, 2), (1, 8), (4, 8)]),
            LabelImage(open_pyramid(np.ones((10, 4), np.uint8)), offset=(2.0, 3.0)),
        )
    )
    assert annotations.bounds() == Box((1, 2), (12, 8))
    assert annotations.scaled(2).bounds() == Box((2, 4), (24, 16))
    assert annotations.scaled((1, 3)).bounds() == Box((1, 6), (12, 24))
    assert Annotations(()).bounds() is None
    small = annotations.rasterise(Box.from_shape((12, 8)), (12, 8))
    large = annotations.scaled(2).rasterise(Box.from_shape((24, 16)), (12, 8))
    np.testing.assert_array_equal(small, large)


def test_classes_come_with_the_file(tmp_path):
    labels = np.array([[0, 1, 2, 2]], np.uint8)
    write_pyramid(
        tmp_path / "l.zarr", labels, labels=True,
        class_names=["background", "gland", "rare"],
        class_colors=["#999999", "#ff0000", "#00ff00"],
    )  # fmt: skip
    found = label_classes(Annotations.from_labels(tmp_path / "l.zarr"))
    assert found.largest == 2
    assert found.names == ("background", "gland", "rare")
    assert found.colors == ("#999999", "#ff0000", "#00ff00")
    plain = label_classes(Annotations.from_labels(labels))
    assert (plain.largest, plain.names) == (2, None)
    named = Annotations.from_labels(tmp_path / "l.zarr", class_names=["a", "b", "c"])
    assert label_classes(named).names == ("a", "b", "c")
    assert label_classes(Annotations(())).largest == 0
    outlines = Annotations.from_polygons([(7, [(0, 0), (0, 2), (2, 2)])])
    assert label_classes(outlines).largest == 7


def test_annotations_survive_pickling(tmp_path):
    write_pyramid(tmp_path / "l.zarr", np.eye(8, dtype=np.uint8), labels=True)
    annotations = Annotations(
        (
            *Annotations.from_labels(tmp_path / "l.zarr").items,
            Polygon(2, [(0, 4), (0, 8), (4, 8)]),
        )
    )
    box = Box.from_shape((8, 8))
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(annotations)).rasterise(box, (8, 8)),
        annotations.rasterise(box, (8, 8)),
    )


def test_results_can_be_written_to():
    labels = np.ones((8, 8), np.uint8)
    got = Annotations.from_labels(labels).rasterise(Box.from_shape((8, 8)), (8, 8))
    got[:] = 5
    assert labels.max() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, -3]], np.int16), "value -3"),
        (np.array([[0, 300]], np.uint16), "value 300"),
        (np.array([[0, 0.5]], np.float32), "value 0.5"),
        (np.array([[0, np.nan]], np.float32), "value nan"),
    ],
)
def test_pixels_that_are_no_labels(values, message):
    annotations = Annotations.from_labels(values)
    with pytest.raises(AnnotationError, match=message):
        annotations.rasterise(Box.from_shape((1, 2)), (1, 2))


def test_labels_that_the_model_does_not_know():
    annotations = Annotations.from_labels(np.full((4, 4), 7, np.uint8))
    box = Box.from_shape((4, 4))
    for act in (
        lambda: annotations.fractions(box, (4, 4), 3),
        lambda: annotations.index(box, 3, 0),
    ):
        with pytest.raises(AnnotationError, match="class 7, but the model has only"):
            act()


def test_polygons_and_sources_that_cannot_work():
    triangle = [(0, 0), (0, 2), (2, 2)]
    for label in (-1, 256, 1.5, True, "a", None, np.inf):
        with pytest.raises(AnnotationError, match="class"):
            Polygon(label, triangle)
    for vertices in (
        [(0, 0), (1, 1)],
        [1, 2, 3],
        [(0, 0), (0, np.nan), (1, 1)],
        [(0, 0), (0, 1e300), (1, 1)],
        [(0, 0), ("a", 1), (1, 1)],
        [(0, 0), (1,), (1, 1)],
    ):
        with pytest.raises(AnnotationError, match="vertices"):
            Polygon(1, vertices)
    for wrong in ({"scale": 0}, {"scale": (1, -1)}, {"offset": np.nan}):
        with pytest.raises(AnnotationError, match="scale larger than 0"):
            Annotations.from_labels(np.zeros((4, 4), np.uint8), **wrong)
    with pytest.raises(AnnotationError, match="3 channels"):
        Annotations.from_labels(np.zeros((3, 20, 20), np.uint8))
    with pytest.raises(AnnotationError, match="not both"):
        Annotations.from_labels(
            np.zeros((4, 4), np.uint8), values={1: 1}, zero_is_background=True
        )
