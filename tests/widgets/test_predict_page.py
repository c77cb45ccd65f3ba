"""The Predict page: what is asked for, what is said before, what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_muvit._tasks.predicting import PredictTask
from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.progress import Progress
from napari_muvit.widgets import MuViTPanel, one_click
from napari_muvit.widgets.last_model import last_model, remember_model
from napari_muvit.widgets.predict_clock import PredictClock
from napari_muvit.widgets.predict_page import SELECTED, VISIBLE
from napari_muvit.widgets.regions import go_to, selected_outlines

if TYPE_CHECKING:
    from conftest import FakeCore

TIMEOUT = 10_000


@pytest.fixture
def image(viewer: ViewerModel, panel: MuViTPanel, slide: np.ndarray) -> Any:
    return viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")


@pytest.fixture
def ready(panel: MuViTPanel, image: Any, core: FakeCore, saved_model: Path) -> Any:
    """A panel that may predict at once."""
    panel.predict.model.use(saved_model)
    panel.show_step(3)
    return panel.predict


def idle(qtbot: Any, panel: MuViTPanel) -> None:
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=TIMEOUT)


def prediction(viewer: ViewerModel) -> Any:
    (layer,) = [x for x in viewer.layers if x.metadata.get("muvit") == "prediction"]
    return layer


# ---- what is asked for


def test_options_become_the_configuration(ready: Any, image: Any) -> None:
    config = ready._config(image, ready._pyramid())
    assert config.outputs == ("confidence",)
    assert config.overlap == 0.25
    assert config.tile_size == 256
    assert config.region is None
    ready.options.overlap.setValue(50)
    ready.options.average.setCurrentIndex(1)
    ready.options.placement.setCurrentIndex(2)
    for name in ("tissue", "probabilities"):
        ready.options.boxes[name].setChecked(True)
    config = ready._config(image, ready._pyramid())
    assert (config.overlap, config.average, config.placement) == (
        0.5, "flips", "averaged",
    )  # fmt: skip
    assert config.outputs == ("probabilities", "confidence")
    assert config.tissue


def test_selected_regions_are_predicted(
    qtbot: Any, ready: Any, panel: MuViTPanel, viewer: ViewerModel, core: FakeCore
) -> None:
    layer = viewer.add_shapes(ndim=2, scale=(0.5, 0.5), units="um")
    layer.add_rectangles([[50, 60], [50, 160], [110, 160], [110, 60]])
    layer.add_ellipses([[300, 400], [300, 500], [360, 500], [360, 400]])
    layer.selected_data = set()
    ready.region.setCurrentText(SELECTED)
    assert ready.predict_button.text() == "Predict selected regions"
    ready.predict_button.click()
    assert "No region is selected" in ready.problem.text()
    assert not panel.runner.busy
    layer.selected_data = {0}
    ready.predict_button.click()
    idle(qtbot, panel)
    ((ring,),) = core.runs[-1].config.outlines
    # Half a pixel: napari's pixel centres are whole numbers.
    assert min(y for y, _ in ring) == 50.5
    assert max(x for _, x in ring) == 160.5


def test_ellipses_and_holes_are_regions_too(
    viewer: ViewerModel, panel: MuViTPanel, image: Any
) -> None:
    layer = viewer.add_shapes(ndim=2, scale=(0.5, 0.5), units="um")
    layer.add_ellipses([[300, 400], [300, 500], [360, 500], [360, 400]])
    layer.add_paths([[0, 0], [10, 10], [20, 0]])
    layer.selected_data = {0, 1}
    ((ring,),) = selected_outlines(viewer, image)
    points = np.array(ring)
    np.testing.assert_allclose(points.min(axis=0), (300.5, 400.5), atol=0.2)
    np.testing.assert_allclose(points.max(axis=0), (360.5, 500.5), atol=0.2)
    layer.selected_data = {1}
    with pytest.raises(ConfigError, match="No region is selected"):
        selected_outlines(viewer, image)


# ---- what is said before and while it runs


def test_what_was_begun_is_said_and_gone_on_with(
    qtbot: Any, ready: Any, panel: MuViTPanel, core: FakeCore
) -> None:
    assert ready.predict_button.text() == "Predict whole slide"
    ready.options.boxes["confidence"].setChecked(False)
    core.tile_seconds = 0.2
    ready.predict_button.click()
    qtbot.waitUntil(lambda: "1 of" in panel.status.text(), timeout=TIMEOUT)
    panel.stop_button.click()
    idle(qtbot, panel)
    record_like_predict(core)
    ready.options.overlap.setValue(24)
    assert ready.predict_button.text() == "Predict whole slide"
    ready.options.overlap.setValue(25)
    assert ready.predict_button.text() == "Continue whole slide"
    assert "of 9 tiles are done" in ready.hint.text()
    ready.region.setCurrentText(VISIBLE)
    assert ready.predict_button.text() == "Continue visible part"
    ready.region.setCurrentIndex(0)
    core.tile_seconds = 0.0
    ready.predict_button.click()
    idle(qtbot, panel)
    assert ready.predict_button.text() == "Show whole slide"


def record_like_predict(core: FakeCore) -> None:
    """Write what a real run says of itself into the store of the last fake one."""
    from napari_muvit.core.files import write_json
    from napari_muvit.core.prediction.record import PRIVATE, read_record

    run = core.runs[-1]
    path = run.writer.path
    record = dict(read_record(path) or {})
    record["model"] = "saved model"
    record["settings"] = {
        "overlap": 0.25, "average": "none", "placement": "inside", "tile_size": 256,
    }  # fmt: skip
    record["outputs"] = []
    record["image"] = {"name": "slide", "path": None, "shape": [600, 700]}
    write_json(path / PRIVATE / "run.json", record)


def test_an_estimate_is_said_and_goes_with_another_choice(
    qtbot: Any, ready: Any, panel: MuViTPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_muvit._tasks import estimating

    found = estimating.Estimated("about 3 min and 1.1 GB of memory", 4, ("A note.",))
    monkeypatch.setattr(
        estimating.EstimateTask, "__call__", lambda _task, **_ways: found
    )
    ready.estimate_button.click()
    idle(qtbot, panel)
    assert (
        ready.cost.text() == "It will take about 3 min and 1.1 GB of memory (4 tiles)."
    )
    assert "A note." in ready.problem.text()
    ready.options.overlap.setValue(10)
    assert ready.cost.text() == ""


def test_the_clock_says_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = PredictClock()

    def said(stage: Any, done: float, total: float, seconds: float) -> str:
        now[0] += seconds
        return clock.words(Progress(stage=stage, done=done, total=total))

    assert said("prepare", 0, 1, 1).startswith("Preparing")
    assert said("preview", 3, 4, 1) == "First look · 75 %"
    assert said("preview", 4, 4, 1) == "Predicting …"
    # Ten were there before: they say nothing of the speed.
    assert said("predict", 10, 100, 1) == "10 of 100 tiles"
    assert said("predict", 30, 100, 10) == "30 of 100 tiles · 2 tiles/s · 35 s left"
    assert clock.spent == 14


# ---- what becomes of it


def test_the_result_has_areas_and_a_look(
    qtbot: Any, ready: Any, panel: MuViTPanel, viewer: ViewerModel
) -> None:
    assert not ready.shown.isVisibleTo(panel)
    ready.predict_button.click()
    idle(qtbot, panel)
    assert ready.shown.isVisibleTo(ready)
    table = ready.shown.areas
    cells = [[table.item(r, c).text() for c in range(3)] for r in range(2)]
    # 600 x 350 pixels of 0.5 um each.
    assert cells == [
        ["dark", "52\u202f500 µm²", "50.0 %"], ["bright", "52\u202f500 µm²", "50.0 %"],
    ]  # fmt: skip
    layer = prediction(viewer)
    ready.shown.opacity.setValue(30)
    assert layer.opacity == pytest.approx(0.3)
    ready.shown.outlines.setChecked(True)
    assert layer.contour > 0
    # Going on must not undo how the user looks at it.
    ready.predict_button.click()
    idle(qtbot, panel)
    assert prediction(viewer) is not layer
    assert prediction(viewer).contour > 0
    assert ready.shown.layer is prediction(viewer)
    assert ready.shown.outlines.isChecked()


def test_an_export_goes_where_it_is_asked_to(
    qtbot: Any, ready: Any, panel: MuViTPanel, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from qtpy.QtWidgets import QFileDialog

    ready.predict_button.click()
    idle(qtbot, panel)
    for chosen in ("", str(tmp_path)):
        monkeypatch.setattr(
            QFileDialog, "getExistingDirectory", lambda *_a, c=chosen: c
        )
        ready.shown.least.setValue(2.5)
        ready.shown.export_button.click()
        idle(qtbot, panel)
        assert (tmp_path / "slide_muvit_export").exists() == bool(chosen)
    folder = tmp_path / "slide_muvit_export"
    assert {p.name for p in folder.iterdir()} >= {"objects.geojson", "classes.csv"}
    assert "2 objects exported to slide_muvit_export" in ready.result.text()


def test_tiles_that_end_with_a_stop_are_shown(
    qtbot: Any, ready: Any, panel: MuViTPanel, viewer: ViewerModel, core: FakeCore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run_of = type(core).predict

    def hides_its_last_tile(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = run_of(self, *args, **kwargs)
        tiles = list(type(run).__iter__(run))

        class Stopped(type(run)):  # type: ignore[misc]
            def __iter__(self) -> Any:
                self.stopped = True
                return iter(tiles[:-1])

        run.__class__ = Stopped
        return run

    monkeypatch.setattr(
        "napari_muvit.core.prediction.predict",
        lambda *a, **k: hides_its_last_tile(core, *a, **k),
    )
    ready.predict_button.click()
    idle(qtbot, panel)
    assert panel.status.text() == "Stopped; what is done is kept."
    assert np.count_nonzero(prediction(viewer).data[0]) == 600 * 700


# ---- one click


def test_one_click_predicts_the_active_image_with_the_last_model(
    qtbot: Any, panel: MuViTPanel, image: Any, core: FakeCore, saved_model: Path,
    viewer: ViewerModel,
) -> None:  # fmt: skip
    other = viewer.add_image(np.full((300, 310), 200, np.uint8), name="other")
    remember_model(saved_model)
    viewer.layers.selection.active = other
    one_click.begin(panel, viewer)
    idle(qtbot, panel)
    assert prediction(viewer).name == "other · prediction"
    assert panel.pages.currentIndex() == 3


@pytest.mark.parametrize("lacking", ["image", "model", "time"])
def test_one_click_says_what_is_missing(
    qtbot: Any, panel: MuViTPanel, core: FakeCore, saved_model: Path,
    viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch, lacking: str,
) -> None:  # fmt: skip
    said: list[str] = []
    monkeypatch.setattr(one_click, "show_warning", said.append)
    if lacking != "image":
        viewer.add_image(np.zeros((300, 310), np.uint8))
    if lacking == "time":
        core.tile_seconds = 0.2
        panel.predict.model.use(saved_model)
        one_click.begin(panel, viewer)
    one_click.begin(panel, viewer)
    words = {"image": "no image", "model": "no model yet", "time": "at work"}
    assert len(said) == 1
    assert words[lacking] in said[0]
    panel.stop_button.click()
    idle(qtbot, panel)


def test_the_last_model_is_remembered_while_it_is_there(
    saved_model: Path, tmp_path: Path
) -> None:
    assert last_model() is None
    remember_model(saved_model)
    assert last_model() == saved_model
    saved_model.rename(tmp_path / "elsewhere")
    assert last_model() is None


def test_a_place_is_gone_to(viewer: ViewerModel, image: Any) -> None:
    viewer.canvas.size = (400, 600)
    go_to(viewer, image, (100, 200, 200, 260))
    camera = viewer.scene.camera
    # The middle of the place in micrometres, less half a pixel.
    assert camera.center[-2:] == pytest.approx((74.75, 114.75))
    assert 50 * camera.zoom < 400
    assert 50 * camera.zoom > 200


# ---- a first look


def test_a_first_look_is_shown_and_taken_away(
    qtbot: Any, viewer: ViewerModel, tmp_path: Path
) -> None:
    from napari_muvit._tasks.growing import GrowingLevels, Tile
    from napari_muvit._tasks.predicting import Opened
    from napari_muvit._tasks.previewing import LOOKED, Overview
    from napari_muvit.widgets.streaming import LivePrediction

    image = viewer.add_image(np.zeros((256, 256), np.uint8))
    model = ModelConfig(class_names=("dark", "bright"))
    levels = GrowingLevels(
        [np.zeros((256 >> k, 256 >> k), np.uint8) for k in (0, 1)], 0
    )
    live = LivePrediction(
        viewer, image, Opened(tmp_path, model, levels), "p", lambda _box: None
    )
    labels = np.array([[1, 2], [2, 1]], np.uint8)
    live.lay(Overview(labels, (128.0, 128.0), (63.5, 63.5)))
    assert live.layer.data[0][0, 200] == LOOKED + 2
    table = live.layer.features.set_index("index")["class"]
    assert table[LOOKED + 2] == "bright (first look)"
    assert live.layer.colormap.color_dict[LOOKED + 2][3] < 1
    live.put(Tile((0, 0, 128, 128), np.full((128, 128), 2, np.uint8)))
    live.finish()
    assert (live.layer.data[0][:128, :128] == 2).all()
    assert np.count_nonzero(live.layer.data[0]) == 128**2
    assert list(live.layer.features["class"]) == ["not predicted", "dark", "bright"]


def test_a_model_that_cannot_look_predicts_without(
    saved_model: Path, tmp_path: Path, core: FakeCore
) -> None:
    import queue

    from napari_muvit.core.config import PredictionConfig
    from napari_muvit.core.data.open import open_pyramid

    task = PredictTask(
        open_pyramid(np.zeros((300, 300), np.uint8)), saved_model,
        PredictionConfig(preview=True), [tmp_path / "p.zarr"], None,
    )  # fmt: skip
    commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
    end = task(
        on_progress=lambda _e: None, should_stop=lambda: False,
        tell=lambda _s: None, commands=commands,
    )  # fmt: skip
    commands.put(None)
    assert not end.stopped
    assert not core.runs[-1].config.preview
