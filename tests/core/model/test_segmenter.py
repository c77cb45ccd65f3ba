from __future__ import annotations

import pytest
import torch

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.model.losses import segmentation_loss
from napari_muvit.core.model.segmenter import DECODERS, MuViTSegmenter, build_model

SIZE = {
    "embed_dim": 32, "depth": 3, "num_heads": 2, "crop_size": 32, "decoder_dim": 16,
    "num_classes": 3, "pyramid_channels": (8, 8, 16, 16),
}  # fmt: skip


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def example(levels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, levels, 1, 32, 32, generator=generator)
    rows = [[[-(3.0 * k), -(5.0 * k)], [0.0, 0.0]] for k in range(levels)]
    box = torch.tensor([rows, rows])
    for k in range(levels):
        box[:, k, 1] = box[:, k, 0] + 32 * 4**k
    return x, box


@pytest.mark.parametrize(
    ("decoder", "factors", "table"),
    [
        ("unetr", (1,), 31.66),
        ("unetr", (1, 8, 32), 35.02),
        ("mask2former", (1,), 33.44),
        ("mask2former", (1, 8, 32), 36.80),
    ],
)
def test_segmenters_have_the_papers_size(
    decoder: str, factors: tuple[int, ...], table: float
) -> None:
    model = MuViTSegmenter(ModelConfig(decoder=decoder, scale_factors=factors))
    assert count(model) / 1e6 == pytest.approx(table, rel=0.02)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("factors", [(1,), (1, 4), (1, 4, 16)])
def test_output_is_the_finest_level(decoder: str, factors: tuple[int, ...]) -> None:
    config = ModelConfig(decoder=decoder, scale_factors=factors, **SIZE)
    x, box = example(len(factors))
    assert build_model(config)(x, box).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_shift_of_the_world_changes_no_logit(decoder: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(decoder=decoder, scale_factors=(1, 4), **SIZE)
    model = build_model(config).eval()
    x, box = example(2)
    assert torch.equal(model(x, box.double()), model(x, box.double() + 2**20))


@pytest.mark.parametrize("decoder", DECODERS)
def test_pixels_outside_the_fine_crop_change_the_answer(decoder: str) -> None:
    # The claim of the whole package: context reaches the finest level.
    torch.manual_seed(0)
    config = ModelConfig(decoder=decoder, scale_factors=(1, 4), **SIZE)
    model = build_model(config).eval()
    x, box = example(2)
    other = x.clone()
    other[:, 1] = other[:, 1].flip(-1)
    assert not torch.allclose(model(x, box), model(other, box), atol=1e-4)


@pytest.mark.parametrize("decoder", DECODERS)
def test_gradients_reach_every_parameter(decoder: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(decoder=decoder, scale_factors=(1, 4), **SIZE)
    model = build_model(config)
    sum(s.square().mean() for s in model.level_logits(*example(2))).backward()
    dead = [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()
    ]
    assert dead == []


# Mask2Former sees the pixels through its tokens only, so it answers by the patch.
@pytest.mark.parametrize(
    ("decoder", "edge"), [("unetr", 1), ("pyramid", 1), ("mask2former", 8)]
)
def test_overfits_one_batch(decoder: str, edge: int) -> None:
    torch.manual_seed(0)
    config = ModelConfig(decoder=decoder, scale_factors=(1, 4), **SIZE)
    model = build_model(config)
    x, box = example(2)
    spots = x[:, 0, 0, ::edge, ::edge].repeat_interleave(edge, 1)
    labels = (spots.repeat_interleave(edge, 2) * 3).long().clamp(max=2) + 1
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        loss = segmentation_loss(
            model(x, box), labels,
            class_weights=torch.ones(3), dice_weight=1.0, dice_labels=(1, 2, 3),
        )  # fmt: skip
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    accuracy = (model(x, box).argmax(1) + 1 == labels).float().mean()
    assert accuracy > 0.95


@pytest.mark.parametrize("decoder", ["unetr", "pyramid"])
@pytest.mark.parametrize("patch", [4, (2, 4, 4), (1, 2, 4)])
def test_three_dimensions_and_uneven_patches(
    decoder: str, patch: int | tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    size = {**SIZE, "crop_size": 8, "patch_size": patch, "pyramid_channels": (8, 8, 8)}
    config = ModelConfig(
        decoder=decoder, ndim=3, scale_factors=(1, 4), context_skip=True,
        level_heads=True, **size,
    )  # fmt: skip
    model = build_model(config)
    box = torch.zeros(2, 2, 2, 3)
    box[:, 1, 0], box[:, 0, 1], box[:, 1, 1] = -7.0, 8.0, 25.0
    logits = model.level_logits(torch.rand(2, 2, 1, 8, 8, 8), box)
    assert [tuple(level.shape) for level in logits] == [(2, 3, 8, 8, 8)] * 2
    sum(level.square().mean() for level in logits).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("decoder", ["unetr", "pyramid"])
def test_coarse_answers_do_not_depend_on_the_fine_crop(decoder: str) -> None:
    # What lets a slide's coarse context be computed once for all of its fine crops.
    torch.manual_seed(0)
    config = ModelConfig(
        decoder=decoder, scale_factors=(1, 4, 16), attention="coarse_to_fine",
        context_skip=True, level_heads=True, **SIZE,
    )  # fmt: skip
    model = build_model(config).eval()
    x, box = example(3)
    other, moved = x.clone(), box.clone()
    other[:, 0] = torch.rand(2, 1, 32, 32)
    moved[:, 0] += 5.0
    # The origin of the world is the fine box's, so the angles differ by rounding.
    here, there = model.level_logits(x, box), model.level_logits(other, moved)
    for level in (1, 2):
        assert torch.allclose(here[level], there[level], atol=1e-5)
    assert not torch.allclose(here[0], there[0], atol=1e-3)


@pytest.mark.parametrize("decoder", ["unetr", "pyramid"])
@pytest.mark.parametrize("attention", ["within_level", "coarse_to_fine"])
def test_the_context_skip_carries_context_by_itself(
    decoder: str, attention: str
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        decoder=decoder, scale_factors=(1, 4), attention=attention, context_skip=True,
        **SIZE,
    )  # fmt: skip
    model = build_model(config).eval()
    x, box = example(2)
    here = model(x, box)
    other = x.clone()
    other[:, 1] = other[:, 1].flip(-1)
    assert not torch.allclose(here, model(other, box), atol=1e-4)
    # The same pixels elsewhere in the coarse crop are another answer.
    moved = box.clone()
    moved[:, 0] += 20.0
    assert not torch.allclose(here, model(x, moved), atol=1e-4)


@pytest.mark.parametrize("strides", [(8,), (1, 8), (1, 2, 4, 8)])
def test_the_skip_enters_the_pyramid_where_it_is_told_to(
    strides: tuple[int, ...],
) -> None:
    config = ModelConfig(
        decoder="pyramid", scale_factors=(1, 4), context_strides=strides, **SIZE
    )
    model = build_model(config)
    fine, coarse = model.decoder.levels
    assert len(fine.context) == len(strides)
    assert len(coarse.context) == 0
    assert model(*example(2)).shape == (2, 3, 32, 32)


def test_what_a_decoder_cannot_do_is_refused() -> None:
    for field in ("context_skip", "level_heads"):
        with pytest.raises(ConfigError, match="neither") as caught:
            build_model(ModelConfig(decoder="mask2former", **{field: True}, **SIZE))
        assert caught.value.field == field
    with pytest.raises(ConfigError, match="works in 2D, not with 3"):
        build_model(ModelConfig(decoder="mask2former", ndim=3, **SIZE))
    with pytest.raises(ConfigError, match="2D and 3D, not with 4"):
        build_model(ModelConfig(decoder="unetr", ndim=4))
    with pytest.raises(ConfigError, match="powers of two"):
        build_model(ModelConfig(patch_size=6, crop_size=36))
    with pytest.raises(ConfigError, match="decoder_dim 17 is no multiple"):
        build_model(
            ModelConfig(
                decoder="mask2former",
                **{**SIZE, "decoder_dim": 17},
            )
        )


def test_what_leaves_the_coarse_levels_unused_is_refused() -> None:
    for attention in ("within_level", "fine_to_coarse"):
        with pytest.raises(ConfigError, match="reaches the finest"):
            ModelConfig(
                decoder="pyramid", attention=attention, context_skip=False,
                scale_factors=(1, 4), **SIZE,
            )  # fmt: skip
    with pytest.raises(ConfigError, match="coarser level to sample"):
        ModelConfig(decoder="pyramid", context_skip=True, scale_factors=(1,), **SIZE)
