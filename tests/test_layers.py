"""napari layers to the core: every way in which a layer may lie in the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels, Shapes

from napari_muvit._layer_annotations import (
    count_shapes,
    label_classes,
    label_values,
    labels_annotations,
    shapes_annotations,
)
from napari_muvit._layers import (
    layer_kwargs,
    layer_path,
    layer_pyramid,
    placement,
    visible_box,
)
from napari_muvit.core.errors import AnnotationError, PyramidError
from napari_muvit.core.geometry import Box

NAMES = ("tumour", "stroma")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


def triangle_layer(**place: Any) -> Shapes:
    corners = np.array([[10, 10], [10, 50], [50, 10]], dtype=float)
    return Shapes(
        [corners],
        shape_type="polygon",
        features=pd.DataFrame({"class": ["tumour"]}),
        **place,
    )


# ---- image to Pyramid


def test_grey_image() -> None:
    pixels = noise(40, 60)
    layer = Image(pixels, scale=(0.5, 0.5), units="um", translate=(3, 4))
    pyramid = layer_pyramid(layer)
    assert pyramid.shape == (40, 60)
    assert pyramid.num_channels == 1
    assert pyramid.pixel_size == (0.5, 0.5)
    assert pyramid.translation == (3, 4)
    assert not pyramid.rgb
    read = pyramid.read(Box((10, 20), (14, 26)), 1, (4, 6))
    np.testing.assert_array_equal(read[0], pixels[10:14, 20:26])


@pytest.mark.parametrize("channels", [3, 4])
def test_rgb_image(channels: int) -> None:
    pixels = noise(40, 60, channels)
    pyramid = layer_pyramid(Image(pixels, rgb=True, scale=(2, 2), units="nm"))
    assert pyramid.rgb
    assert pyramid.num_channels == 3  # alpha is no channel
    assert pyramid.pixel_size == pytest.approx((0.002, 0.002))
    read = pyramid.read(Box((0, 0), (5, 7)), 1, (5, 7))
    np.testing.assert_array_equal(read, pixels[:5, :7, :3].transpose(2, 0, 1))


def test_pixel_size_is_unknown_without_a_unit() -> None:
    assert layer_pyramid(Image(noise(9, 9), scale=(2, 2))).pixel_size is None


def test_levels_get_whole_factors() -> None:
    # 1001 / 32 is 31.28; ceil(1001 / 32) = 32 pixels say that 32 is meant... of 31.28.
    shapes = [(1001, 2003), (501, 1002), (126, 251), (32, 63)]
    layer = Image([np.zeros(s, np.uint8) for s in shapes], multiscale=True)
    assert layer_pyramid(layer).scale_factors == (1, 2, 8, 32)


def test_other_factors_stay_what_they_are() -> None:
    layer = Image([np.zeros(s, np.uint8) for s in ((900, 900), (400, 400))])
    assert layer_pyramid(layer).scale_factors == (1, 2.25)


def test_the_affine_counts_too() -> None:
    affine = np.diag([2.0, 0.5, 1.0])
    affine[:2, 2] = (7, 9)
    place = placement(Image(noise(9, 9), affine=affine, scale=(3, 3)))
    assert place.scale == pytest.approx((6, 1.5))
    assert place.translate == pytest.approx((7, 9))


@pytest.mark.parametrize(
    "place", [{"rotate": 30}, {"shear": [0.5]}, {"scale": (-1, 1)}]
)
def test_a_turned_layer_is_refused_in_words(place: dict[str, Any]) -> None:
    with pytest.raises(PyramidError, match="rotated, sheared or mirrored"):
        layer_pyramid(Image(noise(9, 9), **place))


def test_the_plane_on_screen_of_a_stack() -> None:
    viewer = ViewerModel()
    stack = noise(5, 20, 30)
    layer = viewer.add_image(stack, scale=(2, 1, 1))
    viewer.dims.set_point(0, 6)  # world; plane 3
    pyramid = layer_pyramid(layer, viewer.dims.point)
    read = pyramid.read(Box((0, 0), (20, 30)), 1, (20, 30))
    np.testing.assert_array_equal(read[0], stack[3])
    assert "plane" in pyramid.note


def test_an_axis_named_channel_is_channels() -> None:
    layer = Image(noise(4, 20, 30), axis_labels=("channel", "y", "x"))
    pyramid = layer_pyramid(layer)
    assert pyramid.num_channels == 4
    assert pyramid.note == ""


def test_transposed_view_keeps_the_image_upright() -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(noise(20, 30))
    viewer.dims.order = (1, 0)
    assert layer_pyramid(layer, viewer.dims.point).shape == (20, 30)


# ---- where pixels come from


def zarr_array(folder: Path, pixels: np.ndarray) -> zarr.Array[Any]:
    array = zarr.create_array(
        str(folder), shape=pixels.shape, chunks=(16, 16), dtype=pixels.dtype
    )
    array[:] = pixels
    return array


def test_dask_over_zarr_is_read_from_zarr(tmp_path: Path) -> None:
    pixels = noise(40, 60)
    array = zarr_array(tmp_path / "slide.zarr" / "0", pixels)
    layer = Image(da.from_zarr(array))
    source = layer_pyramid(layer).levels[0].source
    assert isinstance(source.array, zarr.Array)
    assert layer_path(layer) == tmp_path / "slide.zarr"


def test_other_dask_arrays_do_not_fill_the_cache(tmp_path: Path) -> None:
    from dask.cache import Cache

    array = da.from_array(noise(40, 60), chunks=16) + 1
    layer = Image(array, contrast_limits=(0, 255))
    cache = Cache(2**20)
    with cache:
        source = layer_pyramid(layer).levels[0].source
        read = source.read((3, 4), (20, 30))
        assert len(cache.cache.data) == 0
    np.testing.assert_array_equal(read[0], np.asarray(array)[3:20, 4:30])
    assert source.chunks == (16, 16)


def test_layers_in_memory_have_no_path() -> None:
    assert layer_path(Image(noise(9, 9))) is None


# ---- shapes to Annotations


def test_shapes_in_the_image_s_own_pixels_move_by_half() -> None:
    image = Image(noise(100, 100))
    annotations = shapes_annotations(triangle_layer(), image, NAMES)
    (polygon,) = annotations.items
    assert polygon.label == 1
    np.testing.assert_allclose(
        polygon.vertices, [[10.5, 10.5], [10.5, 50.5], [50.5, 10.5]]
    )


def test_shapes_drawn_around_a_pixel_annotate_that_pixel() -> None:
    # napari draws pixel (7, 8) from 6.5 to 7.5: a box around it marks just this one.
    box = np.array([[6.5, 7.5], [7.5, 8.5]])
    shapes = Shapes([box], shape_type="rectangle")
    shapes.features = pd.DataFrame({"class": ["stroma"]})
    annotations = shapes_annotations(shapes, Image(noise(20, 20)), NAMES)
    found = annotations.rasterise(Box((0, 0), (20, 20)), (20, 20))
    assert np.argwhere(found).tolist() == [[7, 8]]
    assert found[7, 8] == 2


def test_shapes_and_image_with_places_of_their_own() -> None:
    image = Image(noise(100, 100), scale=(0.5, 0.5), translate=(3, 5))
    shapes = triangle_layer(scale=(2, 2), translate=(1, 1), rotate=90)
    annotations = shapes_annotations(shapes, image, NAMES)
    for vertex, corner in zip(
        annotations.items[0].vertices, shapes.data[0], strict=True
    ):
        expected = np.asarray(image.world_to_data(shapes.data_to_world(corner)))
        np.testing.assert_allclose(vertex, expected + 0.5)


def test_ellipses_are_round_and_lines_are_left_out() -> None:
    corners = np.array([[10, 20], [10, 60], [40, 60], [40, 20]], dtype=float)
    shapes = Shapes(ndim=2)
    shapes.add(corners, shape_type="ellipse")
    shapes.add(np.array([[0.0, 0], [9, 9]]), shape_type="line")
    shapes.features = pd.DataFrame({"class": ["tumour", "tumour"]})
    annotations = shapes_annotations(shapes, Image(noise(100, 100)), NAMES)
    (ellipse,) = annotations.items
    np.testing.assert_allclose(ellipse.lower, (10.5, 20.5), atol=1e-6)
    np.testing.assert_allclose(ellipse.upper, (40.5, 60.5), atol=1e-6)
    found = annotations.rasterise(Box((0, 0), (100, 100)), (100, 100))
    assert np.count_nonzero(found) == pytest.approx(np.pi * 15 * 20, rel=0.03)
    counts, problem = count_shapes(shapes, NAMES)
    assert counts == {"tumour": 1, "stroma": 0}
    assert "1 line encloses no area" in problem


def test_shapes_of_no_class_are_named_and_left_out() -> None:
    shapes = triangle_layer()
    shapes.features = pd.DataFrame({"class": ["necrosis"]})
    assert "1 region has no class" in count_shapes(shapes, NAMES)[1]
    with pytest.raises(AnnotationError, match="no outlined region"):
        shapes_annotations(shapes, Image(noise(9, 9)), NAMES)


def test_in_a_stack_only_shapes_on_this_plane_count() -> None:
    square = np.array([[0, 0], [0, 5], [5, 5], [5, 0]], dtype=float)
    planes = [np.insert(square, 0, z, axis=1) for z in (1, 3)]
    shapes = Shapes(planes, shape_type="polygon")
    shapes.features = pd.DataFrame({"class": ["tumour", "stroma"]})
    image = Image(noise(5, 20, 20))
    annotations = shapes_annotations(shapes, image, NAMES, point=(3, 0, 0))
    assert [p.label for p in annotations.items] == [2]


# ---- labels to Annotations


def whole(annotations: Any, shape: tuple[int, int]) -> np.ndarray:
    return np.asarray(annotations.rasterise(Box((0, 0), shape), shape))


def test_labels_upon_the_image() -> None:
    data = np.zeros((40, 60), dtype=np.uint8)
    data[5:9, 10:20] = 3
    data[30:, :] = 7
    annotations = labels_annotations(
        Labels(data), Image(noise(40, 60)), {3: 2, 7: 1}, NAMES
    )
    expected = np.select([data == 3, data == 7], [2, 1])
    np.testing.assert_array_equal(whole(annotations, (40, 60)), expected)
    assert annotations.class_names == NAMES


def test_values_that_are_not_used_count_as_not_annotated() -> None:
    data = np.array([[1, 2], [3, 0]], dtype=np.int32).repeat(8, 0).repeat(8, 1)
    annotations = labels_annotations(Labels(data), Image(noise(16, 16)), {2: 1}, NAMES)
    found = whole(annotations, (16, 16))
    np.testing.assert_array_equal(found, np.where(data == 2, 1, 0))
    with pytest.raises(AnnotationError, match="No value"):
        labels_annotations(Labels(data), Image(noise(16, 16)), {}, NAMES)


@pytest.mark.parametrize("k", [2, 4])
def test_a_coarse_layer_that_lines_up_covers_whole_pixels(k: int) -> None:
    # A layer of pixels k times as large, placed as such layers are: by its centre.
    image = Image(noise(40, 60), scale=(0.5, 0.5), translate=(10, 20))
    shift = (k - 1) / 2 * 0.5
    coarse = np.arange(40 // k * (60 // k)).reshape(40 // k, 60 // k) % 3
    labels = Labels(
        coarse.astype(np.uint8),
        scale=(0.5 * k, 0.5 * k),
        translate=(10 + shift, 20 + shift),
    )
    annotations = labels_annotations(labels, image, {1: 1, 2: 2}, NAMES)
    expected = coarse.repeat(k, 0).repeat(k, 1)
    np.testing.assert_array_equal(whole(annotations, (40, 60)), expected)


def test_a_painted_region_of_interest() -> None:
    image = Image(noise(100, 100), scale=(2, 2))
    labels = Labels(np.ones((10, 20), np.uint8), scale=(2, 2), translate=(60, 80))
    found = whole(labels_annotations(labels, image, {1: 1}, NAMES), (100, 100))
    assert found.sum() == 200
    assert found[30:40, 40:60].all()


def test_values_of_a_pyramid_come_from_a_coarse_level(monkeypatch) -> None:
    monkeypatch.setattr("napari_muvit._layer_annotations.SAMPLE_PIXELS", 400)
    levels = [np.full((40, 40), 9, np.uint8), np.full((20, 20), 5, np.uint8)]
    assert label_values(Labels(levels)) == [5]
    assert label_values(Labels(levels[0])) == [9]


@pytest.mark.parametrize("dtype", ["u1", "i4", "i8", "u2", "bool"])
def test_values_of_any_integers(dtype: str) -> None:
    data = np.zeros((50, 60), dtype)
    data[3:5] = 1
    expected = [1]
    if dtype == "i4":
        data[9, 9], data[8, 8] = 70_000, -3
        expected = [-3, 1, 70_000]
    assert label_values(Labels(data)) == expected


def test_names_and_colours_of_values_are_those_on_screen() -> None:
    labels = Labels(
        np.array([[1, 2]], np.uint8),
        colormap={None: "transparent", 1: "#ff0000", 2: "#00ff00"},
        features=pd.DataFrame({"index": [1], "class": ["tumour"]}),
    )
    found = label_classes(labels, [1, 2])
    assert found == {1: ("tumour", "#ff0000"), 2: (None, "#00ff00")}


# ---- back to napari


def test_output_layers_lie_upon_the_image() -> None:
    affine = np.eye(3)
    affine[:2, 2] = (7, 9)
    image = Image(noise(9, 9), scale=(0.5, 0.5), units="um", affine=affine)
    output = Labels(np.zeros((9, 9), np.uint8), **layer_kwargs(image))
    for corner in ((0, 0), (8, 5)):
        np.testing.assert_allclose(
            output.data_to_world(corner), image.data_to_world(corner)
        )
    assert output.units == image.units


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_is_on_screen(order: tuple[int, int]) -> None:
    viewer = ViewerModel()
    image = viewer.add_image(noise(1000, 2000), scale=(0.5, 0.5), translate=(100, 0))
    viewer.dims.order = order
    viewer.canvas.size = (300, 400)
    viewer.scene.camera.zoom = 4
    # The centre is given along the displayed axes.
    viewer.scene.camera.center = (200, 300) if order == (0, 1) else (300, 200)
    box = visible_box(viewer, image)
    half = (37.5, 50) if order == (0, 1) else (50, 37.5)
    expected = [
        [(200 - half[0] - 100) / 0.5 + 0.5, (300 - half[1]) / 0.5 + 0.5],
        [(200 + half[0] - 100) / 0.5 + 0.5, (300 + half[1]) / 0.5 + 0.5],
    ]
    assert box is not None
    np.testing.assert_allclose(box.as_array(), expected)


def test_what_is_on_screen_ends_at_the_slide() -> None:
    viewer = ViewerModel()
    image = viewer.add_image(noise(100, 200))
    viewer.scene.camera.zoom = 0.1
    assert visible_box(viewer, image) == Box((0, 0), (100, 200))
    viewer.scene.camera.zoom = 100
    viewer.scene.camera.center = (-500, 0)
    assert visible_box(viewer, image) is None
    viewer.dims.ndisplay = 3
    assert visible_box(viewer, image) is None
