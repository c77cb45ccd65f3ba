"""Shared context: every crop lies in one, and the answers are the model's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.crops import estimate_normalisation, read_crop
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.geometry import Box, place_fine
from napari_muvit.core.model.segmenter import MuViTSegmenter, build_model
from napari_muvit.core.prediction import PredictionRun, plan_prediction, predict
from napari_muvit.core.prediction.canvases import Canvases
from napari_muvit.core.prediction.context_cache import ContextCache
from napari_muvit.core.prediction.contexts import ContextGrid
from napari_muvit.core.prediction.reader import ReadAhead

Build = Callable[..., Any]


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(20, 3000), st.integers(20, 3000)),
    crop=st.sampled_from([16, 64]),
    factors=st.sampled_from([(1, 4), (1, 8, 32), (1, 2), (1, 2.5, 7.3)]),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    shift=st.booleans(),
)
def test_a_crop_lies_inside_its_context(
    size: tuple[int, int],
    crop: int,
    factors: tuple[float, ...],
    place: tuple[float, float],
    shift: bool,
) -> None:
    extent = Box((0, 0), size)
    grid = ContextGrid(crop, factors, extent, shift)
    assert grid.stride >= 1
    where = [p * n for p, n in zip(place, size, strict=True)]
    fine = place_fine(where, (crop, crop), extent)
    index = grid.index_of(fine.centre)
    assert 0 <= index < grid.count
    assert grid.cell(index).contains(
        Box(fine.centre, tuple(v + 1e-9 for v in fine.centre))
    )
    boxes = grid.boxes(index)
    assert len(boxes) == len(factors) - 1
    inside = fine.intersection(extent)
    assert inside is not None
    for box, factor in zip(boxes, factors[1:], strict=True):
        assert box.shape == pytest.approx((crop * factor,) * 2)
        assert box.contains(inside, tolerance=1e-6)
        inside = box.intersection(extent)
    for axis in range(2):
        if size[axis] >= boxes[0].shape[axis]:
            assert boxes[0].lower[axis] >= -1e-6
            assert boxes[0].upper[axis] <= size[axis] + 1e-6


def make_model(**changes: Any) -> MuViTSegmenter:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "decoder": "pyramid", "attention": "coarse_to_fine", "num_classes": 3,
        "scale_factors": (1, 4, 8), "crop_size": 32, "embed_dim": 24, "depth": 2,
        "num_heads": 2, "normalisation": "percentile", "decoder_dim": 24,
    }  # fmt: skip
    model = build_model(ModelConfig(**(values | changes))).eval()
    levels = len(model.config.scale_factors)
    with torch.no_grad():
        x = torch.rand(2, levels, 1, 32, 32)
        boxes = torch.stack(
            [torch.tensor([[-f, -f], [f, f]]) for f in range(1, levels + 1)]
        )
        # So that every class wins somewhere.
        mean = model(x, boxes.mul(16.0).repeat(2, 1, 1, 1)).mean(dim=(0, 2, 3))
        model.decoder.levels[0].head.bias -= mean
    return model


def cpu(**changes: Any) -> PredictionConfig:
    values = {"tile_size": 64, "batch_size": 5, "device": "cpu", "num_threads": 1}
    return PredictionConfig(**(values | changes))


def collect(run: PredictionRun) -> np.ndarray:
    labels = np.zeros(run.plan.shape, np.uint8)
    for tile in run:
        y0, x0, y1, x1 = tile.box
        labels[y0:y1, x0:x1] = tile.labels
    return labels


@pytest.mark.parametrize(
    ("shape", "overlap", "changes"),
    [
        ((210, 333), 0.0, {}),
        ((210, 333), 0.25, {}),
        ((110, 170), 0.25, {"attention": "within_level"}),
        ((110, 170), 0.0, {"decoder": "unetr"}),
        ((110, 170), 0.25, {"decoder": "unetr", "context_skip": True}),
    ],
)
def test_labels_are_those_of_the_whole_model_on_the_same_boxes(
    slide: Build, shape: tuple[int, int], overlap: float, changes: dict[str, Any]
) -> None:
    pyramid, model = slide(shape), make_model(**changes)
    run = predict(pyramid, model, cpu(overlap=overlap))
    assert run.plan.contexts is not None
    found = collect(run)
    plan, normalisation = run.plan, estimate_normalisation(pyramid, "percentile")
    canvases = Canvases(plan, np.ones(plan.num_tiles, bool), 3, torch.device("cpu"))
    expected = np.zeros(plan.shape, np.uint8)
    for index in range(plan.num_crops):
        crop = plan.crop(index)
        pixels = read_crop(pyramid, crop.padded, model.config, normalisation)
        boxes = torch.from_numpy(crop.padded.as_array()).float()
        with torch.inference_mode():
            logits = model.eval()(torch.from_numpy(pixels)[None], boxes[None])
            for filled in canvases.add([crop], logits):
                y0, x0, y1, x1 = filled.tile.box
                expected[y0:y1, x0:x1] = filled.labels
    assert len(np.unique(expected)) == 3
    assert (found != expected).mean() < 1e-4


def test_a_region_and_a_focus_change_no_pixel(slide: Build) -> None:
    pyramid, model = slide((210, 333)), make_model()
    expected = collect(predict(pyramid, model, cpu()))
    run = predict(pyramid, model, cpu())
    run.focus((180, 300, 200, 320))
    assert (collect(run) == expected).all()
    part = predict(pyramid, model, cpu(region=(70, 130, 80, 140)))
    assert (collect(part)[64:128, 128:192] == expected[64:128, 128:192]).all()


def test_who_shares(slide: Build) -> None:
    pyramid = slide((100, 100))
    joint = make_model(attention="joint")
    assert predict(pyramid, joint, cpu()).plan.contexts is None
    assert predict(pyramid, make_model(), cpu(context="own")).plan.contexts is None
    with pytest.raises(ConfigError, match="cannot share context"):
        predict(pyramid, joint, cpu(context="shared"))
    near = make_model(scale_factors=(1, 1.02))
    assert plan_prediction(pyramid, near.config, cpu()).contexts is None


class Counted:
    nbytes = 100


def test_the_cache_keeps_what_was_used_last() -> None:
    cache = ContextCache(lambda _index: Counted(), budget=1000)  # type: ignore[arg-type, return-value]
    for index in range(10):
        cache.get(index)
    cache.get(0)
    assert cache.computed == 10
    cache.get(10)
    cache.get(0)
    assert cache.computed == 11
    cache.get(1)
    assert cache.computed == 12


def test_what_is_read_ahead_is_read_once_and_bounded() -> None:
    ahead, pixels = ReadAhead(most=2), np.zeros(1, np.float32)
    assert ahead.wants(3)
    assert not ahead.wants(3)
    for index in (3, 4, 5):
        ahead.put(index, pixels)
    assert ahead.take(3) is None
    assert ahead.take(4) is pixels
    assert ahead.take(4) is None
