"""The Annotate page: saved by itself, restored, undone, painted, erased, counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Shapes

from napari_muvit.core.data.annotations import BrushMask, Ellipse, Polygon, Rectangle
from napari_muvit.core.data.items import Region
from napari_muvit.core.data.named_labels import read_project
from napari_muvit.core.data.project import Project
from napari_muvit.core.errors import AnnotationError
from napari_muvit.core.geometry import Box
from napari_muvit.widgets import MuViTPanel
from napari_muvit.widgets.annotate_page import AnnotatePage
from napari_muvit.widgets.slide_annotations import slide_path

TIMEOUT = 10_000
LEFT = np.array([[50, 50], [50, 300], [400, 300], [400, 50]], dtype=float)
RIGHT = LEFT + np.array([0, 350])
SHAPE = (600, 700)


@pytest.fixture
def image(viewer: ViewerModel, panel: MuViTPanel, slide: np.ndarray) -> Any:
    layer = viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    viewer._canvas_size = (300, 350)
    viewer.scene.camera.center = (150, 175)
    viewer.scene.camera.zoom = 1.0
    return layer


@pytest.fixture
def page(qtbot: Any, panel: MuViTPanel, image: Any) -> AnnotatePage:
    ready(qtbot, panel.annotate)
    return panel.annotate


def ready(qtbot: Any, page: AnnotatePage) -> None:
    qtbot.waitUntil(
        lambda: page.slide is not None and page.slide._ready, timeout=TIMEOUT
    )


def flushed(page: AnnotatePage) -> Any:
    assert page.slide is not None
    assert page.slide.autosave.flush()
    return read_project(page.slide.path)


def drawn(page: AnnotatePage, *outlines: np.ndarray) -> Shapes:
    layer = page.new_layer()
    assert layer is not None
    for index, outline in enumerate(outlines):
        page.classes.choose(index)
        layer.add_polygons([outline])
    return layer


def again(qtbot: Any, viewer: ViewerModel, slide: np.ndarray) -> MuViTPanel:
    """Another panel upon the same slide, as after a restart."""
    viewer.layers.clear()
    panel = MuViTPanel(viewer)
    qtbot.addWidget(panel)
    for name in ("inserted", "removed", "reordered"):
        getattr(viewer.layers.events, name).connect(panel.reset_choices)
    viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    ready(qtbot, panel.annotate)
    return panel


def picture(page: AnnotatePage) -> np.ndarray:
    return page.annotations().rasterise(Box((0, 0), SHAPE), SHAPE)


# ---- saved by itself


def test_each_finished_outline_is_in_the_file(page: AnnotatePage) -> None:
    layer = drawn(page, LEFT, RIGHT)
    found = flushed(page)
    assert found.class_names == ("background", "class 1")
    assert [item.label for item in found.items] == [1, 2]
    layer.selected_data = {0}
    layer.remove_selected()
    assert [item.label for item in flushed(page).items] == [2]
    page.classes.tree.topLevelItem(1).setText(1, "tumour")
    assert flushed(page).class_names == ("background", "tumour")


def test_looking_at_a_slide_makes_no_file(page: AnnotatePage) -> None:
    page.new_layer()
    assert page.slide is not None
    page.slide.autosave.flush()
    assert not page.slide.path.exists()


def test_opening_the_slide_again_brings_everything_back(
    qtbot: Any, page: AnnotatePage, panel: MuViTPanel, viewer: ViewerModel,
    slide: np.ndarray,
) -> None:  # fmt: skip
    layer = drawn(page, LEFT)
    page.classes.add()
    page.classes.tree.topLevelItem(2).setText(1, "stroma")
    layer.add_ellipses([RIGHT])
    page.use_tool("Background box")
    layer.add_rectangles([LEFT + 100])
    page.use_tool("Brush")
    page.classes.choose(1)
    paint(viewer.layers.selection.active, slice(200, 240), slice(10, 30))
    before, path = picture(page), page.slide.path
    flushed(page)
    panel.let_go()
    written = path.read_bytes()

    new = again(qtbot, viewer, slide)
    assert new.state.names == ("background", "class 1", "stroma")
    assert new.annotate.saved.text() == f"4 regions restored from {path.name}."
    shapes = new.annotate.layers.layer
    assert list(shapes.shape_type) == ["polygon", "ellipse", "rectangle"]
    assert list(shapes.features["class"]) == ["background", "stroma", "Region*"]
    np.testing.assert_array_equal(picture(new.annotate), before)
    # Bringing it back is no change.
    new.annotate.slide.autosave.flush()
    assert path.read_bytes() == written
    new.annotate.undo()
    assert len(shapes.data) == 3


def test_what_was_drawn_before_the_file_was_read_is_added(
    qtbot: Any, page: AnnotatePage, panel: MuViTPanel, viewer: ViewerModel,
    slide: np.ndarray,
) -> None:  # fmt: skip
    drawn(page, LEFT)
    flushed(page)
    panel.let_go()
    viewer.layers.clear()
    new = MuViTPanel(viewer)
    qtbot.addWidget(new)
    viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    new.reset_choices()
    drawn(new.annotate, RIGHT)  # no event was handled since
    assert not new.annotate.slide._ready
    ready(qtbot, new.annotate)
    np.testing.assert_allclose(new.annotate.layers.layer.data[0], LEFT)
    assert len(flushed(new.annotate).items) == 2


def test_a_file_that_another_napari_holds_is_left_alone(
    qtbot: Any, page: AnnotatePage, panel: MuViTPanel, viewer: ViewerModel,
    slide: np.ndarray,
) -> None:  # fmt: skip
    drawn(page, LEFT)
    path = page.slide.path
    flushed(page)
    panel.let_go()
    viewer.layers.clear()
    with Project.open(path):
        new = MuViTPanel(viewer)
        qtbot.addWidget(new)
        viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
        new.reset_choices()
        page = new.annotate
        qtbot.waitUntil(lambda: bool(page.unsaved.text()), timeout=TIMEOUT)
        assert "is open in another napari" in page.unsaved.text()
        assert page.open_button.isVisibleTo(page)
        drawn(page, RIGHT)
        page.slide.autosave.flush()
        assert len(read_project(path).items) == 1
    page.open_button.click()
    ready(qtbot, page)
    assert page.unsaved.text() == ""
    assert not page.open_button.isVisibleTo(page)
    assert [item.lower[1] for item in flushed(page).items] == [50.5, 400.5]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"no project at all\n", "no annotation project"), (None, "another image")],
)
def test_a_foreign_file_is_left_alone(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray,
    content: bytes | None, words: str, user_folders: Path,
) -> None:  # fmt: skip
    path = user_folders / "slide_600x700.muvit.jsonl"
    path.parent.mkdir(parents=True)
    if content is None:
        Project.create(path, shape=(5, 5), class_names=("a",)).close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    layer = viewer.add_image(slide, name="slide")
    assert slide_path(layer) == path
    page = panel.annotate
    qtbot.waitUntil(lambda: bool(page.unsaved.text()), timeout=TIMEOUT)
    assert words in page.unsaved.text()
    assert "not saved" in page.unsaved.text()
    drawn(page, LEFT)
    page.slide.autosave.flush()
    assert path.read_bytes() == before
    assert page.annotations().items


def test_a_damaged_line_is_said_and_the_rest_comes_back(
    qtbot: Any, page: AnnotatePage, panel: MuViTPanel, viewer: ViewerModel,
    slide: np.ndarray,
) -> None:  # fmt: skip
    drawn(page, LEFT)
    flushed(page)  # else both may stand in one line
    drawn(page, RIGHT)
    path = page.slide.path
    flushed(page)
    panel.let_go()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"polygon", b"polyg0n")
    path.write_bytes(b"".join(lines))
    new = again(qtbot, viewer, slide)
    assert "1 region restored" in new.annotate.saved.text()
    assert "damaged" in new.annotate.saved.text()
    drawn(new.annotate, LEFT)
    assert len(flushed(new.annotate).items) == 2
    assert len(list(path.parent.glob("*.damaged"))) == 1


def test_a_disk_that_is_full_for_a_while(
    qtbot: Any, page: AnnotatePage, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn(page, LEFT)
    flushed(page)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_muvit.core.data.project_file.write_all", full)
        drawn(page, RIGHT)
        page.slide.autosave.flush()
    qtbot.waitUntil(lambda: "No space left" in page.unsaved.text(), timeout=TIMEOUT)
    assert len(read_project(page.slide.path).items) == 1
    drawn(page, LEFT + 9)
    qtbot.waitUntil(lambda: page.unsaved.text() == "", timeout=TIMEOUT)
    assert len(flushed(page).items) == 3


def test_slides_do_not_mix(
    qtbot: Any, page: AnnotatePage, panel: MuViTPanel, viewer: ViewerModel
) -> None:
    first = drawn(page, LEFT)
    other = viewer.add_image(np.zeros((90, 80), np.uint8), name="slide")
    panel.data.image.choose(other)
    ready(qtbot, page)
    assert page.layers.layer is None
    second = drawn(page, LEFT / 9, LEFT / 8)
    assert second is not first
    assert len(flushed(page).items) == 2
    panel.data.image.choose(viewer.layers[0])
    ready(qtbot, page)
    assert page.layers.layer is first
    assert len(flushed(page).items) == 1


def test_a_layer_of_the_user_is_kept_unless_the_file_holds_others(
    qtbot: Any, page: AnnotatePage, panel: MuViTPanel, viewer: ViewerModel
) -> None:
    mine = viewer.add_shapes([LEFT], shape_type="polygon", ndim=2, scale=(0.5, 0.5))
    mine.features = {"class": ["class 1"]}
    assert page.layers.layer is mine
    assert [item.label for item in flushed(page).items] == [2]
    second = viewer.add_shapes([RIGHT], shape_type="polygon", name="another")
    page.layers.choose(second)
    assert "not saved by themselves" in page.saved.text()
    second.features = {"class": ["background"]}
    assert [item.label for item in flushed(page).items] == [2]
    assert [item.label for item in page.annotations().items] == [1]
    viewer.layers.remove(second)
    viewer.layers.remove(mine)
    assert len(flushed(page).items) == 1
    back = page.new_layer()
    np.testing.assert_allclose(back.data[0], LEFT)


def test_a_new_pixel_size_moves_nothing(page: AnnotatePage, image: Any) -> None:
    drawn(page, LEFT)
    page.use_tool("Brush")
    paint(page.viewer.layers.selection.active, slice(200, 240), slice(10, 30))
    before, layers = picture(page), page.slide.brush.layers
    image.scale = (0.25, 0.25)
    np.testing.assert_array_equal(picture(page), before)
    factor = layers[0].metadata["muvit_canvas"].scale[0]
    np.testing.assert_allclose(layers[0].scale, 0.25 * factor)


def test_layers_that_are_taken_out_lose_nothing(
    page: AnnotatePage, viewer: ViewerModel, slide: np.ndarray
) -> None:
    # As napari does when it closes, with other layers to choose instead.
    layer = drawn(page, LEFT)
    page.use_tool("Brush")
    brush = viewer.layers.selection.active
    paint(brush, slice(200, 240), slice(10, 30))
    before = picture(page)
    viewer.add_shapes([RIGHT], shape_type="polygon", ndim=2, name="another")
    mask = viewer.add_labels((slide > 100).astype(np.uint8), name="mask")
    page.layers.choose(mask)
    for gone in (brush, mask, layer):
        viewer.layers.remove(gone)
        assert len(flushed(page).items) == 2
    back = page.new_layer()
    assert page.layers.layer is back
    assert brush in viewer.layers
    np.testing.assert_array_equal(picture(page), before)
    assert len(flushed(page).items) == 2


# ---- undo


def test_undo_and_redo_of_outlines_classes_and_paint(
    page: AnnotatePage, viewer: ViewerModel
) -> None:
    layer = drawn(page, LEFT, RIGHT)
    page.use_tool("Brush")
    brush = viewer.layers.selection.active
    paint(brush, slice(200, 240), slice(10, 30))
    page.classes.tree.topLevelItem(1).setText(1, "tumour")
    page.classes.remove()
    layer.mode = "select"
    pictures = []
    for step in (page.undo, page.redo):
        for _ in range(5):
            pictures.append((page.state.names, len(layer.data), int(brush.data.sum())))
            step()
        assert not (
            page.undo_button if step == page.undo else page.redo_button
        ).isEnabled()
    painted = pictures[0][2]
    assert pictures[:5] == [
        (("background",), 2, painted),
        (("background", "tumour"), 2, painted),
        (("background", "class 1"), 2, painted),
        (("background", "class 1"), 2, 0),
        (("background", "class 1"), 1, 0),
    ]
    assert pictures[5] == (("background", "class 1"), 0, 0)
    assert pictures[6:] == pictures[4:0:-1]
    assert flushed(page).class_names == ("background",)
    page.undo()
    assert flushed(page).class_names == ("background", "tumour")
    assert [item.label for item in flushed(page).items] == [1, 2, 2]


def test_a_new_stroke_ends_what_can_be_redone(page: AnnotatePage) -> None:
    layer = drawn(page, LEFT)
    page.undo()
    assert page.redo_button.isEnabled()
    layer.add_polygons([RIGHT])
    assert not page.redo_button.isEnabled()


# ---- paint


def paint(layer: Labels, rows: slice, columns: slice) -> None:
    """One stroke over a box of the layer's pixels."""
    inside = np.zeros(layer.data.shape, bool)
    inside[rows, columns] = True
    with layer.block_history():
        layer.data_setitem(np.nonzero(inside), layer.selected_label)


def test_the_brush_paints_upon_what_is_on_screen(
    page: AnnotatePage, viewer: ViewerModel, image: Any
) -> None:
    page.classes.choose(1)
    page.use_tool("Brush")
    layer = viewer.layers.selection.active
    assert isinstance(layer, Labels)
    assert (layer.mode, layer.data.dtype) == ("paint", np.uint8)
    assert page.tool_buttons["Brush"].isChecked()
    # Zoom 1 shows two slide pixels a screen pixel; the brush is 24 of those wide.
    assert layer.metadata["muvit_canvas"].scale == (2, 2)
    assert layer.brush_size == 24
    # The corner of its first pixel is that of the slide's.
    corner = np.asarray(layer.data_to_world((-0.5, -0.5)))
    np.testing.assert_allclose(corner, image.data_to_world((-0.5, -0.5)))
    paint(layer, slice(10, 20), slice(30, 50))
    (mask,) = flushed(page).items
    assert (mask.offset, mask.scale, mask.label) == ((20, 60), (2, 2), 2)
    assert mask.mask.shape == (10, 20)
    expected = np.zeros(SHAPE, np.uint8)
    expected[20:40, 60:100] = 2
    np.testing.assert_array_equal(picture(page), expected)


def test_brush_layers_are_used_again_where_they_fit(
    page: AnnotatePage, viewer: ViewerModel, image: Any
) -> None:
    page.use_tool("Brush")
    first = viewer.layers.selection.active
    page.use_tool("Lasso")
    assert page.tool_buttons["Lasso"].isChecked()
    page.use_tool("Brush")
    assert viewer.layers.selection.active is first
    viewer.scene.camera.zoom = 16  # one slide pixel is eight on screen
    page.use_tool("Brush")
    second = viewer.layers.selection.active
    assert second is not first
    assert second.metadata["muvit_canvas"].scale == (1, 1)
    assert second.brush_size == 3
    # They are neither annotations nor images of their own.
    assert page.layers.count() == 1
    assert len(page.slide.brush.layers) == 2


def test_the_brush_follows_the_zoom_and_the_user(
    qtbot: Any, page: AnnotatePage, viewer: ViewerModel
) -> None:
    page.use_tool("Brush")
    layer = viewer.layers.selection.active
    layer.brush_size = 48
    viewer.scene.camera.zoom = 2.0
    qtbot.waitUntil(lambda: layer.brush_size == 24, timeout=TIMEOUT)
    viewer.scene.camera.zoom = 1.0
    qtbot.waitUntil(lambda: layer.brush_size == 48, timeout=TIMEOUT)


def test_a_brush_has_the_class_of_the_keys_and_of_the_picker(
    page: AnnotatePage, viewer: ViewerModel
) -> None:
    page.use_tool("Brush")
    layer = viewer.layers.selection.active
    keymap = {str(key): call for key, call in layer.keymap.items()}
    keymap["1"](layer)
    first = layer.selected_label
    keymap["2"](layer)
    assert layer.selected_label != first
    layer.selected_label = first
    assert page.state.current_name == "background"
    assert list(layer.features["class"]) == ["not painted", "background", "class 1"]


def test_taking_a_class_out_keeps_the_paint_of_the_others(
    page: AnnotatePage, viewer: ViewerModel
) -> None:
    page.classes.add()
    page.classes.tree.topLevelItem(2).setText(1, "stroma")
    page.use_tool("Brush")
    layer = viewer.layers.selection.active
    for index in range(3):
        page.classes.choose(index)
        paint(layer, slice(20 * index, 20 * index + 9), slice(0, 9))
    page.classes.choose(1)
    page.classes.remove()
    assert [item.label for item in flushed(page).items] == [1, 2]
    assert flushed(page).class_names == ("background", "stroma")
    assert np.unique(picture(page)[80:98]).tolist() == [0, 2]
    page.undo()
    assert [item.label for item in flushed(page).items] == [1, 2, 3]


def test_erasing_takes_outlines_and_paint(
    page: AnnotatePage, viewer: ViewerModel
) -> None:
    layer = drawn(page, LEFT, RIGHT)
    page.use_tool("Brush")
    brush = viewer.layers.selection.active
    paint(brush, slice(50, 150), slice(50, 150))
    page.use_tool("Erase")
    assert viewer.layers.selection.active is layer
    assert page.tool_buttons["Erase"].isChecked()
    before = picture(page)
    hole = np.array([[99.5, 99.5], [99.5, 199.5], [199.5, 199.5], [199.5, 99.5]])
    layer.add_polygons([hole])
    after = picture(page)
    assert (after[100:200, 100:200] == 0).all()
    outside = np.ones(SHAPE, bool)
    outside[100:200, 100:200] = False
    np.testing.assert_array_equal(after[outside], before[outside])
    page.undo()  # both at once
    np.testing.assert_array_equal(picture(page), before)
    page.redo()
    np.testing.assert_array_equal(picture(page), after)
    # Another class puts the eraser away.
    keymap = {str(key): call for key, call in layer.keymap.items()}
    keymap["1"](layer)
    assert not page.tool_buttons["Erase"].isChecked()
    assert layer.feature_defaults["class"][0] == "background"


def test_a_background_box(page: AnnotatePage, qtbot: Any) -> None:
    layer = drawn(page, LEFT)
    layer.features = {"class": ["class 1"]}
    page.use_tool("Background box")
    assert page.tool_buttons["Background box"].isChecked()
    assert not page.tool_buttons["Box"].isChecked()
    layer.add_rectangles([np.array([[-0.5, -0.5], [449.5, 449.5]])])
    assert isinstance(flushed(page).items[1], Region)
    found = picture(page)
    assert found[10, 10] == 1
    assert found[200, 200] == 2
    assert found[500, 10] == 0
    assert layer.face_color[1][3] < 0.1
    qtbot.waitUntil(lambda: "1 background box" in page.enough.text(), timeout=TIMEOUT)
    page.classes.tree.topLevelItem(0).setText(1, "other")
    page.use_tool("Background box")
    assert "class named background" in page.problem.text()


# ---- counts


def test_numbers_areas_and_what_is_too_little(
    qtbot: Any, page: AnnotatePage, viewer: ViewerModel
) -> None:
    drawn(page, LEFT, RIGHT)
    page.use_tool("Brush")
    layer = viewer.layers.selection.active
    paint(layer, slice(200, 210), slice(10, 20))
    paint(layer, slice(220, 230), slice(10, 20))
    item = page.classes.tree.topLevelItem(1)
    qtbot.waitUntil(lambda: bool(item.text(3)), timeout=TIMEOUT)
    assert item.text(2) == "3 regions"
    # 350 x 250 px and 2 x 20 x 20 px of 0.5 um.
    assert item.text(3) == f"{(87500 + 800) / 4 / 1e6:.2g} mm²"
    assert (
        "Still little: background 1 region and class 1 3 regions" in page.enough.text()
    )
    assert "10 or more" in page.enough.text()
    page.classes.add()
    qtbot.waitUntil(lambda: "Nothing is drawn yet of class 2" in page.enough.text())


def test_others_are_told_once_when_strokes_rest(qtbot: Any, page: AnnotatePage) -> None:
    qtbot.wait(400)
    told: list[int] = []
    page.annotations_changed.connect(lambda: told.append(1))
    drawn(page, LEFT, RIGHT)
    assert not told
    qtbot.wait(500)
    assert told == [1]


# ---- added by others


def test_a_prediction_is_taken_as_annotation_in_one_step(
    page: AnnotatePage, viewer: ViewerModel
) -> None:
    _, xx = np.mgrid[:50, :60]
    items = [
        BrushMask(1, xx < 30, (100, 200), (2, 2)),
        BrushMask(2, xx >= 30, (100, 200), (2, 2)),
        Polygon(2, np.array([(10.0, 10), (10, 60), (60, 10)])),
    ]
    page.add_annotations(items, "Taken from the prediction.")
    assert page.saved.text() == "Taken from the prediction."
    found = picture(page)
    assert (found[100:200, 200:260] == 1).all()
    assert (found[100:200, 260:320] == 2).all()
    assert found[20, 20] == 2
    assert len(flushed(page).items) == 3
    page.undo()
    assert not flushed(page).items
    assert not page.undo_button.isEnabled()
    page.redo()
    np.testing.assert_array_equal(picture(page), found)
    with pytest.raises(AnnotationError, match="class 7"):
        page.add_annotations([Rectangle(7, (0, 0), (1, 1))])


def test_items_that_nothing_shows_are_kept(
    qtbot: Any, page: AnnotatePage, panel: MuViTPanel, viewer: ViewerModel,
    slide: np.ndarray,
) -> None:  # fmt: skip
    holes = BrushMask(0, np.ones((5, 5), bool), (60, 60))
    page.add_annotations([Ellipse(1, (100, 100), (60, 50)), holes])
    flushed(page)
    panel.let_go()
    new = again(qtbot, viewer, slide)
    drawn(new.annotate, RIGHT)
    kinds = [type(item).__name__ for item in flushed(new.annotate).items]
    assert sorted(kinds) == ["BrushMask", "Ellipse", "Polygon"]


# ---- nothing holds the panel up


def test_a_slow_disk_does_not_hold_drawing_up(
    page: AnnotatePage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_muvit.core.data import project_file

    write: Callable[..., None] = project_file.write_all
    where: list[str] = []

    def slow(*args: Any) -> None:
        where.append(threading.current_thread().name)
        time.sleep(0.3)
        write(*args)

    monkeypatch.setattr(project_file, "write_all", slow)
    layer = page.new_layer()
    began = time.monotonic()
    for shift in range(10):
        layer.add_polygons([LEFT + shift])
    spent = time.monotonic() - began
    assert len(flushed(page).items) == 10
    assert set(where) == {"muvit-autosave_0"}
    # What came meanwhile was written together.
    assert len(where) < 10
    assert spent < 0.3 * 10


# ---- label images


@pytest.mark.parametrize("kind", [bool, np.uint8])
def test_a_mask_of_one_object_with_its_background(
    page: AnnotatePage, viewer: ViewerModel, slide: np.ndarray, kind: type
) -> None:
    viewer.add_labels((slide > 100).astype(kind), scale=(0.5, 0.5), name="mask")
    page.layers.choose(viewer.layers["mask"])
    # It is no background, though its value is that class's number.
    assert page.values.values() == {1: 2}
    expected = np.where(slide > 100, 2, 0)
    np.testing.assert_array_equal(picture(page), expected)
    page.values._boxes[0].setCurrentText("background")
    assert page.values.values() == {0: 1, 1: 2}
    np.testing.assert_array_equal(picture(page), np.where(slide > 100, 2, 1))


def test_a_label_image_leaves_the_outlines_alone(
    page: AnnotatePage, viewer: ViewerModel, slide: np.ndarray
) -> None:
    layer = drawn(page, LEFT)
    flushed(page)
    viewer.add_labels((slide > 100).astype(np.uint8), scale=(0.5, 0.5), name="mask")
    page.layers.choose(viewer.layers["mask"])
    assert "uses the label image 'mask'" in page.labels._says.text()
    assert len(flushed(page).items) == 1
    page.layers.choose(layer)
    assert len(flushed(page).items) == 1
    assert [item.label for item in page.annotations().items] == [1]


def test_annotations_in_a_folder_that_cannot_be_written(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray,
    tmp_path: Path, user_folders: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "case.npy").touch()
    shared = folder / "case.muvit.jsonl"
    with Project.create(shared, shape=SHAPE, class_names=("a", "b")) as project:
        project.add(Rectangle(2, (10, 10), (50, 60)))
    before = shared.read_bytes()
    monkeypatch.setattr("napari_muvit.widgets.places.os.access", lambda *_: False)
    viewer.add_image(slide, name="case", metadata={"path": str(folder / "case.npy")})
    page = panel.annotate
    ready(qtbot, page)
    assert "1 region restored" in page.saved.text()
    assert page.slide.path == user_folders / "case_600x700.muvit.jsonl"
    drawn(page, LEFT)
    found = flushed(page)
    assert [item.label for item in found.items] == [2, 1]
    assert found.class_names == ("a", "b")
    assert shared.read_bytes() == before


# ---- other images


def test_an_image_that_was_rotated_can_be_drawn_upon_when_it_is_mended(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray
) -> None:
    layer = viewer.add_image(slide, rotate=20)
    page = panel.annotate
    page.use_tool("Lasso")
    assert "the Data page says why" in page.problem.text()
    assert len(viewer.layers) == 1
    layer.rotate = 0
    page.use_tool("Lasso")
    assert isinstance(page.layers.layer, Shapes)
    ready(qtbot, page)


def test_a_plane_of_a_stack_is_outlined_and_painted(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel
) -> None:
    viewer.add_image(np.zeros((4, 3, 200, 300), np.uint8), scale=(1, 1, 0.5, 0.5))
    page = panel.annotate
    ready(qtbot, page)
    drawn(page, LEFT / 9)
    page.use_tool("Brush")
    brush = viewer.layers.selection.active
    assert brush.ndim == 2
    paint(brush, slice(0, 9), slice(0, 9))
    assert sorted(type(x).__name__ for x in flushed(page).items) == [
        "BrushMask", "Polygon"
    ]  # fmt: skip
    viewer.dims.set_current_step(0, 2)
    assert len(page.annotations().items) == 2


def test_names_that_cannot_be_told_apart_are_said(
    qtbot: Any, page: AnnotatePage
) -> None:
    drawn(page, LEFT)
    # Typed it would be refused; a layer from elsewhere may bring such names.
    page.state.add_class("Background")
    page.classes.classes_changed.emit()
    qtbot.waitUntil(lambda: "told apart" in page.unsaved.text(), timeout=TIMEOUT)
    page.classes.rebuild()
    page.classes.tree.topLevelItem(2).setText(1, "tumour")
    qtbot.waitUntil(lambda: not page.unsaved.text(), timeout=TIMEOUT)
    assert flushed(page).class_names == ("background", "class 1", "tumour")


def test_an_image_turned_in_the_midst_loses_nothing(
    qtbot: Any, panel: MuViTPanel, image: Any
) -> None:
    def at(y: float, x: float) -> np.ndarray:
        return np.array([[y, x], [y, x + 40], [y + 40, x + 40]], float)

    # The counting of regions, which comes a moment later, raised in the event loop.
    layer = panel.annotate.new_layer()
    assert layer is not None
    layer.add_polygons([at(10, 10)])
    assert panel.annotate.slide is not None
    before = panel.annotate.slide.areas()
    image.rotate = 30
    layer.add_polygons([at(60, 10)])
    qtbot.wait(500)
    image.rotate = 0
    layer.add_polygons([at(10, 60)])
    after = panel.annotate.slide.areas()
    assert len(after) == 3
    np.testing.assert_allclose(after[0].vertices, before[0].vertices)  # type: ignore[attr-defined]
