from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from napari.components import ViewerModel

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.prediction.levels import write_levels
from napari_muvit.widgets import streaming
from napari_muvit.widgets.streaming import GrowingLevels, LivePrediction, Output

SHAPE, TILE = (1100, 1300), 128


def empty_store(folder: Path) -> list[zarr.Array[Any]]:
    levels = []
    shape = SHAPE
    for index in range(6):
        levels.append(
            zarr.create_array(
                str(folder / str(index)), shape=shape, chunks=(TILE, TILE), dtype="u1"
            )
        )
        shape = (-(-shape[0] // 2), -(-shape[1] // 2))
    return levels


def tiles() -> list[Any]:
    truth = np.random.default_rng(0).integers(1, 4, SHAPE, dtype=np.uint8)
    found = []
    for y in range(0, SHAPE[0], TILE):
        for x in range(0, SHAPE[1], TILE):
            labels = truth[y : y + TILE, x : x + TILE]
            box = (y, x, y + labels.shape[0], x + labels.shape[1])
            found.append(types.SimpleNamespace(box=box, labels=labels))
    np.random.default_rng(1).shuffle(found)
    return found


@pytest.mark.parametrize("numpy_pixels", [0, 200_000, 10**9])
def test_the_coarse_levels_end_as_the_store_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numpy_pixels: int
) -> None:
    monkeypatch.setattr(streaming, "NUMPY_PIXELS", numpy_pixels)
    store = empty_store(tmp_path)
    growing = GrowingLevels.from_store(store)
    for tile in tiles():
        write_levels(store, tile.box, tile.labels)
        growing.put(tile)
    for level, stored in zip(growing.levels, store, strict=True):
        np.testing.assert_array_equal(level[:], stored[:])
    # napari keeps the coarsest level for ever: it must be ours to change.
    assert isinstance(growing.levels[-1], np.ndarray)
    kinds = [isinstance(level, np.ndarray) for level in growing.levels]
    assert kinds == sorted(kinds)


def test_a_continued_prediction_shows_what_is_there(tmp_path: Path) -> None:
    store = empty_store(tmp_path)
    first, second = tiles()[:2]
    write_levels(store, first.box, first.labels)
    growing = GrowingLevels.from_store(store)
    growing.put(second)
    write_levels(store, second.box, second.labels)
    for level, stored in zip(growing.levels, store, strict=True):
        np.testing.assert_array_equal(level[:], stored[:])


@pytest.fixture
def live(qtbot: Any, viewer: ViewerModel, tmp_path: Path) -> Any:
    image = viewer.add_image(np.zeros(SHAPE, np.uint8), scale=(0.5, 0.5), units="um")
    focused: list[Any] = []
    run = types.SimpleNamespace(focus=focused.append, focused=focused, stopped=False)
    model = ModelConfig(class_names=("dark", "bright"))
    levels = GrowingLevels.from_store(empty_store(tmp_path))
    made = LivePrediction(viewer, image, Output(run, model, levels), "prediction")
    yield made
    made.finish()


def test_tiles_reach_the_layer(qtbot: Any, live: LivePrediction) -> None:
    layer = live.layer
    assert layer.multiscale
    assert layer.dtype == np.uint8
    some = tiles()[:5]
    for tile in some:
        live.output.tiles.put(tile)
    y, x = some[-1].box[:2]
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


def test_a_moved_camera_moves_the_focus(qtbot: Any, live: LivePrediction) -> None:
    run, camera = live.output.run, live.viewer.scene.camera
    qtbot.waitUntil(lambda: len(run.focused) == 1)
    camera.zoom = 20
    for y in range(100, 200, 10):  # many events, one answer a tick
        camera.center = (0, y, 250)
    qtbot.waitUntil(lambda: len(run.focused) == 2)
    y0, x0, y1, x1 = run.focused[-1]
    assert y0 < 190 / 0.5 < y1
    assert x0 < 250 / 0.5 < x1


def test_a_layer_that_the_user_removed_is_left_alone(
    qtbot: Any, live: LivePrediction
) -> None:
    live.viewer.layers.remove(live.layer)
    live.output.tiles.put(tiles()[0])
    qtbot.waitUntil(live.output.tiles.empty)
