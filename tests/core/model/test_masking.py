from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.model.masking import draw_mask, mask_from_hidden

SHARES = ("dirichlet", "uniform", "equal")


@settings(deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 7), st.integers(4, 40), st.floats(0.3, 0.9),
    st.sampled_from(SHARES), st.integers(0, 99),
)  # fmt: skip
def test_a_mask_is_a_partition_with_a_fixed_total(
    batch: int, levels: int, patches: int, ratio: float, shares: str, seed: int
) -> None:
    tokens = levels * patches
    exact = tokens * (1 - ratio)
    if not 1 <= exact <= tokens - 1:
        return
    mask = draw_mask(
        batch, levels, patches, ratio=ratio, shares=shares,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    # Rounded down; within the error of a float either whole number will do.
    count = mask.visible.shape[1]
    assert mask.visible.shape[0] == batch
    assert count - 1e-6 <= exact < count + 1 + 1e-6
    assert (mask.visible.diff(dim=1) > 0).all()
    seen = torch.zeros(batch, tokens, dtype=torch.bool)
    seen.scatter_(1, mask.visible, value=True)
    assert torch.equal(seen, ~mask.hidden)


def test_a_whole_share_is_kept_whole() -> None:
    # 20 * (1 - 0.9) is 1.9999999999999996 in floats.
    assert draw_mask(1, 4, 5, ratio=0.9).visible.shape == (1, 2)


def level_counts(shares: str, batch: int, levels: int, patches: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mask = draw_mask(batch, levels, patches, shares=shares, generator=generator)
    return (~mask.hidden).view(batch, levels, patches).sum(dim=2)


def test_shares_of_levels_are_a_dirichlet_draw_for_each_sample() -> None:
    counts = level_counts("dirichlet", 4000, 3, 256)
    share = counts / counts.sum(dim=1, keepdim=True)
    # Dirichlet(1/2) of three: mean 1/3, variance 4/45, covariance -2/45.
    assert torch.allclose(share.mean(dim=0), torch.full((3,), 1 / 3), atol=0.02)
    covariance = torch.cov(share.T)
    assert torch.allclose(covariance.diagonal(), torch.full((3,), 4 / 45), atol=0.006)
    assert covariance[0, 1] == pytest.approx(-2 / 45, abs=0.006)
    assert len(share.unique(dim=0)) > 3000


def test_equal_and_uniform_shares() -> None:
    assert (level_counts("equal", 5, 3, 64) == 16).all()
    counts = level_counts("uniform", 500, 3, 64).float()
    assert counts.mean().item() == pytest.approx(16)
    assert 1 < counts.std().item() < 4


def test_with_many_levels_a_level_is_never_asked_for_more_than_it_has() -> None:
    counts = level_counts("dirichlet", 500, 8, 16)
    assert counts.max() == 16
    assert (counts.sum(dim=1) == 32).all()


def test_where_in_a_level_is_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = draw_mask(3000, 2, 16, generator=generator)
    share = (~mask.hidden).float().mean(dim=0)
    assert share.min() > 0.2
    assert share.max() < 0.3


def test_a_seed_gives_the_same_mask() -> None:
    first, second, third = (
        draw_mask(2, 3, 16, generator=torch.Generator().manual_seed(seed)).visible
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_a_mask_of_ones_own() -> None:
    hidden = torch.tensor([[True, False, True], [False, True, True]])
    mask = mask_from_hidden(hidden)
    assert mask.visible.tolist() == [[1], [0]]
    for wrong in (
        torch.tensor([[True, False], [True, True]]),
        torch.ones(1, 3, dtype=torch.bool),
        torch.zeros(1, 3, dtype=torch.bool),
    ):
        with pytest.raises(ConfigError, match="same number"):
            mask_from_hidden(wrong)
    with pytest.raises(ConfigError, match="larger crops"):
        draw_mask(1, 1, 2, ratio=0.75)


@pytest.mark.parametrize(
    ("tokens", "ratio", "visible"),
    [(10, 0.9, 1), (10, 0.8, 2), (192, 0.75, 48), (7, 0.75, 1), (3072, 0.75, 768)],
)
def test_the_number_of_visible_tokens(tokens: int, ratio: float, visible: int) -> None:
    # 10 * (1 - 0.9) is a little less than 1 in binary.
    assert draw_mask(2, 1, tokens, ratio=ratio).visible.shape == (2, visible)


def test_masks_that_do_not_fit_are_named() -> None:
    for hidden in (torch.zeros(0, 4, dtype=torch.bool), torch.zeros(4), torch.ones(2)):
        with pytest.raises(ConfigError, match="booleans are needed"):
            mask_from_hidden(hidden)
    mae = MuViTMAE(
        ModelConfig(scale_factors=(1,), embed_dim=32, depth=1, num_heads=2, mae_dim=16)
    )
    box = torch.tensor([[[[0.0, 0.0], [32.0, 32.0]]]])
    other = draw_mask(1, 1, 9)
    with pytest.raises(ConfigError, match="1 crops of 16 tokens"):
        mae(torch.rand(1, 1, 1, 32, 32), box, other)
    with pytest.raises(ConfigError, match="empty batch"):
        mae(torch.rand(0, 1, 1, 32, 32), box[:0])
