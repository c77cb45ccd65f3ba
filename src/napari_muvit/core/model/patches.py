"""Crops to patches and back, in any number of spatial axes.

Reference: MuViT (arXiv 2602.24222), section 3.1: non-overlapping patches.

Shapes: B batch, L levels, C channels, N spatial axes, P pixels of a patch (C times the
product of its edges), g patches along an axis, n patches a level.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from einops import rearrange

if TYPE_CHECKING:
    from torch import Tensor


@functools.cache
def _patterns(ndim: int) -> tuple[str, str]:
    """The two sides of the rearrangement: pixels, and patches in row-major order."""
    grid = [f"g{axis}" for axis in range(ndim)]
    edges = [f"p{axis}" for axis in range(ndim)]
    pixels = " ".join(f"({g} {p})" for g, p in zip(grid, edges, strict=True))
    return f"b l c {pixels}", f"b l ({' '.join(grid)}) (c {' '.join(edges)})"


def grid_of(x: Tensor, patch: Sequence[int]) -> tuple[int, ...]:
    """Patches along each axis of (B, L, C, *spatial)."""
    return tuple(s // p for s, p in zip(x.shape[3:], patch, strict=True))


def patchify(x: Tensor, patch: Sequence[int]) -> Tensor:
    """(B, L, C, *spatial) to (B, L, n, P), in one strided copy."""
    pixels, patches = _patterns(len(patch))
    edges = {f"p{axis}": edge for axis, edge in enumerate(patch)}
    return rearrange(x, f"{pixels} -> {patches}", **edges)


def unpatchify(patches: Tensor, grid: Sequence[int], patch: Sequence[int]) -> Tensor:
    """(B, L, n, P) to (B, L, C, *spatial)."""
    pixels, packed = _patterns(len(patch))
    sizes = {f"g{axis}": count for axis, count in enumerate(grid)}
    sizes |= {f"p{axis}": edge for axis, edge in enumerate(patch)}
    sizes["c"] = patches.shape[-1] // math.prod(patch)
    return rearrange(patches, f"{packed} -> {pixels}", **sizes)
