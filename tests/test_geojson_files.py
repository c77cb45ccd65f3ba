"""GeoJSON files as Shapes layers, and Shapes and Labels layers as GeoJSON files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer, Shapes
from npe2 import PluginManifest

from napari_muvit import _geojson_files
from napari_muvit._geojson_files import get_reader, write_labels, write_shapes
from napari_muvit._layer_annotations import shapes_annotations
from napari_muvit.core.data.annotations import Annotations, Polygon, Region
from napari_muvit.core.data.geojson import read_geojson, write_geojson
from napari_muvit.core.errors import AnnotationError
from napari_muvit.core.geometry import Box

SQUARE = np.array([[10.0, 20], [10, 60], [50, 60], [50, 20]])
HOLE = np.array([[20.0, 30], [30, 30], [30, 40]])
NAMES, COLORS = ("background", "tumour"), ("#808080", "#ff0080")


@pytest.fixture
def viewer(monkeypatch: pytest.MonkeyPatch) -> ViewerModel:
    made = ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: made)
    return made


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(_geojson_files, "_warn", said.append)
    return said


@pytest.fixture
def file(tmp_path: Path) -> Path:
    items = (Region(Polygon(1, SQUARE - 5)), Polygon(2, SQUARE, (HOLE,)))
    path = tmp_path / "slide.geojson"
    write_geojson(Annotations(items, NAMES, COLORS), path)
    return path


def read(path: Path) -> Shapes:
    reader = get_reader(str(path))
    assert reader is not None
    (data,) = reader(str(path))
    layer = Layer.create(*data)
    assert isinstance(layer, Shapes)
    return layer


def save(layer: Shapes | Labels, path: Path) -> dict[str, Any]:
    data, meta, kind = layer.as_layer_data_tuple()
    write: Callable[..., list[str]] = write_shapes if kind == "shapes" else write_labels
    assert write(str(path), data, meta) == [str(path)]
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def rasters(one: Annotations, other: Annotations) -> tuple[Any, Any]:
    box = Box((0, 0), (100, 100))
    return one.rasterise(box, (100, 100)), other.rasterise(box, (100, 100))


def test_the_manifest_names_reader_and_writers() -> None:
    parts = PluginManifest.from_distribution("napari-muvit").contributions
    assert ["*.geojson"] in [r.filename_patterns for r in parts.readers or ()]
    kinds = [str(t) for w in parts.writers or () for t in w.layer_types]
    assert sorted(kinds) == ["labels", "shapes"]
    assert get_reader("no.geojson") is None


def test_a_file_comes_with_classes_and_colours(file: Path, viewer: ViewerModel) -> None:
    layer = read(file)
    assert list(layer.features["class"]) == ["Region*", "tumour"]
    np.testing.assert_allclose(layer.edge_color[1][:3], (1, 0, 128 / 255), atol=1e-3)
    assert layer.name == "slide outlines"


@pytest.mark.parametrize("scale", [(1, 1), (0.5, 0.25)])
def test_it_goes_upon_the_image_and_back(
    file: Path, viewer: ViewerModel, tmp_path: Path, scale: tuple[float, float]
) -> None:
    place: dict[str, Any] = {"scale": scale, "translate": (30, -7), "units": "um"}
    viewer.add_image(np.zeros((10, 10)), scale=(9, 9), units="um", name="other")
    image = viewer.add_image(np.zeros((100, 100)), name="slide", **place)
    viewer.layers.selection.active = viewer.layers["other"]
    layer = viewer.add_layer(read(file))
    np.testing.assert_allclose(layer.scale, scale)
    annotations = shapes_annotations(layer, image, NAMES, COLORS)
    before = read_geojson(file).annotations(NAMES)
    np.testing.assert_array_equal(*rasters(annotations, before))
    save(layer, tmp_path / "b.geojson")
    again = read_geojson(tmp_path / "b.geojson")
    assert again.colors["tumour"] == "#ff0080"
    np.testing.assert_array_equal(*rasters(again.annotations(NAMES), before))


def test_without_an_image_it_is_in_its_own_pixels(
    file: Path, viewer: ViewerModel, tmp_path: Path
) -> None:
    layer = read(file)
    layer.scale, layer.rotate = (3, 3), 20  # nothing lies below that would count
    save(layer, tmp_path / "b.geojson")
    before = read_geojson(file).annotations(NAMES)
    again = read_geojson(tmp_path / "b.geojson").annotations(NAMES)
    np.testing.assert_array_equal(*rasters(again, before))


def test_shapes_without_a_class_are_kept_and_lines_are_named(
    viewer: ViewerModel, tmp_path: Path, warned: list[str]
) -> None:
    layer = Shapes([SQUARE], shape_type="polygon")
    layer.add_lines([SQUARE[:2]])
    content = save(layer, tmp_path / "b.geojson")
    (feature,) = content["features"]
    assert feature["properties"]["classification"]["name"] == "unclassified"
    assert "1 line" in warned[0]


def test_an_empty_layer_is_refused(viewer: ViewerModel, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no outlined region"):
        save(Shapes(ndim=2), tmp_path / "b.geojson")
    with pytest.raises(AnnotationError, match="0 values"):
        save(Labels(np.zeros((9, 9), np.uint8)), tmp_path / "b.geojson")


def test_what_is_no_geojson_is_refused_in_one_line(
    viewer: ViewerModel, tmp_path: Path
) -> None:
    path = tmp_path / "a.geojson"
    path.write_text("{}")
    with pytest.raises(AnnotationError, match="no GeoJSON"):
        read(path)
    path.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(AnnotationError, match="no outlined area"):
        read(path)


def test_painted_classes_are_outlined_in_slide_pixels(
    viewer: ViewerModel, tmp_path: Path
) -> None:
    viewer.add_image(np.zeros((100, 100)), scale=(0.5, 0.5), units="um")
    pixels = np.zeros((20, 20), np.uint8)
    pixels[5:10, 5:10] = 7
    # Four slide pixels a pixel, lined up by their edges.
    labels = Labels(
        pixels, scale=(2, 2), translate=(0.75, 0.75), units="um",
        features={"index": [0, 7], "class": ["none", "gland"]},
    )  # fmt: skip
    viewer.add_layer(labels)
    save(labels, tmp_path / "b.geojson")
    found = read_geojson(tmp_path / "b.geojson")
    assert found.class_names == ("gland",)
    got = found.annotations().rasterise(Box((0, 0), (80, 80)), (80, 80))
    np.testing.assert_array_equal(got, np.kron(pixels > 0, np.ones((4, 4))))


def test_numbered_objects_are_no_classes(viewer: ViewerModel, tmp_path: Path) -> None:
    labels = Labels(np.arange(100).reshape(10, 10))
    with pytest.raises(AnnotationError, match="99 values"):
        save(labels, tmp_path / "b.geojson")


def test_a_plane_of_a_stack(
    viewer: ViewerModel, tmp_path: Path, warned: list[str]
) -> None:
    viewer.add_image(np.zeros((4, 100, 100)))
    shapes = [np.insert(SQUARE, 0, z, axis=1) for z in (1.0, 3.0)]
    layer = viewer.add_shapes(
        shapes, shape_type="polygon", features={"class": ["one", "three"]}
    )
    viewer.dims.set_point(0, 3)
    content = save(layer, tmp_path / "b.geojson")
    (feature,) = content["features"]
    assert feature["properties"]["classification"]["name"] == "three"
    assert feature["geometry"]["plane"]["z"] == 3
    assert "plane on screen" in warned[0]
    assert len(read(tmp_path / "b.geojson").data) == 1
