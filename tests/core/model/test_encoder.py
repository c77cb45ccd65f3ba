from __future__ import annotations

import dataclasses

import pytest
import torch

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.model.encoder import MuViTEncoder
from napari_muvit.core.model.patches import patchify, unpatchify

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


def test_levels_of_a_pretrained_encoder_keep_their_weights() -> None:
    torch.manual_seed(0)
    whole = MuViTEncoder(ModelConfig(scale_factors=(1, 2, 4, 16), **TINY)).eval()
    part = whole.extract_levels((1, 4))
    assert part.config.scale_factors == (1, 4)
    assert not part.training
    assert whole.level_embedding is not None
    assert part.level_embedding is not None
    assert torch.equal(part.level_embedding, whole.level_embedding[[0, 2]])
    # Where no level sees another one, the levels that stay say what they said.
    for encoder in (whole, part):
        encoder.config = dataclasses.replace(encoder.config, attention="within_level")
    x = torch.rand(1, 4, 1, 32, 32)
    box = boxes((48.0, 32.0), (30.0, 64.0), (0.0, 128.0), (-99.0, 512.0), batch=1)
    kept = part.compute_features(x[:, [0, 2]], box[:, [0, 2]])
    assert torch.allclose(kept, whole.compute_features(x, box)[:, [0, 2]], atol=1e-6)
    # A copy: training the part leaves the whole alone.
    with torch.no_grad():
        part.patch_embeddings[0][0].weight.zero_()
    assert whole.patch_embeddings[0][0].weight.any()
    with pytest.raises(ConfigError, match="levels 8 were asked for; this model has 1"):
        whole.extract_levels((1, 8))


@pytest.mark.parametrize(
    ("attention", "changed", "unchanged"),
    [
        ("coarse_to_fine", 0, (1, 2)),
        ("fine_to_coarse", 2, (0, 1)),
        ("within_level", 1, (0, 2)),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_who_sees_whom(
    attention: str, changed: int, unchanged: tuple[int, ...], masked: bool
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(scale_factors=(1, 2, 4), attention=attention, **TINY)
    encoder = MuViTEncoder(config).eval()
    x = torch.rand(1, 3, 1, 32, 32)
    box = boxes((48.0, 32.0), (40.0, 64.0), (0.0, 128.0), batch=1)
    other = x.clone()
    other[:, changed] = torch.rand(1, 1, 32, 32)
    # Masked: as the autoencoder runs it, here with all tokens but one of each level.
    visible = torch.tensor([[t for t in range(48) if t % 16 != 3]])

    def tokens(pixels: torch.Tensor) -> torch.Tensor:
        if not masked:
            return encoder(pixels, box).unflatten(1, (3, 16))
        patches = patchify(pixels, (8, 8))
        positions = encoder.positions(box, (4, 4))
        found = encoder.encode_visible(patches, positions, visible)
        return found.unflatten(1, (3, 15))

    first, second = tokens(x), tokens(other)
    for level in unchanged:
        assert torch.equal(first[:, level], second[:, level])
    assert not torch.allclose(first[:, changed], second[:, changed], atol=1e-3)
    joint = MuViTEncoder(dataclasses.replace(config, attention="joint")).eval()
    joint.load_state_dict(encoder.state_dict())
    assert not torch.allclose(joint(x, box), joint(other, box), atol=1e-3)


def test_masking_nothing_is_the_whole_encoder() -> None:
    torch.manual_seed(0)
    for attention in ("joint", "coarse_to_fine", "fine_to_coarse", "within_level"):
        config = ModelConfig(scale_factors=(1, 4), attention=attention, **TINY)
        encoder = MuViTEncoder(config).eval()
        x, box = torch.rand(2, 2, 1, 32, 32), boxes((48.0, 32.0), (0.0, 128.0))
        visible = torch.arange(32).expand(2, -1)
        positions = encoder.positions(box, (4, 4))
        all_of_them = encoder.encode_visible(patchify(x, (8, 8)), positions, visible)
        assert torch.allclose(all_of_them, encoder(x, box), atol=1e-5)


def test_disjoint_boxes_and_any_crop_that_is_a_multiple_of_the_patch() -> None:
    torch.manual_seed(0)
    encoder = MuViTEncoder(ModelConfig(scale_factors=(0.5, 3.7), **TINY))
    box = torch.tensor([[[[0.0, 9.0], [8.0, 21.0]], [[500.0, -300.0], [590.0, 0.0]]]])
    features = encoder.compute_features(torch.rand(1, 2, 1, 16, 24), box)
    assert features.shape == (1, 2, 32, 2, 3)
    assert torch.isfinite(features).all()


def test_patches_of_another_edge_along_each_axis() -> None:
    config = ModelConfig(
        ndim=3, scale_factors=(1, 2), patch_size=(2, 4, 8), crop_size=16, embed_dim=32,
        depth=1, num_heads=2,
    )  # fmt: skip
    box = torch.zeros(1, 2, 2, 3)
    box[:, :, 1] = torch.tensor([6.0, 8.0, 24.0])
    features = MuViTEncoder(config).compute_features(torch.rand(1, 2, 1, 6, 8, 24), box)
    assert features.shape == (1, 2, 32, 3, 2, 3)
    with pytest.raises(ConfigError, match=r"6 x 8 x 20 pixels is no multiple"):
        MuViTEncoder(config)(torch.rand(1, 2, 1, 6, 8, 20), box)


@pytest.mark.parametrize("shape", [(16, 24), (8, 6, 4), (4, 2, 6, 2)])
def test_unpatchify_undoes_patchify(shape: tuple[int, ...]) -> None:
    patch = tuple(2 if s % 4 else 4 for s in shape)
    grid = [s // p for s, p in zip(shape, patch, strict=True)]
    x = torch.rand(2, 3, 2, *shape)
    assert torch.equal(unpatchify(patchify(x, patch), grid, patch), x)


def test_intermediate_layers_are_those_of_the_forward_pass() -> None:
    torch.manual_seed(0)
    encoder = MuViTEncoder(
        ModelConfig(scale_factors=(1, 4), **{**TINY, "depth": 4})
    ).eval()
    x, box = torch.rand(2, 2, 1, 32, 32), boxes((48.0, 32.0), (0.0, 128.0))
    found = encoder.intermediate_tokens(x, box, (3, 0))
    assert len(found) == 2
    assert torch.equal(found[1], encoder(x, box))
    assert not torch.equal(found[0], found[1])


def has_gradient(parameter: torch.nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    encoder = MuViTEncoder(ModelConfig(scale_factors=(1, 4), **TINY))
    box = boxes((48.0, 32.0), (0.0, 128.0))
    encoder(torch.rand(2, 2, 1, 32, 32), box).square().sum().backward()
    dead = [n for n, p in encoder.named_parameters() if not has_gradient(p)]
    assert dead == []


def test_fixed_frequencies_stay_when_an_encoder_is_unfrozen() -> None:
    encoder = MuViTEncoder(ModelConfig(scale_factors=(1,), rotary_mode="fixed", **TINY))
    encoder.requires_grad_(requires_grad=True)
    names = [n for n, p in encoder.named_parameters() if p.requires_grad]
    assert not any("ropes" in name for name in names)
    assert "ropes.0.frequencies" in encoder.state_dict()


@pytest.mark.parametrize("shift", [2**20, 10**6])
def test_a_shift_changes_nothing_in_bfloat16_either(shift: int) -> None:
    torch.manual_seed(0)
    encoder = MuViTEncoder(ModelConfig(scale_factors=(1, 4), **TINY)).eval()
    x, box = torch.rand(2, 2, 1, 32, 32), boxes((48.0, 32.0), (0.0, 128.0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder(x, box), encoder(x, box + shift))
    half = encoder.bfloat16()
    here = half(x.bfloat16(), box)
    assert torch.equal(here, half(x.bfloat16(), box + shift))


def test_bfloat16_stays_near_float32() -> None:
    # The bound that the documentation states: 2 % of the tokens' size.
    torch.manual_seed(0)
    config = ModelConfig(embed_dim=128, depth=12, num_heads=4, scale_factors=(1, 8))
    encoder = MuViTEncoder(config).eval()
    x, box = torch.rand(1, 2, 1, 160, 160), boxes((90.0, 160.0), (0.0, 1280.0), batch=1)
    with torch.no_grad():
        exact = encoder(x, box)
        with torch.autocast("cpu", torch.bfloat16):
            rough = encoder(x, box).float()
    error = torch.linalg.vector_norm(rough - exact)
    assert error < 0.02 * torch.linalg.vector_norm(exact)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("levels", [(1, 4), (1, 4, 16)])
def test_coarse_tokens_are_the_same_to_the_last_bit_wherever_the_fine_crop_lies(
    precision: str, levels: tuple[int, ...]
) -> None:
    # What makes a slide's coarse context computable once for all fine crops.
    torch.manual_seed(0)
    config = ModelConfig(scale_factors=levels, attention="coarse_to_fine", **TINY)
    encoder = MuViTEncoder(config).eval()
    count = len(levels)
    x = torch.rand(1, count, 1, 32, 32)
    corners = [(40.0, 32.0), (7.3, 128.0), (-100.1, 512.0)][:count]
    box, other = boxes(*corners, batch=1), boxes((93.7, 32.0), *corners[1:], batch=1)
    moved = x.clone()
    moved[:, 0] = torch.rand(1, 1, 32, 32)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        here = encoder.compute_features(x, box)
        there = encoder.compute_features(moved, other)
    assert torch.equal(here[:, 1:], there[:, 1:])
    assert not torch.equal(here[:, 0], there[:, 0])


def test_types_that_do_not_fit_are_named() -> None:
    encoder = MuViTEncoder(ModelConfig(scale_factors=(1,), **TINY))
    x, box = torch.rand(1, 1, 1, 32, 32), boxes((0.0, 32.0), batch=1)
    for pixels, place, message in (
        (x.double(), box, r"float64 were given to a model of type torch.float32"),
        (x.half(), box, r"float16 were given"),
        (x, box.bfloat16(), "float32 or float64"),
        (x, box.half(), "float32 or float64"),
        (x, box.double() * 1e200, "not finite"),
        (x, torch.zeros_like(box), "no extent"),
    ):
        with pytest.raises(ConfigError, match=message):
            encoder(pixels, place)
    encoder.bfloat16()
    assert encoder(x.bfloat16(), box).dtype == torch.bfloat16


def test_levels_are_extracted_as_they_are() -> None:
    encoder = MuViTEncoder(ModelConfig(scale_factors=(1, 4), **TINY)).double()
    encoder.requires_grad_(requires_grad=False)
    smaller = encoder.extract_levels((4,))
    assert all(p.dtype == torch.float64 for p in smaller.parameters())
    assert not any(p.requires_grad for p in smaller.parameters())
