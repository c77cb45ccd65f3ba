"""Coarse levels computed once: the answers of the whole model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.model.segmenter import MuViTSegmenter, build_model
from napari_muvit.core.model.shared_context import (
    compute_context,
    segment_within,
)


def make_model(**changes: Any) -> MuViTSegmenter:
    values: dict[str, Any] = {
        "decoder": "pyramid", "attention": "coarse_to_fine", "num_classes": 3,
        "scale_factors": (1, 4, 16), "crop_size": 32, "embed_dim": 48, "depth": 2,
        "num_heads": 2, "in_channels": 2, "level_embedding": True,
    }  # fmt: skip
    torch.manual_seed(0)
    model = build_model(ModelConfig(**(values | changes))).eval()
    for module in model.modules():
        # Running statistics of a trained network are not 0 and 1.
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def nested(config: ModelConfig, fine: int) -> tuple[Tensor, Tensor]:
    """``fine`` crops inside the same coarse crops: pixels and boxes."""
    torch.manual_seed(1)
    levels, edge = len(config.scale_factors), config.crop_size
    x = torch.randn(1, levels, config.in_channels, *[edge] * config.ndim)
    x = x.repeat(fine, *[1] * (x.ndim - 1))
    x[:, 0] = torch.randn_like(x[:, 0])
    boxes = torch.zeros(fine, levels, 2, config.ndim)
    for level, factor in enumerate(config.scale_factors):
        boxes[:, level, 0] = 1000.0
        boxes[:, level, 1] = boxes[:, level, 0] + edge * factor
    shift = torch.randint(0, edge, (fine, 1, config.ndim)).float()
    boxes[:, 0] += shift
    boxes[:, 1:-1] += 7.0
    return x, boxes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scale_factors": (1, 8)},
        {"level_embedding": False, "rotary_mode": "shared"},
        {"context_skip": False},
        {"level_heads": False},
        {"rotary_mode": "none"},
        {"rotary_position": "corner"},
        {"ndim": 3, "crop_size": 16, "scale_factors": (1, 2)},
        {"context_strides": (1, 8)},
        {"attention": "within_level"},
    ],
)
def test_it_is_what_the_whole_model_says(changes: dict[str, Any]) -> None:
    check_equal(make_model(**changes))


@pytest.mark.parametrize("level_heads", [False, True])
@pytest.mark.parametrize("context_skip", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 4},
        {"attention": "within_level"},
        {"scale_factors": (1, 8)},
        {"level_embedding": False, "rotary_mode": "shared"},
        {"level_embedding": False, "rotary_mode": "none"},
        {"rotary_mode": "fixed", "rotary_position": "corner"},
        {"ndim": 3, "crop_size": 16, "scale_factors": (1, 2)},
    ],
)
def test_with_the_unetr_decoder_too(
    changes: dict[str, Any], context_skip: bool, level_heads: bool
) -> None:
    skips = {"context_skip": context_skip, "level_heads": level_heads}
    check_equal(make_model(decoder="unetr", decoder_dim=16, **skips, **changes))


def check_equal(model: MuViTSegmenter) -> None:
    """Whether fine crops in shared context get the answers of the whole model."""
    x, boxes = nested(model.config, fine=3)
    with torch.inference_mode():
        expected = model.level_logits(x, boxes)
        context = compute_context(model, x[:1, 1:], boxes[:1, 1:])
        found = segment_within(model, x[:, 0], boxes[:, 0], [context] * 3)
    torch.testing.assert_close(found, expected[0], atol=1e-4, rtol=1e-4)
    assert len(context.logits) == len(expected) - 1
    for mine, theirs in zip(context.logits, expected[1:], strict=True):
        torch.testing.assert_close(mine, theirs[:1], atol=1e-4, rtol=1e-4)
    assert context.nbytes > 0


def test_crops_of_one_batch_may_have_different_contexts() -> None:
    model = make_model()
    x, boxes = nested(model.config, fine=2)
    x[1, 1:] = torch.randn_like(x[1, 1:])
    boxes[1] += 40_000_000.0
    boxes = boxes.double()
    with torch.inference_mode():
        expected = model(x, boxes)
        contexts = [
            compute_context(model, x[i : i + 1, 1:], boxes[i : i + 1, 1:])
            for i in range(2)
        ]
        found = segment_within(model, x[:, 0], boxes[:, 0], contexts)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": "joint"},
        {"decoder": "unetr", "attention": "joint"},
        {"decoder": "unetr", "attention": "fine_to_coarse"},
        {"decoder": "mask2former"},
        {"boxes": "naive"},
        {"scale_factors": (1,), "context_skip": False, "level_heads": False},
    ],
)
def test_models_whose_coarse_levels_see_the_fine_crop_are_refused(
    changes: dict[str, Any],
) -> None:
    model = make_model(**changes)
    assert not model.config.shares_context
    x, boxes = torch.zeros(1, 1, 2, 32, 32), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ConfigError, match="Context can be shared by models with"):
        compute_context(model, x, boxes)
