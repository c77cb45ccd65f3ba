from __future__ import annotations

import pytest
import torch

from napari_muvit.core.config import ModelConfig
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
    assert cost.training_bytes(2) - cost.training_bytes(1) == cost.activation_bytes
    assert torch.get_default_device() == torch.device("cpu")
