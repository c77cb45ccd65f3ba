"""Axial rotary position embedding on world coordinates.

Reference: MuViT (arXiv 2602.24222), sections 3.1 and 3.2; RoFormer (arXiv 2104.09864).

A head's width is split over the axes. Pair k of an axis with E_a of the E dimensions
turns by the angle ``position * b ** (-2 k / E_a)``; the frequencies are learned, per
layer in the paper. Scores depend on differences of positions only.

Shapes: B batch, L levels, N spatial axes, g patches along an axis, n patches a level,
T = L * n tokens, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import Attention, ModelConfig, RotaryPosition

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of the angles, each (B, T, 1, E / 2), float32."""


def patch_positions(
    bboxes: Tensor, grid: Sequence[int], position: RotaryPosition = "centre"
) -> Tensor:
    """World coordinates of the patches.

    Parameters
    ----------
    bboxes
        (B, L, 2, N) world boxes, edge to edge.
    grid
        Patches along each axis.
    position
        ``centre``: a patch of a box of extent e with g patches an axis is e / g wide
        and its token sits in its middle, so the same place has the same coordinate at
        every level. ``corner``: the first token at the lower edge of the box and the
        last one at its upper edge, as the formula of section 3.1 has it; a place then
        has another coordinate at each level.

    Returns
    -------
    Tensor
        (B, L, n, N), the patches in row-major order.
    """
    lower, upper = bboxes[:, :, 0], bboxes[:, :, 1]
    axes = [_shares(g, position, bboxes) for g in grid]
    mesh = torch.meshgrid(*axes, indexing="ij")
    share = torch.stack([m.reshape(-1) for m in mesh], dim=-1)
    return lower[:, :, None] + share * (upper - lower)[:, :, None]


def _shares(count: int, position: RotaryPosition, like: Tensor) -> Tensor:
    """Where along the edge of a box its patches lie, from 0 to 1."""
    steps = torch.arange(count, device=like.device, dtype=like.dtype)
    if position == "centre":
        return steps.add_(0.5).div_(count)
    return steps.div_(max(1, count - 1))


def relative_to_origin(bboxes: Tensor, arrangement: Attention = "joint") -> Tensor:
    """Subtract each sample's origin: the lower corner of its finest box.

    Only differences of coordinates matter to attention, and small numbers keep their
    precision. With ``coarse_to_fine`` attention the origin is the lower corner of the
    coarsest box: what is computed for a coarse level then is the same to the last bit
    wherever the fine crop lies.

    Parameters
    ----------
    bboxes
        (B, L, 2, N); float64 for coordinates that float32 cannot hold.
    arrangement
        Of the attention.

    Returns
    -------
    Tensor
        (B, L, 2, N), float32.
    """
    level = -1 if arrangement == "coarse_to_fine" else 0
    origin = bboxes[:, level, 0][:, None, None]
    return (bboxes - origin).float()


def axis_widths(head_dim: int, ndim: int) -> tuple[int, ...]:
    """Split a head over the axes in pairs; what is left goes to the first axis."""
    pairs = head_dim // 2
    each = pairs // ndim
    return (2 * (pairs - each * (ndim - 1)), *[2 * each] * (ndim - 1))


class AxialRope(nn.Module):
    """Frequencies of the rotation, one set for all heads.

    Parameters
    ----------
    head_dim
        Head width E, even.
    ndim
        Spatial axes N.
    base
        Frequencies start as ``base ** (-2 k / E_a)`` for pair k of an axis that has
        E_a of the E dimensions.
    learnable
        Whether training may change them.
    """

    def __init__(
        self, head_dim: int, ndim: int, base: float = 10000.0, learnable: bool = True
    ) -> None:
        super().__init__()
        self.widths = axis_widths(head_dim, ndim)
        frequencies = torch.cat(
            [base ** (-torch.arange(0, w, 2).float() / w) for w in self.widths]
        )
        self.frequencies: Tensor
        if learnable:
            self.frequencies = nn.Parameter(frequencies)
        else:
            # No parameter: unfreezing an encoder must not set it free.
            self.register_buffer("frequencies", frequencies)

    def forward(self, positions: Tensor) -> Rotation:
        """Cosine and sine of the angles of (B, T, N) world positions.

        Positions are pixels relative to an origin of the sample; angles are float32 in
        any precision of the model.
        """
        frequencies = self.frequencies.float().split([w // 2 for w in self.widths])
        angles = torch.cat(
            [
                positions[..., axis, None].float() * frequency
                for axis, frequency in enumerate(frequencies)
            ],
            dim=-1,
        )[:, :, None]
        return angles.cos(), angles.sin()


class WorldRope(nn.ModuleList):
    """The rotations of all layers: a set of frequencies a layer, one for all, or none.

    Parameters
    ----------
    config
        Mode, axes and base are used.
    head_dim
        Head width E of the layers.
    depth
        Number of layers.
    """

    def __init__(self, config: ModelConfig, head_dim: int, depth: int) -> None:
        counts = {"none": 0, "fixed": 1, "shared": 1, "per_layer": depth}
        learnable = config.rotary_mode != "fixed"
        super().__init__(
            AxialRope(head_dim, config.ndim, config.rotary_base, learnable)
            for _ in range(counts[config.rotary_mode])
        )
        self.depth = depth

    def forward(self, positions: Tensor) -> list[Rotation | None]:
        """One rotation a layer for (B, T, N) positions; None without RoPE."""
        if not len(self):
            return [None] * self.depth
        rotations: list[Rotation | None] = [rope(positions) for rope in self]
        return rotations * (self.depth // len(rotations))


def rotate(x: Tensor, rotation: Rotation | None) -> Tensor:
    """Turn the pairs (k, k + E / 2) of (B, T, H, E); None turns nothing."""
    if rotation is None:
        return x
    cos, sin = rotation
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat(
        (
            torch.addcmul(first * cos, second, sin, value=-1),
            torch.addcmul(second * cos, first, sin),
        ),
        dim=-1,
    )
    return turned.to(x.dtype)
