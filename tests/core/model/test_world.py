"""The context skip: a ramp in world coordinates stays that ramp, at any place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.model.branch import LevelBranches
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.model.world import PlacedMaps, sample_at


def ramp(box: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """World coordinates of the pixel centres of a (2, N) box, (1, N, *shape)."""
    extent = box[1] - box[0]
    axes = [
        box[0, axis] + (torch.arange(count) + 0.5) / count * extent[axis]
        for axis, count in enumerate(shape)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


@settings(deadline=None)
@given(
    st.sampled_from([2, 3]),
    st.floats(-1e3, 1e3),
    st.floats(1.0, 64.0),
    st.lists(st.floats(0.07, 0.5), min_size=3, max_size=3),
    st.floats(0.05, 0.4),
    st.integers(1, 9),
)
def test_a_ramp_at_the_coarse_level_is_that_ramp_at_the_fine_one(
    ndim: int, lower: float, factor: float, place: list[float], share: float, count: int
) -> None:
    shape = (8, 12, 10)[:ndim]
    low = torch.full((ndim,), lower)
    coarse = torch.stack((low, low + torch.tensor(shape) * factor))
    extent = coarse[1] - coarse[0]
    start = coarse[0] + torch.tensor(place[:ndim]) * extent
    fine = torch.stack((start, start + share * extent))
    seen = sample_at(ramp(coarse, shape), coarse[None], fine[None], (count,) * ndim)
    wanted = ramp(fine, (count,) * ndim)
    # Half a coarse pixel at the border has no neighbour to be interpolated with.
    inside = torch.stack(
        [
            (wanted[:, a] >= coarse[0, a] + factor / 2)
            & (wanted[:, a] <= coarse[1, a] - factor / 2)
            for a in range(ndim)
        ],
        dim=1,
    )
    error = (seen - wanted).abs()[inside]
    assert error.numel() == 0 or error.max() < 1e-4 * (abs(lower) + 64 * factor)


def test_context_skip_is_exactly_aligned() -> None:
    # A ramp in world coordinates at the coarse level is the same ramp at the fine one.
    coarse = torch.tensor([[[-40.0, -96.0], [216.0, 160.0]]])
    fine = torch.tensor([[[3.0, 17.0], [67.0, 81.0]]])
    centres = [coarse[0, 0, a] + (torch.arange(64) + 0.5) * 4.0 for a in range(2)]
    ramp = torch.stack(torch.meshgrid(*centres, indexing="ij"))[None]
    seen = sample_at(ramp, coarse, fine, (64, 64))
    wanted = torch.stack(
        torch.meshgrid(
            3.0 + torch.arange(64) + 0.5, 17.0 + torch.arange(64) + 0.5, indexing="ij"
        )
    )[None]
    assert torch.allclose(seen, wanted, atol=1e-3)


def test_outside_the_coarse_crop_the_edge_is_taken() -> None:
    features = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    coarse = torch.tensor([[[0.0, 0.0], [4.0, 4.0]]])
    seen = sample_at(
        features, coarse, torch.tensor([[[0.0, 6.0], [4.0, 10.0]]]), (4, 4)
    )
    assert torch.equal(seen, torch.full((1, 1, 4, 4), 3.0))


BOXES = [
    # The fine crop anywhere in the coarse one, off the grid too, and not nested.
    ([[48.0, 40.0], [80.0, 72.0]], [[0.0, 0.0], [128.0, 128.0]]),
    ([[51.3, 40.7], [83.3, 72.7]], [[-7.0, 3.0], [121.0, 131.0]]),
    ([[1e6 + 20, 60.0], [1e6 + 52, 92.0]], [[1e6, 0.0], [1e6 + 128, 128.0]]),
]


class Given(nn.Module):
    """Stands for a level: hands out a map, and keeps what it was handed."""

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        self.features = features
        self.seen: tuple[object, ...] = ()

    def forward(self, *seen: object) -> tuple[torch.Tensor, object]:
        self.seen = seen
        return self.features, None


def aligned(found: torch.Tensor, fine: torch.Tensor, coarse: torch.Tensor) -> None:
    """Whether a map at the fine box holds the world coordinates of its pixels."""
    local = fine - coarse[0]
    wanted = ramp(local.float(), tuple(found.shape[2:]))
    assert (found - wanted).abs().max() < 1e-3


@pytest.mark.parametrize("attention", ["joint", "coarse_to_fine"])
@pytest.mark.parametrize("decoder", ["pyramid", "unetr"])
@pytest.mark.parametrize("boxes", BOXES)
def test_a_decoder_samples_the_coarser_level_at_its_own_place(
    decoder: str, attention: str, boxes: tuple[list[list[float]], list[list[float]]]
) -> None:
    config = ModelConfig(
        decoder=decoder, attention=attention, scale_factors=(1, 4), context_skip=True,
        embed_dim=32, depth=1, num_heads=2, crop_size=32, decoder_dim=16,
        pyramid_channels=(8, 8, 8, 8),
    )  # fmt: skip
    model = build_model(config).eval()
    fine, coarse = (torch.tensor(b, dtype=torch.float64) for b in boxes)
    # A ramp whose zero is the coarse box's corner.
    places = ramp((coarse - coarse[0]).float(), (32, 32))
    below, above = Given(torch.zeros(1, 8, 32, 32)), Given(places)
    model.decoder.levels = nn.ModuleList([below, above])
    model.level_logits(torch.rand(1, 2, 1, 32, 32), torch.stack((fine, coarse))[None])
    context = below.seen[-1]
    found = context((32, 32)) if decoder == "pyramid" else context  # type: ignore[operator]
    aligned(found, fine, coarse)  # type: ignore[arg-type]


@pytest.mark.parametrize("boxes", BOXES)
def test_branches_hand_tokens_to_the_place_of_the_finer_level(
    boxes: tuple[list[list[float]], list[list[float]]],
) -> None:
    config = ModelConfig(
        scale_factors=(1, 4), embed_dim=32, depth=1, num_heads=2, crop_size=64
    )
    fine, coarse = (torch.tensor(b, dtype=torch.float64) for b in boxes)
    places = ramp((coarse - coarse[0]).float(), (8, 8))
    branches = LevelBranches(config, (0,))
    branches.branches = nn.ModuleList([Given(torch.zeros_like(places)), Given(places)])
    stacked = torch.stack((fine, coarse))[None]
    local = (stacked - stacked[:, :1, :1]).float()
    fused, _ = branches(local, [torch.zeros(1, 2, 32, 8, 8)])[0]
    aligned(fused, fine, coarse)


@settings(deadline=None)
@given(
    st.sampled_from([2, 3]),
    st.lists(st.integers(1, 9), min_size=6, max_size=6),
    st.lists(st.floats(-0.6, 1.2), min_size=3, max_size=3),
    st.floats(0.01, 1.5),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_placed_maps_are_added_as_they_are_sampled(
    ndim: int, sizes: list[int], place: list[float], share: float, dtype: torch.dtype
) -> None:
    field = torch.randn(2, 3, *sizes[:ndim]).to(dtype)
    features = torch.randn(2, 3, *sizes[3 : 3 + ndim]).to(dtype)
    source = torch.tensor([[0.0] * ndim, [96.0] * ndim]).expand(2, 2, ndim)
    start = torch.tensor(place[:ndim]) * 96
    target = torch.stack((start, start + share * 96)).expand(2, 2, ndim)
    wanted = features + sample_at(field, source, target, features.shape[2:])
    placed = PlacedMaps([(f[None],) for f in field], source, target)
    found = placed.add_to(features.clone(), 0)
    near = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(found, wanted, atol=near, rtol=near)
