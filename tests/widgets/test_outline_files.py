"""GeoJSON in and out of the Annotate page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Shapes
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QFileDialog, QPushButton

from napari_muvit._geojson_files import read_outlines
from napari_muvit._layers import shown_plane
from napari_muvit.core.data import outlines
from napari_muvit.core.data.annotations import Annotations, Polygon
from napari_muvit.core.data.geojson import read_geojson, write_geojson
from napari_muvit.core.errors import AnnotationError
from napari_muvit.core.geometry import Box
from napari_muvit.widgets import MuViTPanel

OUTER = np.array([(50, 60), (50, 300.5), (400, 300.5), (400, 60)])
HOLES = (OUTER[:, ::-1] * 0.25 + 80, OUTER * 0.125 + (200, 120))
RIGHT = np.array([(20, 400), (300, 690), (500, 450)])
BOX, SHAPE = Box.from_shape((600, 700)), (600, 700)


@pytest.fixture
def image(viewer: ViewerModel, panel: MuViTPanel, slide: np.ndarray) -> Any:
    return viewer.add_image(
        slide, name="slide", scale=(0.5, 0.5), translate=(30, -12), units="um"
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.geojson"
    items = (Polygon(2, OUTER, HOLES), Polygon(1, RIGHT), Polygon(0, OUTER + 5))
    colors = ("#102030", "#c80000")
    write_geojson(Annotations(items, ("Stroma", "Tumor"), colors), path)
    return path


def press(
    panel: MuViTPanel, words: str, path: Path | str, monkeypatch: pytest.MonkeyPatch
) -> list[Any]:
    """Press a button of the page; return the notifications that come of it."""
    for name in ("getOpenFileName", "getSaveFileName"):
        monkeypatch.setattr(
            QFileDialog, name, staticmethod(lambda *_a, **_k: (str(path), ""))
        )
    before = len(notification_manager.records)
    buttons = panel.annotate.files.findChildren(QPushButton)
    next(b for b in buttons if b.text().startswith(words)).click()
    return list(notification_manager.records)[before:]


def test_there_and_back(
    panel: MuViTPanel, viewer: ViewerModel, image: Any, file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (said,) = press(panel, "Import", file, monkeypatch)
    assert said.message == "3 regions imported from in.geojson."
    assert [(c.name, c.color) for c in panel.state.classes] == [
        ("Tumor", "#c80000"), ("Stroma", "#102030"),
    ]  # fmt: skip
    layer = panel.annotate.layers.layer
    assert isinstance(layer, Shapes)
    assert list(layer.features["class"]) == ["Tumor", "Stroma", "Ignore*"]
    # The corner of pixel (50, 60) in napari's world.
    corner = np.asarray(layer.data_to_world(layer.data[0][0]))
    np.testing.assert_allclose(corner, (30 + 49.5 * 0.5, -12 + 59.5 * 0.5))
    np.testing.assert_allclose(layer.edge_color[0][:3], (200 / 255, 0, 0), atol=1e-6)
    item = panel.annotate.classes.tree.topLevelItem(0)
    assert [item.text(c) for c in (1, 2)] == ["Tumor", "1 region"]
    assert panel.annotate.problem.text() == ""

    out = tmp_path / "out"
    (said,) = press(panel, "Export", out, monkeypatch)
    assert said.message == "3 regions exported to out.geojson."
    found, wanted = (read_geojson(p) for p in (tmp_path / "out.geojson", file))
    assert found.colors == wanted.colors
    for one, other in zip(found.outlines, wanted.outlines, strict=True):
        assert one.class_name == other.class_name
        np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-4)
        assert len(one.holes) == len(other.holes)
        for hole, true in zip(one.holes, other.holes, strict=True):
            np.testing.assert_allclose(hole, true, atol=1e-4)
    np.testing.assert_array_equal(
        panel.annotate.annotations().rasterise(BOX, SHAPE),
        wanted.annotations(("Tumor", "Stroma")).rasterise(BOX, SHAPE),
    )


def test_a_hole_is_a_hole_on_screen(panel: MuViTPanel, image: Any, file: Path) -> None:
    panel.annotate.import_outlines(file)
    shape = panel.annotate.layers.layer._data_view.shapes[0]
    a, b, c = np.moveaxis(shape._face_vertices[shape._face_triangles], 1, 0)
    u, v = (b - a).T, (c - a).T
    outer, *holes = (np.prod(np.ptp(ring, axis=0)) for ring in (OUTER, *HOLES))
    assert np.abs(u[0] * v[1] - u[1] * v[0]).sum() / 2 == pytest.approx(
        outer - sum(holes), rel=1e-4
    )


def test_the_users_classes_and_regions_stay(
    panel: MuViTPanel, image: Any, file: Path
) -> None:
    page = panel.annotate
    layer = page.new_layer()
    page.classes.tree.topLevelItem(1).setText(1, "tumor")
    page.classes.choose(1)
    layer.add_polygons([OUTER + 1])
    page.import_outlines(file)
    assert page.layers.layer is layer
    assert panel.state.names == ("background", "tumor", "Stroma")
    assert panel.state.current_name == "tumor"
    assert list(layer.features["class"]) == ["tumor", "tumor", "Stroma", "Ignore*"]
    page.undo()
    assert list(layer.features["class"]) == ["tumor"]
    page.import_outlines(file)
    layer.add_polygons([RIGHT + 1])
    page.undo()
    assert list(layer.features["class"]) == ["tumor", "tumor", "Stroma", "Ignore*"]


def test_a_region_is_background_beneath_all(
    panel: MuViTPanel, image: Any, tmp_path: Path
) -> None:
    areas = Annotations((Polygon(1, OUTER), Polygon(2, OUTER - 20)), ("a", "b"))
    path = tmp_path / "r.geojson"
    write_geojson(areas, path)
    path.write_text(path.read_text().replace('"b"', '"Region*"'))
    panel.annotate.import_outlines(path)
    assert panel.state.names == ("background", "a")
    np.testing.assert_array_equal(
        panel.annotate.annotations().rasterise(BOX, SHAPE),
        read_geojson(path).annotations().rasterise(BOX, SHAPE),
    )


def test_a_layer_of_its_own_place(
    panel: MuViTPanel, viewer: ViewerModel, image: Any, file: Path
) -> None:
    layer = viewer.add_shapes(
        None, ndim=2, scale=(2, 3), translate=(7, 8), rotate=30, name="turned",
        units="um",
    )  # fmt: skip
    panel.annotate.layers.choose(layer)
    panel.annotate.import_outlines(file)
    assert len(layer.data) == 3
    got = panel.annotate.annotations().items[0]
    np.testing.assert_allclose(got.vertices, OUTER, atol=1e-3)
    np.testing.assert_allclose(got.holes[1], HOLES[1], atol=1e-3)


def fail(*_arguments: Any, **_options: Any) -> None:
    raise RuntimeError("Triangulation failed.")


def test_mistakes_are_one_notification(
    panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray, file: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def told(words: str, path: Path | str) -> str:
        (only,) = press(panel, words, path, monkeypatch)
        assert only.severity.name == "ERROR"
        return str(only.message)

    assert "Choose an image" in told("Import", file)
    viewer.add_image(slide)
    assert press(panel, "Import", "", monkeypatch) == []  # given up
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert "is no GeoJSON" in told("Import", broken)
    content = json.loads(file.read_text())
    for feature in content["features"]:
        feature["properties"] = {}
    broken.write_text(json.dumps(content))
    assert "3 features without a class" in told("Import", broken)
    assert len(viewer.layers) == 1
    assert "no annotations" in told("Export", tmp_path / "x.geojson")
    panel.annotate.new_layer()
    assert "no outlined region" in told("Export", tmp_path / "x.geojson")
    with monkeypatch.context() as patch:
        patch.setattr(Shapes, "_add_shapes", fail)
        assert "cannot draw one of the outlines" in told("Import", file)
    assert not panel.annotate.slide.drawing
    panel.annotate.import_outlines(file)
    assert len(panel.annotate.layers.layer.data) == 3
    assert "cannot be written" in told("Export", tmp_path / "none" / "x.geojson")
    labels = viewer.add_labels(np.zeros((600, 700), np.uint8), name="painted")
    panel.annotate.layers.choose(labels)
    assert "No value of the layer 'painted'" in told("Export", file)


def test_what_is_painted_is_exported(
    panel: MuViTPanel, viewer: ViewerModel, image: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    painted = np.zeros((150, 175), np.uint8)
    painted[10:60, 20:90] = 1
    painted[30:40, 40:50] = 0
    painted[100:120, 100:170] = 3
    labels = viewer.add_labels(
        painted, scale=(2, 2), translate=(30.75, -11.25), units="um"
    )
    page = panel.annotate
    page.layers.choose(labels)
    wanted = page.annotations().rasterise(BOX, SHAPE)
    assert wanted.any()
    (said,) = press(panel, "Export", tmp_path / "p.geojson", monkeypatch)
    assert said.message == "The painted classes were exported to p.geojson."
    with monkeypatch.context() as patch:
        patch.setattr(outlines, "MAX_PIXELS", 1000)
        (said,) = press(panel, "Export", tmp_path / "p.geojson", monkeypatch)
    assert "150 x 175 pixels; label images in a plane of up to 1000" in said.message
    back = read_geojson(tmp_path / "p.geojson").annotations(panel.state.names)
    np.testing.assert_array_equal(back.rasterise(BOX, SHAPE), wanted)


def test_outlines_lie_on_the_plane_on_screen(
    panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray, tmp_path: Path
) -> None:
    stack = viewer.add_image(np.stack([slide] * 4), name="stack")
    viewer.dims.set_point(0, 2)
    assert shown_plane(stack, viewer.dims.point) == (2, 0)
    path = tmp_path / "z.geojson"
    areas = Annotations((Polygon(1, OUTER), Polygon(1, RIGHT)), ("a",))
    write_geojson(areas, path, (2, 0))
    panel.annotate.import_outlines(path)
    out = tmp_path / "out.geojson"
    panel.annotate.export_outlines(out)
    assert len(read_geojson(out, (2, 0)).outlines) == 2
    viewer.dims.set_point(0, 1)
    with pytest.raises(AnnotationError, match="2 features on other planes"):
        panel.annotate.import_outlines(path)


def test_classes_of_an_opened_file_keep_their_colours(
    panel: MuViTPanel, image: Any, viewer: ViewerModel, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    square = np.array([[10.0, 10], [10, 40], [40, 40]])
    items = (Polygon(1, square), Polygon(2, square + 50))
    path = tmp_path / "a.geojson"
    names, colors = ("stroma", "gland"), ("#010203", "#ff8800")
    write_geojson(Annotations(items, names, colors), path)
    (data,) = read_outlines(str(path))
    viewer._add_layer_from_data(*data)
    assert panel.state.names == names
    assert tuple(c.color for c in panel.state.classes) == colors
