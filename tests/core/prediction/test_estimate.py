"""What a prediction will cost: what is measured, and arithmetic on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.arrays import ArraySource
from napari_muvit.core.data.cache_settings import CacheSettings
from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel
from napari_muvit.core.errors import Cancelled
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.prediction import plan_prediction, speed
from napari_muvit.core.prediction.blocks import count_work
from napari_muvit.core.prediction.estimate import (
    PredictionEstimate,
    estimate_prediction,
)
from napari_muvit.core.prediction.speed import (
    PredictionSpeed,
    lacking_pixels,
    measure_speed,
)

SPEED = PredictionSpeed(
    batch_seconds=2.0, context_seconds=0.5, pixel_seconds=1e-6, begin_seconds=3.0,
    idle_bytes=400_000_000, batch_bytes=100_000_000, context_bytes=1_000_000,
    on_gpu=False,
)  # fmt: skip
MODEL = ModelConfig(
    decoder="pyramid", attention="coarse_to_fine", scale_factors=(1, 4), num_classes=3,
    crop_size=32, embed_dim=16, depth=1, num_heads=2, decoder_dim=16,
    normalisation="none",
)  # fmt: skip


def cpu(**changes: Any) -> PredictionConfig:
    values = {"tile_size": 64, "batch_size": 4, "device": "cpu", "num_threads": 1}
    return PredictionConfig(**(values | changes))


def flat(shape: tuple[int, int]) -> Pyramid:
    array = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    level = PyramidLevel(ArraySource(array, axes="yx"), (1.0, 1.0), (0.0, 0.0))
    return Pyramid((level,))


def estimated(config: PredictionConfig, **changes: Any) -> PredictionEstimate:
    pyramid = flat((300, 400))
    plan = plan_prediction(pyramid, MODEL, config)
    return estimate_prediction(pyramid, MODEL, config, plan, SPEED, **changes)


def test_seconds_are_those_of_batches_and_contexts() -> None:
    found = estimated(cpu())
    plan = plan_prediction(flat((300, 400)), MODEL, cpu())
    tiles, crops, contexts = count_work(plan)
    assert (found.tiles, found.crops, found.contexts) == (tiles, crops, contexts)
    assert found.batches == -(-crops // 4)
    assert found.seconds == pytest.approx(3 + 2 * found.batches + 0.5 * contexts)
    part = estimated(cpu(region=(0, 0, 64, 64)))
    assert part.tiles == 1
    assert part.seconds < found.seconds / 4
    halves = [estimated(cpu(shard=(i, 2))) for i in range(2)]
    assert sum(half.tiles for half in halves) == tiles


def test_several_processes_share_the_work_and_each_takes_its_memory() -> None:
    one, four = estimated(cpu()), estimated(cpu(workers=4), workers=4)
    # Borders of blocks are done twice.
    assert (one.seconds - 3) / 4 < four.seconds - 3 < 1.2 * (one.seconds - 3) / 4
    assert 4 * SPEED.idle_bytes < four.bytes < 5 * one.bytes


def test_a_gpu_holds_passes_and_contexts() -> None:
    pyramid, config = flat((300, 400)), cpu()
    plan = plan_prediction(pyramid, MODEL, config)
    on_gpu = dataclasses.replace(SPEED, on_gpu=True)
    here = estimate_prediction(pyramid, MODEL, config, plan, SPEED)
    there = estimate_prediction(pyramid, MODEL, config, plan, on_gpu)
    assert here.gpu_bytes == 0
    assert there.gpu_bytes > SPEED.batch_bytes
    assert here.bytes == there.bytes + there.gpu_bytes
    assert there.words.endswith(" of a GPU's")


def test_memory_does_not_grow_with_the_slide() -> None:
    array = np.broadcast_to(np.zeros((), np.uint8), (40_000, 40_000))
    found = []
    for edge in (20_000, 40_000):
        source = ArraySource(array[:edge, :edge], axes="yx")
        pyramid = Pyramid((PyramidLevel(source, (1.0, 1.0), (0.0, 0.0)),))
        config = cpu(tile_size=512, region=(0, 0, 600, 600))
        plan = plan_prediction(pyramid, MODEL, config)
        found.append(estimate_prediction(pyramid, MODEL, config, plan, SPEED).bytes)
    assert found[1] < 1.1 * found[0]


def test_outputs_without_overlap_take_room() -> None:
    labels = estimated(cpu(overlap=0.0))
    both = estimated(cpu(overlap=0.0, outputs=("probabilities", "confidence")))
    # Three planes and one more, of each open tile: along the edge of 5 x 7.
    assert both.bytes - labels.bytes == 14 * 4 * 64 * 64


def test_slides_one_after_the_other_add_up() -> None:
    one, other = estimated(cpu()), estimated(cpu(overlap=0))
    both = one + other
    assert both.seconds == one.seconds + other.seconds
    assert both.crops == one.crops + other.crops
    assert both.bytes == max(one.bytes, other.bytes)


@pytest.mark.parametrize(
    ("seconds", "count", "words"),
    [
        (0.2, 4e8, "about 1 s and 400 MB of memory"),
        (89, 1.34e9, "about 89 s and 1.3 GB of memory"),
        (700, 2e9, "about 12 min and 2.0 GB of memory"),
        (9000, 2e9, "about 2.5 h and 2.0 GB of memory"),
        (90000, 2e9, "about 25 h and 2.0 GB of memory"),
    ],
)
def test_words(seconds: float, count: float, words: str) -> None:
    found = PredictionEstimate(
        tiles=1, crops=1, contexts=0, batches=1, seconds=seconds, bytes=int(count),
        gpu_bytes=0,
    )  # fmt: skip
    assert found.words == words


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "QUICK_SECONDS", 0.1)


@pytest.mark.parametrize("context", ["shared", "own"])
def test_what_is_measured(context: str, quick: None) -> None:
    torch.manual_seed(0)
    pyramid, model = flat((200, 260)), build_model(MODEL)
    config = cpu(context=context, average="flips", region=(0, 0, 100, 100))
    plan = plan_prediction(pyramid, MODEL, config)
    found = measure_speed(pyramid, [model], config, plan)
    assert found.batch_seconds > 0
    assert found.begin_seconds > 0
    assert found.pixel_seconds > 0
    assert (found.context_seconds > 0) == (found.context_bytes > 0) == (
        context == "shared"
    )  # fmt: skip
    # Pixels of four crops, float32, and more.
    assert found.batch_bytes > 4 * 32 * 32 * 4
    assert found.idle_bytes > 10**8
    assert not found.on_gpu


def test_a_slower_model_is_seen(quick: None) -> None:
    from .conftest import IdentityModel

    class Slow(IdentityModel):
        pause = 0.0

        def forward(self, x: Any, bboxes: Any) -> Any:
            import time

            time.sleep(self.pause * len(x))
            return super().forward(x, bboxes)

    config = dataclasses.replace(MODEL, attention="joint")
    pyramid, model = flat((200, 260)), Slow(config)
    plan = plan_prediction(pyramid, config, cpu(context="own"))
    model.pause = 0.05
    found = measure_speed(pyramid, [model], cpu(context="own"), plan)
    assert 0.2 < found.batch_seconds < 2.0


def test_a_look_makes_no_preview(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_muvit.core.prediction import run

    def refuse(*_args: Any) -> None:
        raise AssertionError("nobody asked for a preview")

    monkeypatch.setattr(run, "paint", refuse)
    model_config = dataclasses.replace(MODEL, level_heads=True)
    pyramid, model = flat((200, 260)), build_model(model_config)
    plan = plan_prediction(pyramid, model_config, cpu(preview=True))
    assert not plan.notes
    found = measure_speed(pyramid, [model], cpu(preview=True), plan)
    assert found.batch_seconds > 0


def test_a_look_can_be_stopped(quick: None) -> None:
    pyramid, model = flat((200, 260)), build_model(MODEL)
    plan = plan_prediction(pyramid, MODEL, cpu())
    with pytest.raises(Cancelled):
        measure_speed(pyramid, [model], cpu(), plan, should_stop=lambda: True)


def test_levels_that_a_flat_slide_lacks_are_counted_once(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_muvit.core.data import level_cache
    from napari_muvit.core.data.open import open_pyramid

    monkeypatch.setattr(level_cache, "DEAR_PIXELS", 1)
    monkeypatch.setattr(level_cache, "DEAR_AVERAGE", 2)
    array = zarr.create_array(
        tmp_path / "flat.zarr", shape=(400, 500), chunks=(64, 64), dtype="uint8"
    )
    array[:] = 7
    pyramid = open_pyramid(tmp_path / "flat.zarr")
    cache = CacheSettings(folder=tmp_path / "cache")
    plan = plan_prediction(pyramid, MODEL, cpu())
    assert lacking_pixels(pyramid, plan, cache) == 400 * 500
    # Empty levels stand in for them, and nothing is kept.
    found = measure_speed(pyramid, [build_model(MODEL)], cpu(), plan, cache=cache)
    assert not (tmp_path / "cache").exists()
    with_levels = estimate_prediction(
        pyramid, MODEL, cpu(), plan, found, cache=cache
    ).seconds
    level_cache.with_coarse_levels(pyramid, MODEL.scale_factors, cache=cache)
    assert lacking_pixels(pyramid, plan, cache) == 0
    without = estimate_prediction(pyramid, MODEL, cpu(), plan, found, cache=cache)
    assert with_levels - without.seconds == pytest.approx(200_000 * found.pixel_seconds)
