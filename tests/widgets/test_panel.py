"""The four steps against a viewer without a window and a fast stand-in for the core."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Labels, Shapes

from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.geometry import Box
from napari_muvit.core.presets import PRESETS
from napari_muvit.widgets import MuViTPanel, label_values
from napari_muvit.widgets.value_table import NOT_USED

if TYPE_CHECKING:
    from conftest import FakeCore

TIMEOUT = 10_000
LEFT = np.array([[50, 50], [50, 300], [400, 300], [400, 50]], dtype=float)
RIGHT = LEFT + np.array([0, 350])


@pytest.fixture
def image(viewer: ViewerModel, panel: MuViTPanel, slide: np.ndarray) -> Any:
    return viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")


@pytest.fixture
def annotated(panel: MuViTPanel, image: Any) -> Shapes:
    """One region of each of the two classes that the panel starts with."""
    layer = panel.annotate.new_layer()
    assert layer is not None
    for index, outline in enumerate((LEFT, RIGHT)):
        panel.annotate.classes.choose(index)
        layer.add_polygons([outline])
    return layer


def idle(qtbot: Any, panel: MuViTPanel) -> None:
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=TIMEOUT)


def test_opening_the_panel_does_not_load_torch() -> None:
    code = (
        "import sys, napari_muvit.widgets, napari_muvit._sample_data\n"
        "print([m for m in ('torch', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


# ---- Data


def test_data_says_what_the_slide_is(panel: MuViTPanel, image: Any) -> None:
    words = {name: label.text() for name, label in panel.data._facts.items()}
    assert words["size"].startswith("700 × 600 px")
    assert "350 µm × 300 µm" in words["size"]
    assert words["pixel size"].startswith("0.5 µm")
    assert words["channels"] == "1, grey  (uint8)"
    factors = PRESETS["tiny"].model["scale_factors"]
    table = panel.data.table
    assert table.rowCount() == len(factors)
    cells = [table.item(len(factors) - 1, c).text() for c in range(3)]
    assert cells[0] == f"{factors[-1]:g}×"
    assert cells[1] == f"{factors[-1] * 0.5:g}"


def test_data_follows_the_preset(panel: MuViTPanel, image: Any) -> None:
    panel.train.preset.setCurrentIndex(panel.train.preset.findData("paper"))
    assert panel.data.table.rowCount() == 3
    assert "paper" in panel.data.heading.text()
    # 256 px x 32 are more than the slide has.
    assert "larger than the image" in panel.data.problem.text()


def test_data_says_what_is_wrong(panel: MuViTPanel, viewer: ViewerModel) -> None:
    assert "no image" in panel.data.problem.text()
    layer = viewer.add_image(np.zeros((600, 600), np.uint8))
    assert "no length unit" in panel.data.problem.text()
    layer.rotate = 20
    panel.show_step(0)
    assert "rotated" in panel.data.problem.text()
    assert panel.data.table.rowCount() == 0


def test_layers_come_go_and_change_names(
    panel: MuViTPanel, viewer: ViewerModel
) -> None:
    first = viewer.add_image(np.zeros((60, 60)), name="a")
    viewer.add_image(np.zeros((60, 60)), name="b")
    assert panel.data.image.layer is first  # a later image does not take its place
    first.name = "c"
    panel.reset_choices()
    assert [panel.data.image.itemText(i) for i in range(2)] == ["b", "c"]
    viewer.layers.remove(first)
    assert panel.data.image.layer.name == "b"
    viewer.layers.clear()
    assert panel.data.image.layer is None


# ---- Annotate


def test_regions_get_the_current_class_and_its_colour(
    panel: MuViTPanel, annotated: Shapes
) -> None:
    assert list(annotated.features["class"]) == ["background", "class 1"]
    colors = [c.color for c in panel.state.classes]
    for rgba, color in zip(annotated.edge_color, colors, strict=True):
        found = "#" + "".join(f"{round(v * 255):02x}" for v in rgba[:3])
        assert found == color
    item = panel.annotate.classes.tree.topLevelItem(1)
    assert [item.text(c) for c in range(3)] == ["2", "class 1", "1 region"]
    np.testing.assert_allclose(annotated.scale, (0.5, 0.5))


def test_renaming_and_recolouring_reach_the_regions(
    panel: MuViTPanel, annotated: Shapes
) -> None:
    item = panel.annotate.classes.tree.topLevelItem(1)
    item.setText(1, "tumour")
    assert panel.state.names == ("background", "tumour")
    assert list(annotated.features["class"]) == ["background", "tumour"]
    panel.state.recolor_class(1, "#123456")
    panel.annotate.classes.classes_changed.emit()
    np.testing.assert_allclose(annotated.edge_color[1][0], 0x12 / 255, atol=1e-3)
    item = panel.annotate.classes.tree.topLevelItem(1)
    item.setText(1, "background")  # taken
    assert panel.state.names == ("background", "tumour")
    assert item.text(1) == "tumour"


def test_removing_a_class_leaves_its_regions_out(
    panel: MuViTPanel, annotated: Shapes
) -> None:
    panel.annotate.classes.add()
    panel.annotate.classes.choose(1)
    panel.annotate.classes.remove()
    assert panel.state.names == ("background", "class 2")
    assert "1 region has no class" in panel.annotate.problem.text()
    items = panel.annotate.annotations().items
    assert [p.label for p in items] == [1]


def test_number_keys_choose_the_class(panel: MuViTPanel, annotated: Shapes) -> None:
    keymap = {str(key): call for key, call in annotated.keymap.items()}
    keymap["1"](annotated)
    assert panel.state.current_name == "background"
    assert annotated.feature_defaults["class"][0] == "background"
    keymap["2"](annotated)
    assert panel.state.current_name == "class 1"
    keymap["9"](annotated)  # there is no such class
    assert panel.state.current_name == "class 1"


def test_a_number_key_gives_the_class_to_selected_regions(
    panel: MuViTPanel, annotated: Shapes
) -> None:
    annotated.mode = "select"
    annotated.selected_data = {0}
    keymap = {str(key): call for key, call in annotated.keymap.items()}
    keymap["2"](annotated)
    assert list(annotated.features["class"]) == ["class 1", "class 1"]
    np.testing.assert_allclose(annotated.edge_color[0], annotated.edge_color[1])


def test_undo_takes_regions_back(panel: MuViTPanel, annotated: Shapes) -> None:
    before = [d.copy() for d in annotated.data]
    annotated.selected_data = {0}
    annotated.remove_selected()
    assert len(annotated.data) == 1
    panel.annotate.undo()
    assert len(annotated.data) == 2
    np.testing.assert_allclose(annotated.data[0], before[0])
    assert list(annotated.features["class"]) == ["background", "class 1"]
    for _ in range(5):
        panel.annotate.undo()
    assert len(annotated.data) == 0


@pytest.mark.parametrize(
    ("tool", "mode"),
    [
        ("Lasso", "add_polygon_lasso"),
        ("Polygon", "add_polygon"),
        ("Box", "add_rectangle"),
    ],
)
def test_tools_open_a_layer_and_choose_the_mode(
    panel: MuViTPanel, viewer: ViewerModel, image: Any, tool: str, mode: str
) -> None:
    panel.annotate.tool_buttons[tool].click()
    layer = viewer.layers.selection.active
    assert isinstance(layer, Shapes)
    assert layer.mode == mode
    assert panel.annotate.tool_buttons[tool].isChecked()
    layer.mode = "pan_zoom"
    assert not panel.annotate.tool_buttons[tool].isChecked()


def test_tools_without_an_image_say_so(panel: MuViTPanel) -> None:
    panel.annotate.use_tool("Lasso")
    assert "Data page" in panel.annotate.problem.text()


def test_a_labels_layer_proposes_classes(
    panel: MuViTPanel, viewer: ViewerModel, image: Any, slide: np.ndarray
) -> None:
    data = np.where(slide > 100, 5, 2)
    layer = viewer.add_labels(data, scale=(0.5, 0.5), units="um")
    assert panel.annotate.layers.layer is layer
    assert panel.annotate.values.values() == {2: 1, 5: 2}
    assert panel.state.names == ("class 2", "class 5")
    assert panel.annotate.values.isVisibleTo(panel.annotate)
    assert not panel.annotate.tools.isVisibleTo(panel.annotate)


def test_values_follow_the_user_s_classes(
    panel: MuViTPanel, viewer: ViewerModel, image: Any, slide: np.ndarray
) -> None:
    panel.annotate.classes.add()
    panel.annotate.classes.tree.topLevelItem(2).setText(1, "tumour")
    data = np.where(slide > 100, 3, 2)
    viewer.add_labels(data, scale=(0.5, 0.5), units="um")
    values = panel.annotate.values
    assert values.values() == {2: 2, 3: 3}
    values._boxes[3].setCurrentText(NOT_USED)
    values._boxes[2].setCurrentText("tumour")
    panel.annotate.classes.tree.topLevelItem(2).setText(1, "tumor")
    assert values.values() == {2: 3}
    annotations = panel.annotate.annotations()
    found = annotations.rasterise(Box((0, 0), slide.shape), slide.shape)
    np.testing.assert_array_equal(found, np.where(data == 2, 3, 0))


# ---- Train


def test_training_gets_what_the_pages_say(
    qtbot: Any, panel: MuViTPanel, annotated: Shapes, core: FakeCore
) -> None:
    panel.train.way.setCurrentIndex(1)  # thorough
    panel.train.minutes.setValue(0.1)
    panel.train.train_button.click()
    assert panel.stop_button.isEnabled()
    assert not panel.train.train_button.isEnabled()
    qtbot.waitUntil(lambda: len(panel.train.plot.validation) > 2, timeout=TIMEOUT)
    assert "mDSC" in panel.status.text()
    assert "left" in panel.status.text()
    assert 0 < panel.bar.value() < panel.bar.maximum()
    panel.stop_button.click()
    idle(qtbot, panel)

    (call,) = core.trainings
    (pyramid,), (annotations,) = call["images"], call["annotations"]
    assert pyramid.pixel_size == (0.5, 0.5)
    assert isinstance(annotations, Annotations)
    labels = annotations.rasterise(Box((0, 0), (600, 700)), (600, 700))
    assert labels[200, 200] == 1
    assert labels[200, 500] == 2
    assert labels[500, 500] == 0
    assert call["model"].names == ("background", "class 1")
    assert call["model"].pixel_size == 0.5
    assert call["config"].minutes == 0.1
    assert call["config"].num_threads >= 1
    assert call["start"] is None


def test_a_stopped_training_gives_a_model(
    qtbot: Any, panel: MuViTPanel, annotated: Shapes, core: FakeCore, user_folders: Path
) -> None:
    panel.train.way.setCurrentIndex(1)  # thorough
    panel.train.train_button.click()
    qtbot.waitUntil(lambda: len(panel.train.plot.validation) > 0, timeout=TIMEOUT)
    panel.stop_button.click()
    idle(qtbot, panel)
    (model,) = panel.state.models
    assert model.path.parent == user_folders
    assert model.path.name.startswith("slide_muvit-model_")
    assert panel.predict.model.combo.currentData() == str(model.path)
    assert "mDSC 0.90" in panel.predict.model.combo.currentText()
    assert panel.predict.predict_button.isEnabled()
    assert panel.status.text().startswith("Stopped")


def test_training_may_start_from_a_saved_model(
    qtbot: Any, panel: MuViTPanel, annotated: Shapes, core: FakeCore, saved_model: Path
) -> None:
    panel.train.way.setCurrentIndex(1)  # thorough
    panel.train.start_from.use(saved_model)
    assert not panel.train.preset.isEnabled()
    panel.train.minutes.setValue(0.1)
    panel.train.train_button.click()
    qtbot.waitUntil(lambda: bool(core.trainings), timeout=TIMEOUT)
    panel.stop_button.click()
    idle(qtbot, panel)
    call = core.trainings[0]
    assert call["start"] == saved_model
    # The saved network with the classes of the panel.
    assert call["model"].scale_factors == (1, 4)
    assert call["model"].names == ("background", "class 1")


def test_training_without_annotations_says_so(panel: MuViTPanel, image: Any) -> None:
    panel.train.train_button.click()
    assert "no annotations" in panel.train.problem.text()
    panel.annotate.new_layer()
    panel.status.setText("Done in 3 s.")
    panel.train.train_button.click()
    assert "no outlined region" in panel.train.problem.text()
    assert panel.status.text() == "Not started."  # not what an earlier run said
    assert not panel.runner.busy


def test_an_error_in_training_leaves_the_panel_usable(
    qtbot: Any, panel: MuViTPanel, annotated: Shapes, core: FakeCore
) -> None:
    core.train_error = ConfigError("It has 2 channels. Choose another model.")
    panel.train.train_button.click()
    idle(qtbot, panel)
    assert panel.status.text() == "It has 2 channels"
    assert panel.train.train_button.isEnabled()
    assert not panel.stop_button.isEnabled()


# ---- Predict


def predicted(viewer: ViewerModel) -> Labels:
    (layer,) = [x for x in viewer.layers if "muvit" in x.metadata]
    return layer


def test_predicting_with_a_saved_model_needs_no_training(
    qtbot: Any, panel: MuViTPanel, image: Any, core: FakeCore, saved_model: Path,
    viewer: ViewerModel, slide: np.ndarray, user_folders: Path,
) -> None:  # fmt: skip
    assert not panel.predict.predict_button.isEnabled()
    panel.predict.model.use(saved_model)
    panel.predict.predict_button.click()
    idle(qtbot, panel)
    layer = predicted(viewer)
    np.testing.assert_array_equal(layer.data[0], 1 + (slide > 127))
    assert set(np.unique(layer.data[-1])) == {1, 2}
    store = zarr.open_group(user_folders / "slide_muvit.zarr", mode="r")
    np.testing.assert_array_equal(store["0"][:], layer.data[0])
    assert panel.status.text().startswith("Done")
    # The slide is not an annotation of itself.
    assert layer not in panel.annotate.layers._layers


def test_a_stopped_prediction_is_continued(
    qtbot: Any, panel: MuViTPanel, image: Any, core: FakeCore, saved_model: Path,
    viewer: ViewerModel,
) -> None:  # fmt: skip
    core.tile_seconds = 0.2
    panel.predict.model.use(saved_model)
    panel.predict.predict_button.click()
    qtbot.waitUntil(lambda: "1 of" in panel.status.text(), timeout=TIMEOUT)
    panel.stop_button.click()
    idle(qtbot, panel)
    assert panel.status.text() == "Stopped; what is done is kept."
    first = predicted(viewer)
    done = np.count_nonzero(first.data[0])
    assert 0 < done < first.data[0].size
    core.tile_seconds = 0.0
    panel.predict.predict_button.click()
    idle(qtbot, panel)
    assert np.count_nonzero(predicted(viewer).data[0]) == first.data[0].size
    assert core.runs[0].writer.path == core.runs[1].writer.path


def test_another_model_s_result_is_left_alone(
    qtbot: Any, panel: MuViTPanel, image: Any, core: FakeCore, saved_model: Path,
    user_folders: Path,
) -> None:  # fmt: skip
    panel.predict.model.use(saved_model)
    panel.predict.predict_button.click()
    idle(qtbot, panel)
    other = saved_model.with_name("another model")
    saved_model.rename(other)
    panel.predict.model.use(other)
    panel.predict.predict_button.click()
    idle(qtbot, panel)
    found = sorted(p.name for p in user_folders.glob("slide*"))
    assert found == ["slide_muvit.zarr", "slide_muvit_2.zarr"]
    assert panel.status.text().startswith("Done")


def test_only_what_is_on_screen(
    qtbot: Any, panel: MuViTPanel, image: Any, core: FakeCore, saved_model: Path,
    viewer: ViewerModel,
) -> None:  # fmt: skip
    viewer.canvas.size = (50, 50)
    viewer.scene.camera.zoom = 1
    viewer.scene.camera.center = (0, 280, 330)  # the lower right corner, in um
    panel.predict.model.use(saved_model)
    panel.predict.region.setCurrentIndex(1)
    assert panel.predict.predict_button.text() == "Predict visible part"
    panel.predict.predict_button.click()
    idle(qtbot, panel)
    layer = predicted(viewer)
    assert layer.data[0][560, 660] > 0
    assert layer.data[0][10, 10] == 0
    viewer.scene.camera.center = (0, -5000, 0)
    panel.predict.predict_button.click()
    assert "on screen" in panel.predict.problem.text()


def test_a_folder_that_is_no_model_is_refused_in_words(
    panel: MuViTPanel, image: Any, tmp_path: Path
) -> None:
    panel.predict.model.use(tmp_path)
    assert "no model folder" in panel.predict.problem.text()
    panel.train.start_from.use(tmp_path)
    assert "no model folder" in panel.train.problem.text()


# ---- looks


def test_it_fits_a_narrow_dock(panel: MuViTPanel, image: Any, qtbot: Any) -> None:
    panel.resize(288, 600)
    panel.show()
    for step in range(4):
        panel.show_step(step)
        area = panel.pages.currentWidget()
        assert area.widget().minimumSizeHint().width() <= area.viewport().width()


def test_everything_has_a_tooltip(panel: MuViTPanel) -> None:
    from qtpy.QtWidgets import QAbstractButton, QComboBox

    buttons = panel.findChildren(QAbstractButton)
    for widget in [*buttons, *panel.findChildren(QComboBox)]:
        if type(widget) is QAbstractButton and not widget.text():
            continue  # Qt's own, inside a table
        assert widget.toolTip(), widget


def test_the_plot_paints(panel: MuViTPanel, qtbot: Any) -> None:
    plot = panel.train.plot
    plot.resize(280, 150)
    empty = plot.grab().toImage()
    for step in range(5000):
        plot.add_train(step, 1 / (step + 1))
    plot.add_validation(4999, 0.5)
    assert len(plot.train) <= 2000
    assert plot.grab().toImage() != empty
    plot.clear()
    assert plot.grab().toImage() == empty


def test_values_follow_the_brush(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, image: Any
) -> None:
    layer = viewer.add_labels(np.zeros((60, 70), np.uint8), scale=(5, 5), units="um")
    assert panel.annotate.values.values() == {}
    layer.paint((30, 30), 2)
    qtbot.waitUntil(lambda: panel.annotate.values.values() == {2: 2}, timeout=TIMEOUT)


def test_painting_changes_no_class_under_the_brush(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, image: Any
) -> None:
    # The second painted value used to replace the class list by "class 1, class 2".
    layer = viewer.add_labels(np.zeros((60, 70), np.uint8), scale=(5, 5), units="um")
    for value in (1, 2, 3):
        layer.paint((10 * value, 30), value)
    values = panel.annotate.values
    qtbot.waitUntil(lambda: values.values() == {1: 1, 2: 2}, timeout=TIMEOUT)
    assert panel.state.names == ("background", "class 1")
    # Value 3 was not used for want of a class, not because the user said so.
    panel.annotate.classes.add()
    assert values.values() == {1: 1, 2: 2, 3: 3}


def test_removing_a_class_gives_its_values_to_no_other(
    panel: MuViTPanel, viewer: ViewerModel, image: Any, slide: np.ndarray
) -> None:
    panel.annotate.classes.add()
    viewer.add_labels(np.where(slide > 100, 3, 2), scale=(0.5, 0.5), units="um")
    values = panel.annotate.values
    assert values.values() == {2: 2, 3: 3}
    panel.annotate.classes.choose(0)
    panel.annotate.classes.remove()
    # The same classes, now at other places in the list.
    assert values.values() == {2: 1, 3: 2}
    panel.annotate.classes.choose(0)
    panel.annotate.classes.remove()
    assert values.values() == {3: 1}


def test_choices_for_the_values_of_one_layer_are_not_those_of_another(
    panel: MuViTPanel, viewer: ViewerModel, image: Any, slide: np.ndarray
) -> None:
    first = viewer.add_labels(np.where(slide > 100, 2, 1), scale=(0.5, 0.5), units="um")
    second = viewer.add_labels(first.data.copy(), scale=(0.5, 0.5), units="um")
    panel.annotate.layers.choose(first)
    panel.annotate.values._boxes[1].setCurrentText(NOT_USED)
    assert panel.annotate.values.values() == {2: 2}
    panel.annotate.layers.choose(second)
    assert panel.annotate.values.values() == {1: 1, 2: 2}


def test_a_label_store_is_not_read_in_the_gui_thread(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, image: Any, slide: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    threads: list[int] = []

    def values_of(array: Any) -> list[int]:
        threads.append(threading.get_ident())
        return found(array)

    found = label_values.values_of
    monkeypatch.setattr(label_values, "values_of", values_of)
    store = zarr.create_array({}, shape=slide.shape, chunks=(100, 100), dtype="u1")
    store[:] = np.where(slide > 100, 2, 1)
    viewer.add_labels(store, scale=(0.5, 0.5), units="um")
    values = panel.annotate.values
    qtbot.waitUntil(lambda: values.values() == {1: 1, 2: 2}, timeout=TIMEOUT)
    viewer.scene.camera.zoom *= 2  # nor is it read again whenever the user zooms
    qtbot.wait(300)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_another_image_chosen_meanwhile_does_not_get_the_prediction(
    qtbot: Any, panel: MuViTPanel, image: Any, core: FakeCore, saved_model: Path,
    viewer: ViewerModel,
) -> None:  # fmt: skip
    other = viewer.add_image(np.zeros((90, 80), np.uint8), name="another")
    panel.predict.model.use(saved_model)
    panel.predict.predict_button.click()
    panel.data.image.choose(other)
    idle(qtbot, panel)
    layer = predicted(viewer)
    assert layer.name == "slide · prediction"
    np.testing.assert_allclose(layer.scale, image.scale)


@pytest.mark.parametrize("gone", ["image", "prediction"])
def test_a_layer_removed_while_predicting_is_no_trouble(
    qtbot: Any, panel: MuViTPanel, image: Any, core: FakeCore, saved_model: Path,
    viewer: ViewerModel, gone: str,
) -> None:  # fmt: skip
    core.tile_seconds = 0.1
    panel.predict.model.use(saved_model)
    panel.predict.predict_button.click()
    qtbot.waitUntil(lambda: "1 of" in panel.status.text(), timeout=TIMEOUT)
    viewer.layers.remove(image if gone == "image" else predicted(viewer))
    panel.stop_button.click()
    idle(qtbot, panel)
    assert panel.status.text() == "Stopped; what is done is kept."


def test_a_slide_of_a_single_level_is_shown(
    qtbot: Any, panel: MuViTPanel, core: FakeCore, saved_model: Path,
    viewer: ViewerModel,
) -> None:  # fmt: skip
    # napari refuses a pyramid of one level; that ended the whole program.
    viewer.add_image(np.full((300, 310), 200, np.uint8), name="small")
    panel.predict.model.use(saved_model)
    panel.predict.predict_button.click()
    idle(qtbot, panel)
    layer = predicted(viewer)
    assert not layer.multiscale
    assert not layer.editable
    assert (layer.data == 2).all()


def test_a_layer_of_the_user_with_the_same_name_stays(
    qtbot: Any, panel: MuViTPanel, image: Any, core: FakeCore, saved_model: Path,
    viewer: ViewerModel,
) -> None:  # fmt: skip
    own = viewer.add_labels(np.ones((60, 70), np.uint8), name="slide · prediction")
    panel.predict.model.use(saved_model)
    panel.predict.predict_button.click()
    idle(qtbot, panel)
    assert own in viewer.layers


def test_a_class_without_a_region_is_said_before_training(
    qtbot: Any, panel: MuViTPanel, annotated: Shapes, core: FakeCore
) -> None:
    panel.annotate.classes.add()
    panel.train.train_button.click()
    assert "Nothing is annotated as class 2" in panel.train.problem.text()
    panel.stop_button.click()
    idle(qtbot, panel)


def test_regions_outside_the_image_are_refused_in_words(
    panel: MuViTPanel, annotated: Shapes
) -> None:
    annotated.translate = (5000, 0)
    panel.train.train_button.click()
    assert "outside the image 'slide'" in panel.train.problem.text()
    assert not panel.runner.busy


def test_a_user_folder_that_cannot_be_made_is_said_in_words(
    qtbot: Any, panel: MuViTPanel, annotated: Shapes, core: FakeCore, saved_model: Path,
    user_folders: Path,
) -> None:  # fmt: skip
    panel.annotate.slide.autosave.close()  # it may have made the folder
    shutil.rmtree(user_folders, ignore_errors=True)
    user_folders.parent.mkdir(parents=True, exist_ok=True)
    user_folders.write_text("a file, no folder")
    panel.predict.model.use(saved_model)
    for start in (panel.train.train_button, panel.predict.predict_button):
        start.click()
        idle(qtbot, panel)
        assert "cannot be made" in panel.status.text()


def test_the_data_page_follows_the_plane_of_a_stack(
    panel: MuViTPanel, viewer: ViewerModel
) -> None:
    viewer.add_image(np.zeros((5, 60, 70), np.uint8))
    viewer.dims.set_current_step(0, 1)
    assert "t = 1" in panel.data.problem.text()
    viewer.dims.set_current_step(0, 3)
    assert "t = 3" in panel.data.problem.text()


def test_drawing_shows_a_hidden_layer(
    panel: MuViTPanel, viewer: ViewerModel, annotated: Shapes
) -> None:
    annotated.visible = False
    viewer.dims.ndisplay = 3
    panel.annotate.use_tool("Box")
    assert annotated.visible
    assert viewer.dims.ndisplay == 2


def test_the_plot_leaves_out_what_is_no_number(panel: MuViTPanel, qtbot: Any) -> None:
    plot = panel.train.plot
    for loss in (1.0, float("nan"), float("inf"), 0.5):
        plot.add_train(1, loss)
        plot.add_validation(1, loss)
    assert len(plot.train) == len(plot.validation) == 2
    plot.grab()
