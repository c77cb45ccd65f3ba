"""Axial rotary position embedding on world coordinates.

Reference: MuViT (arXiv 2602.24222), section 3.2; RoFormer (arXiv 2104.09864).

Shapes: B batch, L levels, N spatial axes, n patches a level, T = L * n tokens,
H heads, E head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def patch_centres(bboxes: Tensor, grid: tuple[int, ...]) -> Tensor:
    """World coordinates of the patch centres.

    Parameters
    ----------
    bboxes
        (B, L, 2, N) world boxes, edge to edge.
    grid
        Patches along each axis.

    Returns
    -------
    Tensor
        (B, L, n, N), the patches in row-major order. A patch of a box of extent e with
        g patches an axis is e / g wide and its token sits in its middle, so the same
        place has the same coordinate at every level.
    """
    lower, upper = bboxes[:, :, 0], bboxes[:, :, 1]
    axes = [
        torch.arange(g, device=bboxes.device, dtype=bboxes.dtype).add_(0.5).div_(g)
        for g in grid
    ]
    mesh = torch.meshgrid(*axes, indexing="ij")
    share = torch.stack([m.reshape(-1) for m in mesh], dim=-1)
    return lower[:, :, None] + share * (upper - lower)[:, :, None]


def relative_to_origin(bboxes: Tensor) -> Tensor:
    """Subtract each sample's origin, the lower corner of its finest box.

    Only differences of coordinates matter to attention, and small numbers keep their
    precision. (B, L, 2, N) in and out, float32.
    """
    origin = bboxes[:, :1, :1]
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
        self.frequencies = nn.Parameter(frequencies, requires_grad=learnable)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the angles, each (B, 1, T, E / 2), float32.

        ``positions`` is (B, T, N), world pixels relative to the sample's origin.
        """
        with torch.autocast(positions.device.type, enabled=False):
            repeats = torch.tensor(
                [w // 2 for w in self.widths], device=positions.device
            )
            where = positions.float().repeat_interleave(repeats, dim=-1)
            angles = (where * self.frequencies.float())[:, None]
            return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (k, k + E / 2) of (B, H, T, E) by the given angles."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)
