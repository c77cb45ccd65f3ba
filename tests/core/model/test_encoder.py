from __future__ import annotations

import pytest
import torch

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.model.encoder import MuViTEncoder
from napari_muvit.core.model.patches import patchify

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "crop_size": 32}


def boxes(*levels: tuple[float, float], batch: int = 2) -> torch.Tensor:
    """Square boxes (lower, extent), a level each."""
    rows = [[[lo, lo], [lo + size, lo + size]] for lo, size in levels]
    return torch.tensor([rows] * batch)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_the_papers() -> None:
    assert count(MuViTEncoder(ModelConfig(scale_factors=(1,)))) == 25_244_032
    assert count(MuViTEncoder(ModelConfig(scale_factors=(1, 8, 32)))) == 25_313_664


def test_patchify_is_row_major_and_keeps_every_pixel() -> None:
    x = torch.arange(2 * 3 * 16 * 24).reshape(1, 2, 3, 16, 24)
    patches = patchify(x, (8, 8))
    assert patches.shape == (1, 2, 6, 3 * 64)
    assert torch.equal(patches[0, 1, 4].view(3, 8, 8), x[0, 1, :, 8:16, 8:16])


@pytest.mark.parametrize("mode", ["per_layer", "shared", "fixed"])
@pytest.mark.parametrize("attention", ["joint", "coarse_to_fine"])
def test_a_shift_of_the_world_changes_nothing(mode: str, attention: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        scale_factors=(1, 4), rotary_mode=mode, attention=attention, **TINY
    )
    encoder = MuViTEncoder(config).eval()
    x = torch.rand(2, 2, 1, 32, 32)
    box = boxes((48.0, 32.0), (0.0, 128.0)).double()
    here = encoder(x, box)
    assert torch.equal(here, encoder(x, box + 2**20))
    assert torch.allclose(here, encoder(x, box + 1e6 / 3), atol=1e-5)


def test_a_change_of_relative_place_does_change_the_tokens() -> None:
    torch.manual_seed(0)
    encoder = MuViTEncoder(ModelConfig(scale_factors=(1, 4), **TINY)).eval()
    x = torch.rand(2, 2, 1, 32, 32)
    here = encoder(x, boxes((48.0, 32.0), (0.0, 128.0)))
    there = encoder(x, boxes((80.0, 32.0), (0.0, 128.0)))
    assert not torch.allclose(here, there, atol=1e-3)


def test_coarse_tokens_ignore_the_fine_crop_when_coarse_to_fine() -> None:
    torch.manual_seed(0)
    config = ModelConfig(scale_factors=(1, 4), attention="coarse_to_fine", **TINY)
    encoder = MuViTEncoder(config).eval()
    x = torch.rand(1, 2, 1, 32, 32)
    box = boxes((48.0, 32.0), (0.0, 128.0), batch=1)
    other = x.clone()
    other[:, 0] = torch.rand(1, 1, 32, 32)
    first, second = (
        encoder.compute_features(x, box),
        encoder.compute_features(other, box),
    )
    assert torch.equal(first[:, 1], second[:, 1])
    assert not torch.allclose(first[:, 0], second[:, 0], atol=1e-3)


@pytest.mark.parametrize("ndim", [2, 3, 4])
def test_one_class_serves_every_number_of_axes(ndim: int) -> None:
    config = ModelConfig(
        ndim=ndim, scale_factors=(1, 2), in_channels=2, embed_dim=32, depth=1,
        num_heads=2, patch_size=4, crop_size=8,
    )  # fmt: skip
    box = torch.tensor([[[[0.0] * ndim, [8.0] * ndim], [[0.0] * ndim, [16.0] * ndim]]])
    tokens = MuViTEncoder(config)(torch.rand(1, 2, 2, *[8] * ndim), box)
    assert tokens.shape == (1, 2 * 2**ndim, 32)


def test_wrong_input_is_named() -> None:
    encoder = MuViTEncoder(ModelConfig(scale_factors=(1, 4), **TINY))
    good = boxes((0.0, 32.0), (0.0, 128.0))
    with pytest.raises(ConfigError, match="2 levels, 1 channels"):
        encoder(torch.rand(2, 3, 1, 32, 32), good)
    with pytest.raises(ConfigError, match="no multiple of the patch"):
        encoder(torch.rand(2, 2, 1, 30, 32), good)
    with pytest.raises(ConfigError, match="Boxes of shape"):
        encoder(torch.rand(2, 2, 1, 32, 32), good[:1])
    with pytest.raises(ConfigError, match="lower edge above"):
        encoder(torch.rand(2, 2, 1, 32, 32), good.flip(2))
    with pytest.raises(ConfigError, match="not finite"):
        encoder(torch.rand(2, 2, 1, 32, 32), good * torch.nan)
