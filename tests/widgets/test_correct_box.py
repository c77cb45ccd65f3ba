"""Correct: labels become annotation, places are gone to, context is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_muvit._tasks.correcting import ContextTask, OutlineTask, UncertainTask
from napari_muvit.core.prediction.context_difference import ContextDifference
from napari_muvit.core.prediction.suggestions import Suggestion
from napari_muvit.widgets import MuViTPanel
from napari_muvit.widgets.correct_box import SELECTED
from napari_muvit.widgets.result_layers import CONTEXT

if TYPE_CHECKING:
    from conftest import FakeCore

TIMEOUT = 10_000


def idle(qtbot: Any, panel: MuViTPanel) -> None:
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=TIMEOUT)


@pytest.fixture
def image(viewer: ViewerModel, panel: MuViTPanel, slide: np.ndarray) -> Any:
    viewer.canvas.size = (600, 600)
    made = viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    viewer.scene.camera.center = (0, 150, 175)
    viewer.scene.camera.zoom = 1.5
    return made


@pytest.fixture
def box(
    qtbot: Any, panel: MuViTPanel, image: Any, core: FakeCore, saved_model: Path
) -> Any:
    """The Correct box of a finished prediction: dark on the left, bright right."""
    assert not panel.predict.correct.isVisibleTo(panel.predict)
    panel.predict.model.use(saved_model)
    panel.predict.predict_button.click()
    idle(qtbot, panel)
    assert panel.predict.correct.isVisibleTo(panel.predict)
    return panel.predict.correct


def shapes_of(viewer: ViewerModel) -> Any:
    from napari.layers import Shapes

    (layer,) = [x for x in viewer.layers if isinstance(x, Shapes)]
    return layer


def test_the_prediction_on_screen_becomes_annotation(
    qtbot: Any, panel: MuViTPanel, box: Any, viewer: ViewerModel, image: Any
) -> None:
    box.take_button.click()
    idle(qtbot, panel)
    # Classes of the model that the user had not are there now.
    assert panel.state.names == ("background", "class 1", "dark", "bright")
    assert panel.state.colors["bright"] == "#eeeeee"
    annotations = panel.annotate.annotations()
    labels = annotations.rasterise(
        panel.data.pyramid().extent, panel.data.pyramid().shape
    )
    assert set(np.unique(labels[:, :350])) == {3}
    assert set(np.unique(labels[:, 350:])) == {4}
    assert "2 regions are annotation now" in box.said.text()


def test_only_selected_regions_become_annotation(
    qtbot: Any, panel: MuViTPanel, box: Any, viewer: ViewerModel
) -> None:
    box.where.setCurrentText(SELECTED)
    box.take_button.click()
    assert "No region is selected" in box.problem.text()
    drawn = viewer.add_shapes(ndim=2, scale=(0.5, 0.5), units="um")
    drawn.add_rectangles([[99.5, 99.5], [99.5, 199.5], [199.5, 199.5], [199.5, 99.5]])
    drawn.selected_data = {0}
    box.take_button.click()
    idle(qtbot, panel)
    viewer.layers.remove(drawn) if drawn is not panel.annotate.layers.layer else None
    labels = panel.annotate.annotations().rasterise(
        panel.data.pyramid().extent, panel.data.pyramid().shape
    )
    assert (labels[100:200, 100:200] == 3).all()
    assert np.count_nonzero(labels) == 100 * 100
    assert box.problem.text() == ""


def test_places_are_listed_and_gone_to(
    qtbot: Any, panel: MuViTPanel, box: Any, viewer: ViewerModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = (
        Suggestion((0, 0, 100, 100), 0.41, "uncertain"),
        Suggestion((300, 400, 400, 500), 0.3, "uncertain"),
    )
    asked: list[Any] = []

    def call(task: Any, **_ways: Any) -> Any:
        asked.append(task)
        return found

    monkeypatch.setattr(UncertainTask, "__call__", call)
    box.uncertain_button.click()
    idle(qtbot, panel)
    assert asked[0].prediction.name == "slide_muvit.zarr"
    assert asked[0].size == 4 * 64
    words = [box.places.item(i).text() for i in range(box.places.count())]
    assert words == ["1  59 % sure", "2  70 % sure"]
    box.places.itemClicked.emit(box.places.item(1))
    centre = viewer.scene.camera.center[-2:]
    assert centre == pytest.approx((349.5 / 2, 449.5 / 2))


def test_without_confidence_there_are_no_uncertain_places(
    qtbot: Any, panel: MuViTPanel, box: Any
) -> None:
    panel.predict.options.boxes["confidence"].setChecked(False)
    panel.predict.predict_button.click()
    idle(qtbot, panel)
    box.uncertain_button.click()
    assert "without confidence" in box.problem.text()
    assert not panel.runner.busy


def test_where_context_changes_the_answer_is_shown(
    qtbot: Any, panel: MuViTPanel, box: Any, viewer: ViewerModel, image: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with_context = np.full((100, 200), 1, np.uint8)
    without = with_context.copy()
    without[10:20, 30:50] = 2
    place = Suggestion((60, 120, 160, 220), 0.02, "context")
    found = ContextDifference((50, 100, 150, 300), with_context, without, (place,))
    asked: list[Any] = []

    def call(task: Any, **_ways: Any) -> Any:
        asked.append(task)
        return found

    monkeypatch.setattr(ContextTask, "__call__", call)
    for _ in range(2):  # the second layer replaces the first
        box.context_button.click()
        idle(qtbot, panel)
    assert max(asked[0].region.shape) <= 1024
    assert asked[0].config.overlap == 0
    (layer,) = [x for x in viewer.layers if x.metadata.get("muvit") == CONTEXT]
    position = image.data_to_world((50 + 10, 100 + 30))
    assert layer.get_value(position, world=True) > 0
    assert layer.get_value(image.data_to_world((50 + 9, 100 + 30)), world=True) == 0
    value = layer.data[10, 30]
    table = layer.features.set_index("index")["class"]
    assert table[value] == "dark, bright without"
    np.testing.assert_allclose(layer.colormap.color_dict[value][:3], 0xEE / 255)
    assert "Context decides the class of 1.0 % of the view." in box.said.text()
    assert box.places.count() == 1
    # It is no annotation.
    assert layer not in panel.annotate.layers._layers


def test_a_slide_that_is_gone_is_said(
    qtbot: Any, panel: MuViTPanel, box: Any, viewer: ViewerModel, image: Any
) -> None:
    viewer.layers.remove(image)
    for each in (box.take_button, box.uncertain_button, box.context_button):
        each.click()
        assert "no longer in the viewer" in box.problem.text()
    assert not panel.runner.busy


def test_an_empty_view_is_said(
    qtbot: Any, panel: MuViTPanel, box: Any, viewer: ViewerModel
) -> None:
    viewer.scene.camera.center = (0, -9000, 0)
    box.take_button.click()
    assert "No part of the slide is on screen" in box.problem.text()


@pytest.mark.parametrize("error", [RuntimeError("a bug"), None])
def test_a_task_that_fails_or_is_stopped_leaves_the_page_usable(
    qtbot: Any, panel: MuViTPanel, box: Any, monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
) -> None:  # fmt: skip
    import time

    from napari_muvit.core.errors import Cancelled

    def call(_task: Any, should_stop: Any, **_ways: Any) -> Any:
        if error is not None:
            raise error
        while not should_stop():
            time.sleep(0.005)
        raise Cancelled("Stopped.")

    monkeypatch.setattr(OutlineTask, "__call__", call)
    box.take_button.click()
    assert not box.context_button.isEnabled()
    panel.stop_button.click()
    idle(qtbot, panel)
    assert ("RuntimeError: a bug" if error else "Stopped.") in panel.status.text()
    assert box.take_button.isEnabled()
    assert box.said.text() == ""
