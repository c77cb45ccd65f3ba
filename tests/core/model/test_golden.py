"""Statistics of each part with given weights and input.

A change here is a change of what stored weights mean, and needs a new format version.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.model.encoder import MuViTEncoder
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.masking import mask_from_hidden
from napari_muvit.core.model.segmenter import build_model

SIZE: dict[str, Any] = {
    "scale_factors": (1, 4), "embed_dim": 32, "depth": 3, "num_heads": 2,
    "crop_size": 32, "decoder_dim": 16, "mae_dim": 16, "num_classes": 3,
    "pyramid_channels": (8, 8, 16, 16),
}  # fmt: skip
BOX = torch.tensor([[[48.0, 40.0], [80.0, 72.0]], [[0.0, 0.0], [128.0, 128.0]]])


def filled(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Give a module weights that do not depend on how it is initialised."""
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.2)
    return module.eval()


def answer(part: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x, box = torch.rand(2, 2, 1, 32, 32, generator=generator), BOX.expand(2, -1, -1, -1)
    with torch.no_grad():
        if part == "encoder":
            return filled(MuViTEncoder(ModelConfig(**SIZE)), generator)(x, box)
        if part == "mae":
            hidden = (torch.arange(32) % 4 > 0).expand(2, -1)
            mae = filled(MuViTMAE(ModelConfig(**SIZE)), generator)
            return mae(x, box, mask_from_hidden(hidden)).predicted
        config = ModelConfig(decoder=part, **SIZE)
        return filled(build_model(config), generator)(x, box)


GOLDEN: dict[str, tuple[float, float, float]] = {
    "encoder": (-0.1461, 1.1300, -0.1011),
    "mae": (0.0212, 0.4565, -0.4604),
    "unetr": (-0.2049, 0.1242, -0.3422),
    "mask2former": (0.1781, 0.1591, 0.1781),
    "pyramid": (-0.1351, 0.2682, 0.2368),
}
"""Mean, standard deviation and one value."""


@pytest.mark.parametrize("part", GOLDEN)
def test_golden_statistics(part: str) -> None:
    found = answer(part)
    statistics = (found.mean(), found.std(), found.flatten()[777])
    assert [float(v) for v in statistics] == pytest.approx(
        GOLDEN[part], abs=2e-3, rel=2e-3
    )
