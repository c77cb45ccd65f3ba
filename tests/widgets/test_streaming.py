from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_muvit._tasks.growing import GrowingLevels, Tile
from napari_muvit._tasks.predicting import Opened
from napari_muvit.core.config import ModelConfig
from napari_muvit.core.geometry import Box
from napari_muvit.widgets.streaming import LivePrediction

SHAPE, TILE = (1100, 1300), 128


def tile(y: int, x: int) -> Tile:
    return Tile((y, x, y + TILE, x + TILE), np.full((TILE, TILE), 2, np.uint8))


@pytest.fixture
def live(qtbot: Any, viewer: ViewerModel, tmp_path: Path) -> Any:
    image = viewer.add_image(np.zeros(SHAPE, np.uint8), scale=(0.5, 0.5), units="um")
    looked: list[Box] = []
    model = ModelConfig(class_names=("dark", "bright"))
    shapes = [(-(-SHAPE[0] // 2**k), -(-SHAPE[1] // 2**k)) for k in range(6)]
    levels = GrowingLevels([np.zeros(shape, np.uint8) for shape in shapes], first=0)
    opened = Opened(tmp_path, model, levels)
    made = LivePrediction(viewer, image, opened, "prediction", looked.append)
    made.looked = looked  # type: ignore[attr-defined]
    yield made
    made.finish()


def test_tiles_reach_the_layer(qtbot: Any, live: LivePrediction) -> None:
    layer = live.layer
    assert layer.multiscale
    assert layer.dtype == np.uint8
    for y, x in ((0, 0), (256, 512), (768, 1024)):
        live.put(tile(y, x))
    qtbot.waitUntil(lambda: layer.data[0][y, x] > 0)
    assert layer.data[-1].any()


def test_the_layer_lies_upon_the_image_and_names_classes(live: LivePrediction) -> None:
    np.testing.assert_allclose(live.layer.scale, (0.5, 0.5))
    assert live.layer.units == live.image.units
    assert list(live.layer.features["class"]) == ["not predicted", "dark", "bright"]
    for value in (0, None):
        assert live.layer.colormap.color_dict[value][3] == 0
    position = live.viewer.layers.index(live.layer)
    assert position == live.viewer.layers.index(live.image) + 1


def test_a_moved_camera_moves_the_focus(qtbot: Any, live: Any) -> None:
    looked, camera = live.looked, live.viewer.scene.camera
    qtbot.waitUntil(lambda: len(looked) == 1)
    camera.zoom = 20
    for y in range(100, 200, 10):  # many events, one answer a tick
        camera.center = (0, y, 250)
    qtbot.waitUntil(lambda: len(looked) == 2)
    (y0, x0), (y1, x1) = looked[-1].lower, looked[-1].upper
    assert y0 < 190 / 0.5 < y1
    assert x0 < 250 / 0.5 < x1


def test_a_layer_that_the_user_removed_is_left_alone(
    qtbot: Any, live: LivePrediction
) -> None:
    live.viewer.layers.remove(live.layer)
    live.put(tile(0, 0))
    qtbot.waitUntil(lambda: not live._tiles)
