"""What lay on top of what when a whole session was gone through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_muvit._tasks.growing import GrowingLevels
from napari_muvit._tasks.predicting import Opened
from napari_muvit._tasks.screen import ScreenPicture
from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.prediction.context_difference import ContextDifference
from napari_muvit.widgets import MuViTPanel
from napari_muvit.widgets.context_layer import show_difference
from napari_muvit.widgets.correct_box import CorrectBox, Predicted
from napari_muvit.widgets.screen_layer import ScreenLayer
from napari_muvit.widgets.streaming import LivePrediction

EDGE = 300
MODEL = ModelConfig(class_names=("dark", "bright"))
NAME = "slide · prediction"


@pytest.fixture
def image(viewer: ViewerModel) -> Image:
    return viewer.add_image(np.zeros((EDGE, EDGE), np.uint8), name="slide")


def predict(viewer: ViewerModel, image: Image, folder: Path) -> Labels:
    """Show a prediction as the page does."""
    array = zarr.create_array({}, shape=(EDGE, EDGE), chunks=(64, 64), dtype="u1")
    levels = GrowingLevels.from_store([array])
    made = LivePrediction(
        viewer, image, Opened(folder, MODEL, levels), NAME, lambda _box: None
    )
    made.finish()
    return made.layer


def train(viewer: ViewerModel, image: Image) -> Labels:
    """Show a picture of a training as the page does."""
    screen = ScreenLayer(viewer, image, MODEL)
    screen.show(ScreenPicture((0, 0, EDGE, EDGE), 10, np.ones((30, 30), np.uint8), 1))
    assert screen.layer is not None
    return screen.layer


def difference() -> ContextDifference:
    labels = np.ones((40, 40), np.uint8)
    return ContextDifference((0, 0, 40, 40), labels, labels + 1, ())


def test_a_prediction_is_not_covered_by_the_last_training(
    viewer: ViewerModel, image: Image, tmp_path: Path
) -> None:
    preview = train(viewer, image)
    layer = predict(viewer, image, tmp_path)
    assert preview not in viewer.layers
    assert layer.visible


def test_a_training_is_not_covered_by_the_last_prediction(
    viewer: ViewerModel, image: Image, tmp_path: Path
) -> None:
    layer = predict(viewer, image, tmp_path)
    assert train(viewer, image).visible
    assert not layer.visible
    # Predicted again it is seen, because it was not the user who hid it.
    assert predict(viewer, image, tmp_path).visible


def test_a_prediction_that_the_user_hid_stays_hidden(
    viewer: ViewerModel, image: Image, tmp_path: Path
) -> None:
    predict(viewer, image, tmp_path).visible = False
    train(viewer, image)
    assert not predict(viewer, image, tmp_path).visible


def test_results_of_other_slides_are_left_alone(
    viewer: ViewerModel, image: Image, tmp_path: Path
) -> None:
    layer = predict(viewer, image, tmp_path)
    other = viewer.add_image(np.zeros((EDGE, EDGE), np.uint8), name="other")
    train(viewer, other)
    assert layer.visible


def test_what_context_changed_does_not_cover_the_annotations(
    viewer: ViewerModel, image: Image, tmp_path: Path
) -> None:
    layer = predict(viewer, image, tmp_path)
    drawn = viewer.add_shapes([np.array([[1, 1], [1, 9], [9, 9], [9, 1]])])
    changed = show_difference(viewer, image, difference(), MODEL)
    assert list(viewer.layers) == [image, layer, changed, drawn]


def test_what_context_changed_goes_with_its_prediction(
    viewer: ViewerModel, image: Image, panel: MuViTPanel
) -> None:
    box: CorrectBox = panel.predict.correct
    panel.reset_choices()
    pyramid, config = panel.data.pyramid(), PredictionConfig()

    def shown(name: str) -> Predicted:
        return Predicted(image, pyramid, Path("m"), MODEL, config, Path(name))

    box.set_result(shown("one.zarr"))
    changed = show_difference(viewer, image, difference(), MODEL)
    box.set_result(shown("one.zarr"))
    assert changed in viewer.layers
    box.set_result(shown("two.zarr"))
    assert changed not in viewer.layers


def test_no_tool_is_in_hand_while_another_layer_is_active(
    viewer: ViewerModel, image: Image, panel: MuViTPanel, tmp_path: Path
) -> None:
    lasso = panel.annotate.tool_buttons["Lasso"]
    lasso.click()
    assert lasso.isChecked()
    predict(viewer, image, tmp_path)  # which napari makes the active layer
    assert not lasso.isChecked()
    lasso.click()
    assert lasso.isChecked()
    assert viewer.layers.selection.active is panel.annotate.layers.layer


def test_the_train_page_names_the_scales_that_the_slide_suggests(
    viewer: ViewerModel, panel: MuViTPanel
) -> None:
    edge = 4096
    levels = [np.zeros((edge >> k, edge >> k), np.uint8) for k in range(4)]
    viewer.add_image(levels, name="large")
    panel.show_step(2)
    panel.show()
    suggested = panel.data.scales.combo.currentText()
    factors = panel.state.factors_for(panel.data.pyramid())
    assert len(factors) == 3
    words = ", ".join(f"{f:g}×" for f in factors)
    assert words in suggested
    assert f"Sees every point at {words}." in panel.train.summary.text()
