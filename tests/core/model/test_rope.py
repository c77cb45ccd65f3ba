from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_muvit.core.model.rope import (
    AxialRope,
    axis_widths,
    patch_positions,
    relative_to_origin,
    rotate,
)

edges = st.floats(-1e4, 1e4, allow_nan=False)


@given(edges, edges, st.floats(1, 500), st.floats(-1e4, 1e4))
def test_a_translation_shifts_all_patch_positions_alike(
    y: float, x: float, size: float, shift: float
) -> None:
    box = torch.tensor([[[[y, x], [y + size, x + 2 * size]]]], dtype=torch.float64)
    moved = patch_positions(box + shift, (4, 8))
    assert torch.allclose(moved, patch_positions(box, (4, 8)) + shift, atol=1e-8)


def test_a_coarse_patch_centre_is_the_mean_of_the_fine_centres_it_covers() -> None:
    # One coarse patch of 32 world px covers 4 x 4 fine patches of 8 world px.
    fine = patch_positions(torch.tensor([[[[0.0, 0.0], [32.0, 32.0]]]]), (4, 4))
    coarse = patch_positions(torch.tensor([[[[0.0, 0.0], [128.0, 128.0]]]]), (4, 4))
    assert torch.equal(fine[0, 0].mean(dim=0), coarse[0, 0, 0])


def test_patch_positions_are_half_a_patch_from_the_edge() -> None:
    centres = patch_positions(torch.tensor([[[[0.0, 0.0], [32.0, 32.0]]]]), (8, 8))
    assert centres[0, 0, 0].tolist() == [2.0, 2.0]
    assert centres[0, 0, 1].tolist() == [2.0, 6.0]
    assert centres[0, 0, -1].tolist() == [30.0, 30.0]


def test_the_rest_of_a_head_goes_to_the_first_axis() -> None:
    assert axis_widths(64, 2) == (32, 32)
    assert axis_widths(64, 3) == (24, 20, 20)
    assert axis_widths(32, 3) == (12, 10, 10)


def test_scores_depend_on_differences_of_places_only() -> None:
    torch.manual_seed(0)
    rope = AxialRope(16, 2)
    query, key = torch.randn(1, 5, 2, 16), torch.randn(1, 5, 2, 16)
    places = torch.rand(1, 5, 2) * 100
    here = [rotate(t, rope(places)) for t in (query, key)]
    there = [rotate(t, rope(places + 37.0)) for t in (query, key)]
    scores = torch.einsum("bthe,bshe->bhts", *here)
    assert torch.allclose(scores, torch.einsum("bthe,bshe->bhts", *there), atol=1e-4)


def test_the_same_place_has_the_same_code_at_two_levels() -> None:
    # Fine patch 8 px around (36, 36), coarse patch 24 px around the same point.
    boxes = torch.tensor([[[[32.0, 32.0], [40.0, 40.0]], [[24.0, 24.0], [48.0, 48.0]]]])
    centres = patch_positions(boxes, (1, 1))
    assert torch.equal(centres[0, 0], centres[0, 1])


def test_origin_is_subtracted_in_double_precision() -> None:
    box = torch.tensor([[[[0.25, 0.5], [64.25, 64.5]]]], dtype=torch.float64)
    far = relative_to_origin(box + 1e9)
    assert torch.allclose(far, relative_to_origin(box), atol=1e-6)
    assert far.dtype == torch.float32
