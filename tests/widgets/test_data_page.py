"""The Data page: channels, pixel size, scales, models, and layers of all kinds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from qtpy.QtCore import QMimeData, QPoint, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QInputDialog, QMessageBox

from napari_muvit._reader import read_slides
from napari_muvit.core.data.zarr_writer import write_pyramid
from napari_muvit.core.errors import MuvitError
from napari_muvit.core.geometry import Box
from napari_muvit.widgets import MuViTPanel
from napari_muvit.widgets.models_dialog import ModelsDialog

PLACE: dict[str, Any] = {"scale": (0.5, 0.5), "translate": (7, 8), "units": "um"}
ON, OFF = Qt.CheckState.Checked, Qt.CheckState.Unchecked


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def names(panel: MuViTPanel) -> list[str]:
    rows = panel.data.channels.list
    return [rows.item(k).text() for k in range(rows.count())]


def tick(panel: MuViTPanel, row: int, state: Qt.CheckState = ON) -> None:
    panel.data.channels.list.item(row).setCheckState(state)


def words(panel: MuViTPanel, fact: str) -> str:
    return panel.data._facts[fact].text()


# ---- layers of all kinds


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "pyramid", "stack", "rgb"])
def test_any_layer_is_a_slide(
    panel: MuViTPanel, viewer: ViewerModel, kind: str
) -> None:
    pixels = noise(300, 400)
    data: Any = {
        "numpy": pixels,
        "dask": da.from_array(pixels, chunks=64),
        "zarr": zarr.array(pixels, chunks=(64, 64)),
        "pyramid": [pixels, pixels[::2, ::2]],
        "stack": np.stack([pixels - 1, pixels]),
        "rgb": np.stack([pixels] * 3, axis=-1),
    }[kind]
    place = {} if kind == "stack" else PLACE
    viewer.add_image(data, rgb=kind == "rgb", **place)
    viewer.dims.set_point(0, 1 if kind == "stack" else 0)
    pyramid = panel.data.pyramid()
    got = pyramid.read(Box((0, 0), (64, 64)), 1, (64, 64))
    np.testing.assert_array_equal(got, [pixels[:64, :64]] * (3 if kind == "rgb" else 1))
    assert words(panel, "size").startswith("400 × 300 px")
    assert panel.data.table.rowCount() > 0
    assert panel.data.channels.isHidden()


def test_a_turned_layer_is_refused_with_the_reason(
    panel: MuViTPanel, viewer: ViewerModel
) -> None:
    viewer.add_image(noise(4, 300, 400), axis_labels=("c", "y", "x"))
    assert not panel.data.channels.isHidden()
    viewer.layers.clear()
    panel.state.slides.clear()
    viewer.add_image(noise(300, 400), rotate=30, **PLACE)
    assert panel.data.channels.isHidden()
    assert "rotated" in panel.data.problem.text()
    assert panel.state.slides == []
    with pytest.raises(MuvitError, match="rotated"):
        panel.data.pyramid()


# ---- channels


def test_layers_are_ticked_as_channels(panel: MuViTPanel, viewer: ViewerModel) -> None:
    pixels = [noise(300, 400, seed=k) for k in range(3)]
    for name, plane in zip("abc", pixels, strict=True):
        viewer.add_image(plane, name=name, **PLACE)
    viewer.add_image(noise(30, 40), name="other")
    assert panel.data.image.layer.name == "a"
    assert names(panel) == ["a", "b", "c"]
    assert panel.data.pyramid().num_channels == 1
    tick(panel, 2)
    pyramid = panel.data.pyramid()
    assert pyramid.channel_names == ("a", "c")
    assert words(panel, "channels").startswith("a, c")
    got = pyramid.read(Box((0, 0), (32, 32)), 1, (32, 32))
    np.testing.assert_array_equal(got, [p[:32, :32] for p in (pixels[0], pixels[2])])
    assert panel.state.new_model(pyramid).in_channels == 2
    tick(panel, 0, OFF)
    assert panel.data.pyramid().num_channels == 1
    tick(panel, 2, OFF)
    assert "Tick at least one" in panel.data.problem.text()
    tick(panel, 1)
    assert panel.data.problem.text() == ""
    viewer.layers.remove("b")
    assert "Tick at least one" in panel.data.problem.text()


def test_one_click_takes_the_channels_of_the_file(
    panel: MuViTPanel, viewer: ViewerModel, tmp_path: Path
) -> None:
    write_pyramid(tmp_path / "a.zarr", noise(3, 300, 400),
                  channel_names=["x", "y", "z"], pixel_size=0.5)  # fmt: skip
    for data in read_slides(str(tmp_path / "a.zarr")):
        viewer._add_layer_from_data(*data)
    write_pyramid(tmp_path / "b.zarr", noise(300, 400), pixel_size=0.5)
    for data in read_slides(str(tmp_path / "b.zarr")):
        viewer._add_layer_from_data(*data)
    assert names(panel) == ["x", "y", "z", "b"]
    panel.data.channels.file_button.click()
    pyramid = panel.data.pyramid()
    assert pyramid.channel_names == ("x", "y", "z")
    assert pyramid.path == tmp_path / "a.zarr"
    (entry,) = panel.state.slides
    assert entry.channels == (0, 1, 2)
    assert entry.project == tmp_path / "a.muvit.jsonl"
    # The layers are closed: the file gives the same slide.
    viewer.layers.clear()
    (entry,) = panel.state.slides
    again = entry.pyramid()
    box = Box((0, 0), (32, 32))
    np.testing.assert_array_equal(
        again.read(box, 1, (32, 32)), pyramid.read(box, 1, (32, 32))
    )


def test_channels_of_one_layer_can_be_picked(
    panel: MuViTPanel, viewer: ViewerModel
) -> None:
    pixels = noise(4, 300, 400)
    viewer.add_image(pixels, axis_labels=("c", "y", "x"))
    assert names(panel) == [f"channel {k}" for k in range(4)]
    assert panel.data.pyramid().num_channels == 4
    tick(panel, 1, OFF)
    tick(panel, 3, OFF)
    got = panel.data.pyramid().read(Box((0, 0), (32, 32)), 1, (32, 32))
    np.testing.assert_array_equal(got, pixels[::2, :32, :32])


# ---- pixel size, scales, values


def test_a_pixel_size_is_typed(panel: MuViTPanel, viewer: ViewerModel) -> None:
    layer = viewer.add_image(noise(300, 400))
    data = panel.data
    assert words(panel, "pixel size") == "unknown"
    data.pixel.edit.setText("0,25 µm")
    data.pixel.edit.editingFinished.emit()
    assert data.pyramid().pixel_size == (0.25, 0.25)
    assert words(panel, "pixel size") == "0.25 µm  (typed)"
    assert panel.state.new_model(data.pyramid()).pixel_size == 0.25
    np.testing.assert_allclose(layer.scale, 1)
    data.pixel.edit.setText("small")
    data.pixel.edit.editingFinished.emit()
    assert "'small' is no pixel size" in data.problem.text()
    assert data.pyramid().pixel_size == (0.25, 0.25)
    data.pixel.edit.setText("")
    data.pixel.edit.editingFinished.emit()
    assert data.pyramid().pixel_size is None


def test_what_was_said_of_a_slide_is_kept(
    panel: MuViTPanel, viewer: ViewerModel
) -> None:
    first = viewer.add_image(noise(300, 400), name="a")
    second = viewer.add_image(noise(200, 300), name="b")
    panel.data.pixel.typed.emit(0.25)
    panel.data.image.choose(second)
    assert panel.data.pyramid().pixel_size is None
    panel.data.image.choose(first)
    assert panel.data.pyramid().pixel_size == (0.25, 0.25)
    assert [e.name for e in panel.state.slides] == ["a", "b"]


def test_scales_are_suggested_and_chosen(
    panel: MuViTPanel, viewer: ViewerModel
) -> None:
    viewer.add_image(np.zeros((4200, 4300), np.uint8), **PLACE)
    data = panel.data
    assert data.scales.combo.currentText() == "1×, 8×, 32× (auto)"
    assert "fits 2 times" in data.scales.why.text()
    assert panel.state.new_model(data.pyramid()).scale_factors == (1, 8, 32)
    data.scales.combo.setCurrentText("1, 3")
    data.scales._on_typed()
    assert panel.state.new_model(data.pyramid()).scale_factors == (1, 3)
    assert data.table.rowCount() == 2
    data.scales.combo.setCurrentText("3, 1")
    data.scales._on_typed()
    assert data.problem.text()
    assert panel.state.new_model(data.pyramid()).scale_factors == (1, 3)


def test_values_are_chosen(panel: MuViTPanel, viewer: ViewerModel) -> None:
    viewer.add_image(noise(300, 400, 3), rgb=True)
    box = panel.data.normalisation
    assert box.currentText() == "as usual: 0 to 255"
    box.setCurrentIndex(box.findData("percentile"))
    box.activated.emit(box.currentIndex())
    assert panel.state.new_model(panel.data.pyramid()).normalisation == "percentile"
    viewer.add_image(noise(300, 400).astype(np.uint16), name="deep")
    panel.data.image.choose(viewer.layers["deep"])
    assert box.findData("uint8") < 0


# ---- models


def test_a_model_is_taken_on_all_pages(
    panel: MuViTPanel, viewer: ViewerModel, saved_model: Path
) -> None:
    viewer.add_image(noise(300, 400, 3), rgb=True, **PLACE)
    panel.data.model.use(saved_model)
    assert panel.state.start is not None
    assert panel.train.start_from.chosen == panel.state.start
    assert panel.predict.model.chosen == panel.state.start
    assert "bright" in panel.data.model.card.text()
    assert "reads 1 channel" in panel.data.problem.text()
    assert not panel.data.scales.combo.isEnabled()
    assert panel.data.table.rowCount() == 2
    panel.train.start_from.choose(None)
    assert panel.data.model.model is None
    assert "reads 1 channel" not in panel.data.problem.text()


def test_models_are_there_again(
    qtbot: Any, panel: MuViTPanel, saved_model: Path
) -> None:
    panel.predict.model.use(saved_model)
    again = MuViTPanel(ViewerModel())
    qtbot.addWidget(again)
    assert [m.path for m in again.state.models] == [saved_model]
    assert again.predict.model.chosen is not None
    assert again.state.start is None


def drop(panel: MuViTPanel, path: Path) -> bool:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path))])
    none, copy = Qt.KeyboardModifier.NoModifier, Qt.DropAction.CopyAction
    left = Qt.MouseButton.LeftButton
    enter = QDragEnterEvent(QPoint(5, 5), copy, mime, left, none)
    enter.ignore()
    panel.data.dragEnterEvent(enter)
    if enter.isAccepted():
        event = QDropEvent(QPoint(5, 5).toPointF(), copy, mime, left, none)
        panel.data.dropEvent(event)
    return bool(enter.isAccepted())


def test_a_model_folder_is_dropped(panel: MuViTPanel, saved_model: Path) -> None:
    assert not drop(panel, saved_model.parent)
    assert panel.state.start is None
    assert drop(panel, saved_model / "model.safetensors")
    assert panel.state.start is not None
    assert panel.state.start.path == saved_model


@pytest.fixture
def dialog(qtbot: Any, panel: MuViTPanel, saved_model: Path) -> ModelsDialog:
    panel.data.model.use(saved_model)
    assert panel.state.library is not None
    made = ModelsDialog(panel.state.library, panel)
    made.edited.connect(panel.data.model._on_edited)
    made.used.connect(panel.data.model.use)
    qtbot.addWidget(made)
    return made


def test_a_model_is_renamed(
    panel: MuViTPanel, dialog: ModelsDialog, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = staticmethod(lambda *_args, **_kwargs: ("Glands", True))
    monkeypatch.setattr(QInputDialog, "getText", answer)
    dialog.rename_button.click()
    assert dialog.list.item(0).text() == "Glands"
    assert panel.data.model.chooser.combo.currentText() == "Glands"
    assert panel.predict.model.combo.currentText() == "Glands"


@pytest.mark.parametrize("sure", [False, True])
def test_deleting_a_model_asks_first(
    panel: MuViTPanel, dialog: ModelsDialog, saved_model: Path,
    monkeypatch: pytest.MonkeyPatch, sure: bool,
) -> None:  # fmt: skip
    buttons = QMessageBox.StandardButton
    answer = staticmethod(lambda *_args: buttons.Yes if sure else buttons.No)
    monkeypatch.setattr(QMessageBox, "question", answer)
    dialog.delete_button.click()
    assert saved_model.exists() is not sure
    assert (panel.state.start is None) is sure
    assert (panel.predict.model.chosen is None) is sure
    assert dialog.list.count() == (0 if sure else 1)


def test_an_imported_model_can_be_used(
    qtbot: Any, panel: MuViTPanel, dialog: ModelsDialog, saved_model: Path,
    tmp_path: Path, user_folders: Path,
) -> None:  # fmt: skip
    other = tmp_path / "stick" / "other"
    shutil.copytree(saved_model, other)
    dialog.import_model(other)
    qtbot.waitUntil(lambda: dialog.list.count() == 2, timeout=5000)
    assert dialog.chosen is not None
    assert dialog.chosen.path == user_folders / "models" / "other"
    dialog.use()
    assert panel.state.start is not None
    assert panel.state.start.path == user_folders / "models" / "other"
    dialog.import_model(tmp_path)
    qtbot.waitUntil(lambda: "no model folder" in dialog.problem.text(), timeout=5000)
