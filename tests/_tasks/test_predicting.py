"""One slide by a real model: what is told, in which order, and the areas at the end."""

from __future__ import annotations

import queue
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_muvit._tasks.growing import Tile
from napari_muvit._tasks.predicting import Opened, PredictTask
from napari_muvit._tasks.previewing import Overview
from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.model.checkpoint import save_model
from napari_muvit.core.model.segmenter import build_model

SHAPE = (300, 260)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(
        decoder="pyramid", scale_factors=(1, 4), num_classes=3, crop_size=32,
        embed_dim=16, depth=1, num_heads=2, pyramid_channels=(8, 8, 8, 8),
        attention="coarse_to_fine", level_heads=True,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("model") / "m"
    save_model(build_model(config), folder)
    return folder


def task(model: Path, out: Path, **changes: Any) -> PredictTask:
    pixels = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
    image = open_pyramid(pixels, pixel_size=0.5)
    asked = {"tile_size": 128, "device": "cpu", "num_threads": 1, "overlap": 0.0}
    config = PredictionConfig(**(asked | changes))
    return PredictTask(image, model, config, [out], None)


def call(made: PredictTask, stop_at: int = 10**9) -> tuple[Any, list[Any]]:
    told: list[Any] = []
    commands: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def tell(said: Any) -> None:
        told.append(said)
        if stop_at < 10**9:
            time.sleep(0.06)  # should_stop is not asked more often

    try:
        end = made(
            on_progress=lambda _event: None, tell=tell, commands=commands,
            should_stop=lambda: sum(isinstance(t, Tile) for t in told) >= stop_at,
        )  # fmt: skip
    finally:
        commands.put(None)
    return end, told


def test_a_look_comes_first_and_areas_come_last(model: Path, tmp_path: Path) -> None:
    end, told = call(task(model, tmp_path / "p.zarr", preview=True))
    assert [type(said) for said in told] == [Opened, Overview, *[Tile] * 9]
    look = told[1]
    assert look.labels.shape == (75, 65)
    assert look.scale == (4, 4)
    assert not end.stopped
    assert sum(area.pixels for area in end.areas) == SHAPE[0] * SHAPE[1]
    assert sum(area.um2 for area in end.areas) == pytest.approx(SHAPE[0] * SHAPE[1] / 4)
    # Without a look the same tiles come.
    _, plain = call(task(model, tmp_path / "q.zarr"))
    assert [type(said) for said in plain] == [Opened, *[Tile] * 9]
    labels = {said.box: said.labels for said in plain[1:]}
    for said in told[2:]:
        np.testing.assert_array_equal(said.labels, labels.pop(said.box))


def test_what_is_told_is_what_is_kept_when_it_is_stopped(
    model: Path, tmp_path: Path
) -> None:
    made = task(model, tmp_path / "p.zarr")
    end, told = call(made, stop_at=2)
    assert end.stopped
    assert end.areas == ()
    stored = open_pyramid(end.path, as_labels=True).levels[0].source
    shown = np.zeros(SHAPE, np.uint8)
    for said in told[1:]:
        y0, x0, y1, x1 = said.box
        shown[y0:y1, x0:x1] = said.labels
    np.testing.assert_array_equal(shown, stored.read((0, 0), SHAPE)[0])
    assert np.count_nonzero(shown) < shown.size
    end, more = call(made)
    assert not end.stopped
    assert len(told) - 1 + len(more) - 1 == 9
    np.testing.assert_array_equal(np.asarray(more[0].levels.levels[0]) > 0, shown > 0)
