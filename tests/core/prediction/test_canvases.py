"""What becomes of the logits: the same sums in any order, on disk or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.arrays import ArraySource
from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel
from napari_muvit.core.prediction.canvases import Canvases
from napari_muvit.core.prediction.plan import PredictionPlan, plan_prediction

CPU = torch.device("cpu")
K = 3


def make_plan(shape: tuple[int, int] = (150, 203), **changes: Any) -> PredictionPlan:
    array = np.broadcast_to(np.zeros((), np.uint8), shape)
    level = PyramidLevel(ArraySource(array, axes="yx"), (1.0, 1.0), (0.0, 0.0))
    values = {"tile_size": 64, "overlap": 0.3, "device": "cpu"}
    return plan_prediction(
        Pyramid((level,)),
        ModelConfig(scale_factors=(1,), crop_size=48, patch_size=8, num_classes=K),
        PredictionConfig(**(values | changes)),
    )


def logits_of(plan: PredictionPlan, seed: int = 0) -> Tensor:
    """One answer a crop."""
    generator = torch.Generator().manual_seed(seed)
    edge = plan.crop_size
    return torch.randn(plan.num_crops, K, edge, edge, generator=generator) * 5


def fill(
    plan: PredictionPlan, logits: Tensor, order: Any, batch: int = 1, **changes: Any
) -> np.ndarray:
    """All tiles in one array; each came once."""
    wanted = np.ones(plan.num_tiles, bool)
    canvases = Canvases(plan, wanted, K, CPU, **changes)
    labels = np.full(plan.shape, 255, np.uint8)
    order = list(order)
    for first in range(0, len(order), batch):
        numbers = order[first : first + batch]
        crops = [plan.crop(n) for n in numbers]
        for filled in canvases.add(crops, logits[numbers]):
            y0, x0, y1, x1 = filled.tile.box
            assert (labels[y0:y1, x0:x1] == 255).all()
            labels[y0:y1, x0:x1] = filled.labels
    canvases.close()
    assert (labels != 255).all()
    return labels


def expected(plan: PredictionPlan, logits: Tensor) -> np.ndarray:
    """The weighted mean over the whole slide, in float64."""
    mean = np.zeros((K, *plan.shape))
    for index in range(plan.num_crops):
        crop = plan.crop(index)
        row, column = divmod(index, plan.axes[1].count)
        shares = np.outer(plan.axes[0].weights(row), plan.axes[1].weights(column))
        (y0, y1), (x0, x1) = crop.window
        seen = logits[index].double().numpy()[(slice(None), *crop.inside)]
        mean[:, y0:y1, x0:x1] += seen * shares
    return np.asarray(mean)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.7])
def test_labels_are_those_of_the_weighted_mean(overlap: float) -> None:
    plan = make_plan(overlap=overlap)
    logits = logits_of(plan)
    labels = fill(plan, logits, range(plan.num_crops))
    mean = np.sort(expected(plan, logits), axis=0)
    clear = mean[-1] - mean[-2] > 1e-4
    best = expected(plan, logits).argmax(axis=0) + 1
    assert clear.mean() > 0.99
    assert (labels[clear] == best[clear]).all()


@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_the_order_of_the_crops_and_their_batches_do_not_matter(overlap: float) -> None:
    plan = make_plan(overlap=overlap)
    # Many near ties: float sums would come out one way or the other.
    logits = logits_of(plan).round() * 0.1
    first = fill(plan, logits, range(plan.num_crops))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(plan.num_crops)
        assert (fill(plan, logits, order, batch=seed + 1) == first).all()


def test_a_narrow_tile_that_was_touched_longest_ago_does_not_hide_the_others() -> None:
    # The budget was once taken to hold as many tiles as it holds of the oldest one.
    plan = make_plan((600, 260))
    logits = logits_of(plan)
    budget = 4 * K * 64 * 64 * 4
    wanted = np.ones(plan.num_tiles, bool)
    wanted[plan.grid[1] - 2] = False
    canvases = Canvases(plan, wanted, K, CPU, budget, least=1)
    corners = [row * plan.axes[1].count for row in range(plan.axes[0].count)]
    narrow = plan.axes[1].count - 1
    for number in (narrow, *corners):
        list(canvases.add([plan.crop(number)], logits[[number]]))
        held = sum(c.arrays["sums"].nbytes for c in canvases._open.values())
        # The newest one is never put away.
        assert held <= budget + K * 64 * 64 * 4
    canvases.close()


def test_what_does_not_fit_into_the_budget_goes_to_disk_and_comes_back() -> None:
    plan = make_plan()
    logits = logits_of(plan)
    logits[7, :, 20, 20] = torch.nan
    order = np.random.default_rng(0).permutation(plan.num_crops)
    expected_ = fill(plan, logits, order)
    assert (fill(plan, logits, order, budget=100_000, least=2) == expected_).all()
    assert (fill(plan, logits, order, budget=0, least=1) == expected_).all()
    assert (expected_ == 0).sum() == 1


@pytest.mark.parametrize("overlap", [0.0, 0.3])
def test_an_answer_that_is_not_a_number_is_label_zero(overlap: float) -> None:
    plan = make_plan(overlap=overlap)
    logits = logits_of(plan)
    logits[0] = torch.inf
    logits[3, 1] = torch.nan
    labels = fill(plan, logits, range(plan.num_crops))
    bad = np.zeros(plan.shape, bool)
    for index in (0, 3):
        (y0, y1), (x0, x1) = plan.crop(index).window
        bad[y0:y1, x0:x1] = True
    assert ((labels == 0) == bad).all()


def test_huge_logits_do_not_overflow() -> None:
    plan = make_plan()
    logits = torch.full_like(logits_of(plan), -1e30)
    logits[:, 1] = 1e30
    assert (fill(plan, logits, range(plan.num_crops)) == 2).all()


def test_a_crop_that_is_lost_takes_its_tiles_with_it() -> None:
    plan = make_plan()
    canvases = Canvases(plan, np.ones(plan.num_tiles, bool), K, CPU)
    logits = logits_of(plan)
    lost = plan.crop(0)
    done: list[int] = []
    gone: list[int] = []
    for number in range(plan.num_crops):
        if number == 0:
            gone = [tile.index for tile in canvases.skip(lost)]
            continue
        done += [
            f.tile.index
            for f in canvases.add([plan.crop(number)], logits[number : number + 1])
        ]
    assert gone == [0]
    assert sorted(done) == list(range(1, plan.num_tiles))


BOTH = ("probabilities", "confidence")


def fill_all(
    plan: PredictionPlan, logits: Tensor, order: Any, **changes: Any
) -> dict[str, np.ndarray]:
    """All outputs of all tiles, each in one array."""
    classes = logits.shape[1]
    canvases = Canvases(
        plan, np.ones(plan.num_tiles, bool), classes, CPU, outputs=BOTH, **changes
    )
    found = {
        "labels": np.zeros(plan.shape, np.uint8),
        "probabilities": np.zeros((classes, *plan.shape), np.uint8),
        "confidence": np.zeros(plan.shape, np.uint8),
    }
    for number in order:
        for filled in canvases.add([plan.crop(number)], logits[number : number + 1]):
            y0, x0, y1, x1 = filled.tile.box
            for name, pixels in filled.images.items():
                assert pixels.dtype == np.uint8
                found[name][..., y0:y1, x0:x1] = pixels
    canvases.close()
    return found


@settings(max_examples=6, deadline=None)
@given(overlap=st.sampled_from([0.0, 0.25, 0.6]), seed=st.integers(0, 9))
def test_probabilities_are_the_softmax_of_the_mean(overlap: float, seed: int) -> None:
    plan = make_plan((90, 131), overlap=overlap)
    logits = logits_of(plan, seed)
    found = fill_all(plan, logits, range(plan.num_crops))
    mean = expected(plan, logits)
    shares = np.exp(mean - mean.max(axis=0))
    shares *= 255 / shares.sum(axis=0)
    # Half a step, and what fixed point is off by.
    assert np.abs(found["probabilities"] - shares).max() < 0.501
    assert (found["confidence"] == found["probabilities"].max(axis=0)).all()
    clear = found["confidence"] > 130
    assert (found["labels"] == found["probabilities"].argmax(axis=0) + 1)[clear].all()


@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_outputs_depend_neither_on_order_nor_on_disk_nor_on_each_other(
    overlap: float,
) -> None:
    plan = make_plan((90, 131), overlap=overlap)
    logits = logits_of(plan)
    logits[2, :, 20, 20] = torch.nan
    first = fill_all(plan, logits, range(plan.num_crops))
    order = np.random.default_rng(1).permutation(plan.num_crops)
    again = fill_all(plan, logits, order, budget=0, least=1)
    assert all((again[name] == first[name]).all() for name in first)
    labels = fill(plan, logits, order)
    assert (labels == first["labels"]).all()
    # Not a number: 0 in all of them, and nowhere else.
    missing = first["labels"] == 0
    assert missing.sum() == 1
    assert ((first["confidence"] == 0) == missing).all()
    assert ((first["probabilities"] == 0).all(axis=0) == missing).all()


@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_a_single_class_is_certain(overlap: float) -> None:
    plan = make_plan((60, 70), overlap=overlap)
    found = fill_all(plan, logits_of(plan)[:, :1], range(plan.num_crops))
    assert (found["probabilities"] == 255).all()
    assert (found["confidence"] == 255).all()
    assert (found["labels"] == 1).all()
