from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.masking import draw_mask, mask_from_hidden
from napari_muvit.core.model.patches import patchify

SIZE: dict[str, Any] = {
    "embed_dim": 32, "depth": 2, "num_heads": 2, "crop_size": 32, "mae_dim": 16,
    "scale_factors": (1, 4),
}  # fmt: skip


def example(
    ndim: int = 2, channels: int = 1, edge: int = 32
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 2, channels, *[edge] * ndim, generator=generator)
    lower = torch.tensor([[7.0] * ndim, [-20.0] * ndim]).expand(3, 2, ndim)
    extent = torch.tensor([float(edge), 4.0 * edge])[None, :, None]
    return x, torch.stack((lower, lower + extent), dim=2)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_the_papers() -> None:
    assert count(MuViTMAE(ModelConfig(scale_factors=(1,)))) == 26_445_024
    assert count(MuViTMAE(ModelConfig(scale_factors=(1, 8, 32)))) == 28_883_744


@pytest.mark.parametrize("shares", ["dirichlet", "uniform", "equal"])
@pytest.mark.parametrize("attention", ["joint", "coarse_to_fine", "within_level"])
def test_gradients_reach_every_parameter(shares: str, attention: str) -> None:
    torch.manual_seed(0)
    mae = MuViTMAE(ModelConfig(mask_shares=shares, attention=attention, **SIZE))
    mae(*example(), generator=torch.Generator().manual_seed(0)).loss.backward()
    dead = [n for n, p in mae.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize("context", ["visible", "all"])
@pytest.mark.parametrize("normalise", [False, True])
def test_the_loss_is_that_of_hidden_patches_alone(
    context: str, normalise: bool
) -> None:
    torch.manual_seed(0)
    mae = MuViTMAE(ModelConfig(mae_context=context, normalise_target=normalise, **SIZE))
    x, box = example()
    found = mae(x, box, draw_mask(3, 2, 16))
    target = patchify(x, (8, 8))
    if normalise:
        spread = target.std(dim=-1, keepdim=True) + 0.01
        target = (target - target.mean(dim=-1, keepdim=True)) / spread
    errors = (found.predicted - target).square().mean(dim=-1)
    hidden = found.mask.hidden.view(3, 2, 16)
    assert found.loss.item() == pytest.approx(errors[hidden].mean().item(), rel=1e-5)
    for level in range(2):
        alone = errors[:, level][hidden[:, level]].mean().item()
        assert found.level_losses[level].item() == pytest.approx(alone, rel=1e-5)
        for crop in range(3):
            alone = errors[crop, level][hidden[crop, level]].mean().item()
            mine = found.crop_losses[crop, level].item()
            assert mine == pytest.approx(alone, rel=1e-5, nan_ok=True)
    assert not found.crop_losses.requires_grad


@pytest.mark.parametrize("context", ["visible", "all"])
def test_hidden_pixels_do_not_leak(context: str) -> None:
    torch.manual_seed(0)
    mae = MuViTMAE(ModelConfig(mae_context=context, **SIZE)).eval()
    x, box = example()
    mask = draw_mask(3, 2, 16)
    hidden = mae.reconstruct(x, box, mask).hidden
    other = torch.where(hidden, torch.rand_like(x), x)
    first, second = mae(x, box, mask), mae(other, box, mask)
    assert torch.equal(first.predicted, second.predicted)
    assert not torch.equal(first.loss, second.loss)


def test_what_another_level_shows_changes_the_prediction() -> None:
    torch.manual_seed(0)
    mae = MuViTMAE(ModelConfig(**SIZE)).eval()
    x, box = example()
    mask = draw_mask(3, 2, 16, shares="equal")
    other = x.clone()
    other[:, 1] = other[:, 1].flip(-1)
    here, there = (mae(pixels, box, mask).predicted[:, 0] for pixels in (x, other))
    assert not torch.allclose(here, there, atol=1e-5)


def test_a_shift_of_the_world_changes_nothing() -> None:
    torch.manual_seed(0)
    mae = MuViTMAE(ModelConfig(**SIZE)).eval()
    x, box = example()
    mask = draw_mask(3, 2, 16)
    here = mae(x, box.double(), mask)
    assert torch.equal(here.predicted, mae(x, box.double() + 2**20, mask).predicted)


@pytest.mark.parametrize("ndim", [2, 3, 4])
def test_reconstruct_gives_pictures_of_each_level(ndim: int) -> None:
    torch.manual_seed(0)
    size = {**SIZE, "patch_size": 4, "crop_size": 8}
    mae = MuViTMAE(ModelConfig(ndim=ndim, in_channels=2, **size))
    x, box = example(ndim, 2, 8)
    found = mae.reconstruct(x, box, fill=-1.0)
    for picture in (found.reconstruction, found.masked_input, found.hidden):
        assert picture.shape == x.shape
    assert torch.equal(found.reconstruction[~found.hidden], x[~found.hidden])
    assert torch.equal(found.masked_input[~found.hidden], x[~found.hidden])
    assert (found.masked_input[found.hidden] == -1).all()
    assert not torch.equal(found.reconstruction[found.hidden], x[found.hidden])


@pytest.mark.parametrize("normalise", [False, True])
def test_overfits_one_batch(normalise: bool) -> None:
    torch.manual_seed(0)
    mae = MuViTMAE(ModelConfig(normalise_target=normalise, **SIZE))
    x, box = example()
    # Smooth pictures, so that half a second of training shows.
    x = x[..., ::8, ::8].repeat_interleave(8, -1).repeat_interleave(8, -2)
    x = x + 0.3 * torch.linspace(0, 1, 32)
    mask = draw_mask(3, 2, 16, shares="equal")
    optimiser = torch.optim.AdamW(mae.parameters(), lr=3e-3)
    for _ in range(150):
        loss = mae(x, box, mask).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < (0.05 if normalise else 0.005)
    found = mae.reconstruct(x, box, mask)
    error = (found.reconstruction - x)[found.hidden].square().mean().item()
    assert error < 0.01


def test_a_level_without_hidden_patches_has_no_loss() -> None:
    mae = MuViTMAE(ModelConfig(**SIZE))
    hidden = torch.zeros(3, 32, dtype=torch.bool)
    hidden[:, :10] = True
    found = mae(*example(), mask_from_hidden(hidden))
    assert math.isfinite(found.loss.item())
    assert math.isnan(found.level_losses[1].item())


def test_finite_in_bfloat16() -> None:
    torch.manual_seed(0)
    mae = MuViTMAE(ModelConfig(**SIZE))
    mask = draw_mask(3, 2, 16)
    exact = mae(*example(), mask).loss
    with torch.autocast("cpu", torch.bfloat16):
        rough = mae(*example(), mask).loss
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)


def test_wrong_widths_are_refused() -> None:
    with pytest.raises(ConfigError, match="mae_dim 15 is no multiple"):
        MuViTMAE(ModelConfig(**{**SIZE, "mae_dim": 15}))
    with pytest.raises(ConfigError, match="no multiple of the patch"):
        MuViTMAE(ModelConfig(**SIZE))(torch.rand(3, 2, 1, 30, 32), example()[1])
