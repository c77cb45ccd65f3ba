"""Scales that suit a slide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_muvit.core.data.suggested_levels import ROOM, suggest_levels


@pytest.mark.parametrize(
    ("side", "crop", "factors"),
    [
        (20_000, 64, (1, 8, 32)),
        (20_000, 256, (1, 8, 32)),
        (2048, 64, (1, 4, 16)),
        (768, 64, (1, 4)),
        (300, 64, (1, 2)),
        (100, 64, (1, 3)),  # the usual ones
    ],
)
def test_the_shorter_side_decides(
    side: int, crop: int, factors: tuple[float, ...]
) -> None:
    assert suggest_levels((side, 2 * side), crop, (1, 3)) == factors
    assert suggest_levels((2 * side, side), crop, (1, 3)) == factors


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from((16, 64, 256)))
def test_the_widest_view_always_fits(height: int, width: int, crop: int) -> None:
    found = suggest_levels((height, width), crop, ())
    assert not found or crop * found[-1] * ROOM <= min(height, width)
    larger = suggest_levels((2 * height, 2 * width), crop, ())
    assert (found or (0,))[-1] <= (larger or (0,))[-1]
