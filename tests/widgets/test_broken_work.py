"""What goes wrong in the midst of a training or a prediction."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_muvit._child import ChildDied, TaskFailed
from napari_muvit._tasks.screen import ScreenPicture
from napari_muvit._tasks.training import LiveTrainTask
from napari_muvit.core.errors import OutputError
from napari_muvit.widgets import MuViTPanel, unfinished
from napari_muvit.widgets.failures import failure_words
from napari_muvit.widgets.places import log_file, model_folder

if TYPE_CHECKING:
    from conftest import FakeCore

TIMEOUT = 10_000


@pytest.fixture
def image(viewer: ViewerModel, panel: MuViTPanel, slide: np.ndarray) -> Any:
    layer = viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    viewer.scene.camera.center = (0, 150, 175)
    return layer


@pytest.fixture
def drawn(panel: MuViTPanel, image: Any) -> Any:
    layer = panel.annotate.new_layer()
    for index, x in enumerate((100, 450)):
        panel.annotate.classes.choose(index)
        square = [[100, x], [100, x + 150], [250, x + 150], [250, x]]
        layer.add_polygons([np.array(square)])
    return layer


@pytest.fixture
def ready(panel: MuViTPanel, image: Any, core: FakeCore, saved_model: Path) -> Any:
    panel.predict.model.use(saved_model)
    panel.show_step(3)
    return panel.predict


def idle(qtbot: Any, panel: MuViTPanel) -> None:
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=TIMEOUT)


def shown(viewer: ViewerModel) -> list[Any]:
    return [x for x in viewer.layers if x.metadata.get("muvit") == "prediction"]


def test_an_image_that_is_turned_while_it_is_predicted(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, image: Any, ready: Any,
    core: FakeCore,
) -> None:  # fmt: skip
    # An error in a timer came five times a second.
    core.tile_seconds = 0.05
    ready.predict()
    qtbot.waitUntil(lambda: bool(shown(viewer)), timeout=TIMEOUT)
    image.rotate = 30
    viewer.scene.camera.center = (0, 100, 100)
    qtbot.wait(300)
    panel.stop_button.click()
    idle(qtbot, panel)


def test_an_image_that_is_turned_before_the_first_tile(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, image: Any, ready: Any
) -> None:
    ready.predict()
    image.rotate = 30
    idle(qtbot, panel)
    assert "is not shown" in ready.problem.text()
    assert "rotated" in ready.problem.text()
    assert shown(viewer) == []


def test_an_image_that_is_turned_while_it_trains(
    qtbot: Any, panel: MuViTPanel, drawn: Any, image: Any, core: FakeCore
) -> None:
    panel.train.train()
    qtbot.waitUntil(lambda: bool(panel.train.plot.train), timeout=TIMEOUT)
    watch = panel.train.watch
    assert watch is not None
    image.rotate = 30
    watch.on_told(ScreenPicture((0, 0, 8, 8), 1, np.ones((8, 8), np.uint8), 1))
    panel.stop_button.click()
    idle(qtbot, panel)


@pytest.mark.parametrize(
    "error", [OutputError("The disk is full. Make room there."), ZeroDivisionError("x")]
)
def test_why_a_prediction_failed_is_said_in_the_page(
    qtbot: Any, panel: MuViTPanel, ready: Any, core: FakeCore, error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(*_a: Any, **_k: Any) -> None:
        raise error

    monkeypatch.setattr("napari_muvit.core.prediction.predict", fail)
    ready.predict()
    idle(qtbot, panel)
    assert ready.problem.text() == failure_words(error)
    assert "\n" not in ready.problem.text()
    ready.estimate()
    idle(qtbot, panel)


def test_why_a_training_failed_is_said_in_the_page(
    qtbot: Any, panel: MuViTPanel, drawn: Any, core: FakeCore
) -> None:
    core.train_error = ChildDied("The process that did the work ended by itself.")
    panel.train.train()
    idle(qtbot, panel)
    assert panel.train.problem.text() == str(core.train_error)


def test_a_training_that_died_can_be_gone_on_with(
    qtbot: Any, panel: MuViTPanel, drawn: Any, saved_model: Path, user_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Its model lay in a folder, but in no list.
    error = ChildDied("The process that did the work ended by itself.")

    def die(task: LiveTrainTask, **_: Any) -> None:
        shutil.copytree(saved_model, task.out)
        raise error

    monkeypatch.setattr(LiveTrainTask, "__call__", die)
    page = panel.train
    page.train()
    idle(qtbot, panel)
    assert page.problem.text() == f"{error} Continue goes on from what was saved."
    assert page.continue_button.isVisibleTo(page)
    (saved,) = user_folders.glob("slide_muvit-model*")
    # Nor is it lost with this napari.
    (path,) = user_folders.glob(unfinished.NOTES)
    path.write_text(path.read_text().replace(str(os.getpid()), str(2**22 + 1)))
    assert unfinished.find(user_folders).out == str(saved)  # type: ignore[union-attr]


def test_an_offer_to_continue_stays_until_it_is_taken(
    qtbot: Any, panel: MuViTPanel, core: FakeCore, saved_model: Path
) -> None:
    notes = panel.train.notes
    notes.unfinished = unfinished.Unfinished(str(saved_model), "a slide", 1, 0.0)
    panel.train._continue()  # there is no slide yet
    assert "no image" in panel.train.problem.text()
    assert notes.unfinished is not None


def test_what_cannot_be_learned_is_still_said_at_the_end(
    qtbot: Any, panel: MuViTPanel, drawn: Any, core: FakeCore
) -> None:
    drawn.data = drawn.data[:1]
    panel.train.train()
    qtbot.waitUntil(lambda: bool(panel.train.plot.train), timeout=TIMEOUT)
    panel.stop_button.click()
    idle(qtbot, panel)
    assert "Stopped" in panel.train.result.text()
    assert "Nothing is annotated as class 1" in panel.train.problem.text()


def test_two_trainings_of_one_second_have_two_folders(user_folders: Path) -> None:
    # Two panels wrote their models over each other: each makes its folder late.
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    one, two = (model_folder("slide", None, now) for _ in range(2))
    assert one != two


def test_two_trainings_have_two_notes(tmp_path: Path) -> None:
    one = unfinished.remember(tmp_path, tmp_path / "a", "slide")
    unfinished.remember(tmp_path, tmp_path / "b", "slide")
    unfinished.forget(tmp_path, one)
    (path,) = tmp_path.glob(unfinished.NOTES)
    assert json.loads(path.read_text())["out"] == str(tmp_path / "b")


def test_a_bug_is_one_line_that_names_the_log() -> None:
    words = failure_words(TaskFailed("ValueError: line\nline " + 300 * "x", "trace"))
    assert "\n" not in words
    assert "ValueError: line line" in words
    assert str(log_file()) in words
    assert len(words) < 300 + len(str(log_file()))
