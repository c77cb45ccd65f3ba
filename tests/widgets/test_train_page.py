"""The Train page: live training, its picture, pauses, crashes, all settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Shapes

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.presets import PRESETS
from napari_muvit.widgets import MuViTPanel, unfinished
from napari_muvit.widgets.config_form import ConfigForm, field_docs
from napari_muvit.widgets.train_options import MODEL, TRAINING

if TYPE_CHECKING:
    from conftest import FakeCore

TIMEOUT = 10_000


@pytest.fixture
def image(viewer: ViewerModel, panel: MuViTPanel, slide: np.ndarray) -> Image:
    layer = viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    viewer.scene.camera.center = (0, 150, 175)
    return layer


@pytest.fixture
def drawn(panel: MuViTPanel, image: Image) -> Shapes:
    layer = panel.annotate.new_layer()
    assert layer is not None
    for index, corner in enumerate(((100, 100), (100, 450))):
        panel.annotate.classes.choose(index)
        y, x = corner
        box = np.array([[y, x], [y, x + 150], [y + 150, x + 150], [y + 150, x]])
        layer.add_polygons([box])
    return layer


def idle(qtbot: Any, panel: MuViTPanel) -> None:
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=TIMEOUT)


def pictures(viewer: ViewerModel) -> list[Any]:
    return [x for x in viewer.layers if x.name.endswith("live preview")]


@pytest.fixture
def training(qtbot: Any, panel: MuViTPanel, drawn: Shapes, core: FakeCore) -> Any:
    panel.train.train_button.click()
    qtbot.waitUntil(lambda: bool(panel.train.plot.dice), timeout=TIMEOUT)
    job = panel.runner._job
    yield core.live[-1]
    job.cancel.set()  # the panel is closed by now


def test_live_training_shows_curves_picture_and_hard_places(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, training: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    qtbot.waitUntil(lambda: bool(pictures(viewer)), timeout=TIMEOUT)
    (layer,) = pictures(viewer)
    # The picture lies upon the slide to half a pixel, whatever part it is of.
    image = viewer.layers["slide"]
    corner = layer.data_to_world((-0.5, -0.5))
    place = np.asarray(image.world_to_data(corner)) + 0.5
    np.testing.assert_allclose(place, np.round(place), atol=1e-6)
    assert layer.scale == pytest.approx(np.asarray(image.scale) * 4)
    assert not layer.editable
    assert viewer.layers.selection.active is not layer
    assert panel.train.plot.train
    assert "mDSC" in panel.status.text()
    assert training.config.names == ("background", "class 1")


def test_strokes_count_while_it_trains(
    qtbot: Any, panel: MuViTPanel, drawn: Shapes, training: Any
) -> None:
    before = len(training.annotations[0].items)
    drawn.add_polygons([np.array([[300, 100], [300, 250], [400, 250]])])
    panel.train.annotations_changed()
    qtbot.waitUntil(lambda: len(training.annotations[0].items) == before + 1)
    # For a moment there is none: the model keeps what it has.
    drawn.data = []
    panel.train.annotations_changed()
    qtbot.wait(50)
    assert len(training.annotations[0].items) == before + 1


def test_a_pause_holds_the_training(
    qtbot: Any, panel: MuViTPanel, training: Any
) -> None:
    page = panel.train
    assert page.running.isVisibleTo(page)
    assert not page.train_button.isVisibleTo(page)
    page.pause_button.click()
    qtbot.wait(100)
    steps = training.steps
    qtbot.wait(100)
    assert training.steps == steps
    assert page.pause_button.text() == "Go on"
    page.pause_button.click()
    qtbot.waitUntil(lambda: training.steps > steps, timeout=TIMEOUT)
    page.pause_button.click()
    panel.stop_button.click()  # stops a held training, too
    idle(qtbot, panel)
    assert page.train_button.isVisibleTo(page)
    assert not page.pause_button.isChecked()
    assert len(panel.state.models) == 1


def test_a_discarded_training_leaves_nothing(
    qtbot: Any, panel: MuViTPanel, training: Any, user_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(panel.train, "_sure", lambda: True)
    panel.train.discard_button.click()
    idle(qtbot, panel)
    assert panel.state.models == []
    assert not list(user_folders.glob("*model*"))
    assert "no model was kept" in panel.status.text()


def test_the_picture_can_be_switched_off(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, training: Any
) -> None:
    qtbot.waitUntil(lambda: bool(pictures(viewer)), timeout=TIMEOUT)
    panel.train.picture.setChecked(False)
    assert not pictures(viewer)
    qtbot.wait(100)
    assert not pictures(viewer)


def test_a_picture_follows_the_camera(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, training: Any
) -> None:
    qtbot.waitUntil(lambda: bool(pictures(viewer)), timeout=TIMEOUT)
    (layer,) = pictures(viewer)
    viewer.scene.camera.zoom = 30
    viewer.scene.camera.center = (0, 60, 80)
    qtbot.waitUntil(
        lambda: (
            layer.data.shape[0] < 50 and abs(layer.extent.world[:, 0].mean() - 60) < 4
        ),
        timeout=TIMEOUT,
    )


def test_a_place_of_errors_is_a_click_away(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, training: Any
) -> None:
    from napari_muvit.core.geometry import Box

    panel.train.places.show_places([(0, Box((100.0, 120.0), (164.0, 184.0)), 0.4)])
    item = panel.train.places.list.item(0)
    assert "40% wrong" in item.text()
    panel.train.places.list.itemClicked.emit(item)
    # Slide pixels (132, 152), the centre of the box, in micrometres.
    np.testing.assert_allclose(
        viewer.scene.camera.center[-2:], (131.5 * 0.5, 151.5 * 0.5)
    )


# ---- after a crash


def leave_note(folder: Path, out: Path, pid: int, started: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"out": str(out), "slide": "a slide", "pid": pid, "started": started}
    (folder / "training-1.json").write_text(json.dumps(content))


def test_a_training_that_a_crash_cut_off_is_offered_again(
    qtbot: Any, viewer: ViewerModel, core: FakeCore, user_folders: Path,
    saved_model: Path, slide: np.ndarray,
) -> None:  # fmt: skip
    leave_note(user_folders, saved_model, 2**22 + 1, 0.0)
    panel = MuViTPanel(viewer)
    qtbot.addWidget(panel)
    page = panel.train
    assert "was cut off" in page.problem.text()
    assert page.continue_button.isVisibleTo(page)
    viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    panel.reset_choices()
    layer = panel.annotate.new_layer()
    layer.add_polygons([np.array([[100, 100], [100, 250], [250, 250]])])
    page.continue_button.click()
    qtbot.waitUntil(lambda: bool(core.live), timeout=TIMEOUT)
    assert core.live[0].start == saved_model
    panel.runner.stop()
    idle(qtbot, panel)
    assert not list(user_folders.glob(unfinished.NOTES))


@pytest.mark.parametrize("case", ["alive", "no model", "damaged", "none"])
def test_nothing_is_offered_without_need(
    user_folders: Path, saved_model: Path, tmp_path: Path, case: str
) -> None:
    mine = psutil.Process()
    if case == "alive":
        leave_note(user_folders, saved_model, os.getpid(), mine.create_time())
    elif case == "no model":
        leave_note(user_folders, tmp_path / "nothing", 2**22 + 1, 0.0)
    elif case == "damaged":
        user_folders.mkdir(parents=True)
        (user_folders / "training-1.json").write_text('{"out": ')
    assert unfinished.find(user_folders) is None
    assert len(list(user_folders.glob(unfinished.NOTES))) == (case == "alive")


def test_a_note_lives_as_long_as_its_training(
    panel: MuViTPanel, training: Any, user_folders: Path, qtbot: Any
) -> None:
    (path,) = user_folders.glob(unfinished.NOTES)
    note = json.loads(path.read_text())
    assert note["pid"] == os.getpid()
    panel.runner.stop()
    idle(qtbot, panel)
    assert not list(user_folders.glob(unfinished.NOTES))


# ---- settings


def test_every_setting_of_the_forms_reaches_the_task(
    panel: MuViTPanel, drawn: Shapes
) -> None:
    page = panel.train
    page.options.training.editors["learning_rate"].setText("0.005")  # type: ignore[union-attr]
    page.options.training.editors["upright"].setChecked(True)  # type: ignore[union-attr]
    page.options.training.editors["schedule"].setCurrentText("cosine")  # type: ignore[union-attr]
    page.options.model.editors["pyramid_channels"].setText("8, 16, 16, 24")  # type: ignore[union-attr]
    page.options.model.editors["pyramid_channels"].editingFinished.emit()  # type: ignore[union-attr]
    task = page.task()
    assert task.config.learning_rate == 0.005
    assert task.config.upright
    assert task.config.schedule == "cosine"
    assert task.model is not None
    assert task.model.pyramid_channels == (8, 16, 16, 24)
    # What was not touched stays as the preset says.
    assert task.config.batch_size == PRESETS["tiny"].training["batch_size"]
    page.preset.setCurrentIndex(page.preset.findData("small"))
    changed = page.task().model
    assert changed is not None
    assert changed.embed_dim == PRESETS["small"].model["embed_dim"]
    # Of a slide of 600 px it is suggested to see this much.
    assert changed.scale_factors == (1, 4)


@pytest.mark.parametrize(
    ("form", "name", "words", "said"),
    [
        ("training", "learning_rate", "much", "learning_rate is 'much'"),
        ("training", "batch_size", "0", "batch_size"),
        ("model", "pyramid_channels", "4, x", "pyramid_channels"),
        ("model", "crop_size", "33", "crop_size"),
    ],
)
def test_a_wrong_setting_is_said_and_not_trained_with(
    panel: MuViTPanel, drawn: Shapes, core: FakeCore, form: str, name: str,
    words: str, said: str,
) -> None:  # fmt: skip
    editor = getattr(panel.train.options, form).editors[name]
    editor.setText(words)
    editor.editingFinished.emit()
    assert said in panel.train.problem.text()
    panel.train.train_button.click()
    assert not panel.runner.busy
    assert said in panel.train.problem.text()


@pytest.mark.parametrize(
    ("kind", "names"), [(TrainingConfig, TRAINING), (ModelConfig, MODEL)]
)
def test_a_form_shows_what_it_is_given_and_has_words_for_each_field(
    qtbot: Any, kind: type, names: tuple[str, ...]
) -> None:
    form = ConfigForm(kind, names)
    qtbot.addWidget(form)
    values = (TrainingConfig(steps=9) if kind is TrainingConfig else kind()).to_dict()
    form.show_values(values)
    assert form.changes() == {}
    read = form._read()
    for name in names:
        given = values[name]
        assert read[name] == (tuple(given) if isinstance(given, list) else given)
        assert field_docs(kind)[name], name
        assert form.editors[name].toolTip()


def test_pretraining_goes_on_without_annotations_and_is_the_next_start(
    qtbot: Any, panel: MuViTPanel, image: Image, core: FakeCore
) -> None:
    part = panel.train.pretraining
    part.minutes.setValue(0.1)
    part.start_button.click()
    qtbot.waitUntil(lambda: bool(core.pretrainings), timeout=TIMEOUT)
    panel.stop_button.click()
    idle(qtbot, panel)
    assert core.pretrainings[0]["config"].minutes == 0.1
    assert part.encoder is not None
    layer = panel.annotate.new_layer()
    assert layer is not None
    layer.add_polygons([np.array([[100, 100], [100, 250], [250, 250]])])
    assert panel.train.task().start == part.encoder
    part.forget_button.click()
    assert panel.train.task().start is None
