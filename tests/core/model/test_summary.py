from __future__ import annotations

from typing import Any

import pytest
import torch

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.model.summary import (
    encoder_cost,
    parameter_table,
    segmentation_cost,
)


def test_the_table_adds_up() -> None:
    rows = {row.part: row.parameters for row in parameter_table(ModelConfig())}
    assert rows["encoder"] == 25_313_664
    assert rows["encoder + MAE decoders"] == 28_883_744
    parts = ("patch and level embeddings", "transformer layers", "RoPE frequencies")
    assert sum(rows[part] for part in parts) == rows["encoder"]
    assert rows["encoder"] + rows["unetr decoder"] == rows["encoder + unetr decoder"]


def test_flops_of_the_encoder_are_those_of_its_products() -> None:
    config = ModelConfig(
        scale_factors=(1, 4), embed_dim=32, depth=3, num_heads=2, crop_size=32
    )
    tokens, dim = 32, 32
    projections = 4 * dim * dim + 2 * dim * 2 * dim
    layer = 2 * tokens * projections + 2 * 2 * tokens * tokens * dim
    embedding = 2 * tokens * 64 * dim
    assert encoder_cost(config).flops == 3 * layer + embedding


def test_activations_are_what_autograd_keeps() -> None:
    # Twice the layers keep twice as much, and no score of a token to a token.
    sizes = [
        encoder_cost(
            ModelConfig(scale_factors=(1, 8), embed_dim=64, depth=depth, crop_size=256)
        ).activation_bytes
        for depth in (2, 4, 6)
    ]
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], rel=0.01)
    tokens = 2 * 32 * 32
    per_token = (sizes[1] - sizes[0]) / 2 / tokens
    # Around twenty times the width in float32.
    assert 10 < per_token / 4 / 64 < 40


@pytest.mark.parametrize("decoder", ["unetr", "pyramid", "mask2former"])
def test_every_decoder_has_a_cost(decoder: str) -> None:
    small = ModelConfig(decoder=decoder, scale_factors=(1, 4), crop_size=64)
    cost = segmentation_cost(small)
    assert cost.flops > encoder_cost(small).flops > 0
    assert cost.activation_bytes > encoder_cost(small).activation_bytes > 0
    assert torch.get_default_device() == torch.device("cpu")


def kept_bytes(model: torch.nn.Module, *inputs: torch.Tensor) -> int:
    """What autograd keeps of a real forward pass by torch's own kernels."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    held = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held.append(tensor)  # so that its place is not used again
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model(*inputs)
    return sum(kept.values())


@pytest.mark.parametrize("attention", ["joint", "coarse_to_fine", "within_level"])
@pytest.mark.parametrize(
    ("levels", "crop", "dim"),
    [
        ((1,), 64, 32),  # as many tokens as a map is wide
        ((1, 4), 64, 128),  # as many tokens as a token is wide
        ((1, 4), 72, 32),
    ],
)
def test_activations_are_those_of_a_real_pass(
    attention: Any, levels: tuple[int, ...], crop: int, dim: int
) -> None:
    config = ModelConfig(
        scale_factors=levels, crop_size=crop, embed_dim=dim, depth=2, num_heads=2,
        decoder_dim=16, attention=attention,
    )  # fmt: skip
    model = build_model(config)
    x = torch.rand(1, len(levels), 1, crop, crop)
    boxes = torch.tensor([[[0.0, 0.0], [crop, crop]]] * len(levels))[None]
    boxes[:, :, 1] *= torch.tensor(levels)[:, None]
    real = kept_bytes(model, x, boxes)
    assert segmentation_cost(config).activation_bytes == pytest.approx(real, rel=0.1)
