"""Convolutional pieces that the decoders share, for two and three axes.

Reference: MuViT (arXiv 2602.24222), section B.2: stages of linear enlargement and two
3x3 convolutions, each with batch norm and ReLU.

Shapes: B batch, C channels, N spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Norm
from ..errors import ConfigError

_CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
GROUP = 8
"""Channels of a group of the group norm."""


def check_ndim(ndim: int, decoder: str, available: Sequence[int] = (2, 3)) -> None:
    """Refuse axes that a decoder does not cover."""
    if ndim not in available:
        axes = " and ".join(f"{n}D" for n in available)
        raise ConfigError(
            f"The {decoder} decoder works in {axes}, not with {ndim} axes.", "ndim"
        )


def conv(ndim: int, inputs: int, outputs: int, kernel: int = 1) -> nn.Module:
    """Convolution that keeps the size."""
    return _CONV[ndim](inputs, outputs, kernel, padding=kernel // 2)


def _norm(ndim: int, channels: int, norm: Norm) -> nn.Module:
    if norm == "group":
        return nn.GroupNorm(channels // GROUP, channels)
    return _BATCH_NORM[ndim](channels)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, *spatial), the channels of a pixel side by side in memory.

    Convolutions take three quarters of the time so; whatever follows keeps the layout.
    Where that was measured: not on other devices than CPU and CUDA. On ``meta`` too, so
    that what is counted there is what is kept here.
    """
    if x.device.type not in ("cpu", "cuda", "meta"):
        return x
    layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return x.contiguous(memory_format=layout)


class ConvBlock(nn.Sequential):
    """``count`` times 3x3 convolution, norm, ReLU; the first one may stride."""

    def __init__(
        self,
        ndim: int,
        inputs: int,
        outputs: int,
        *,
        count: int = 2,
        stride: tuple[int, ...] | int = 1,
        norm: Norm = "batch",
    ) -> None:
        parts: list[nn.Module] = []
        for index in range(count):
            first = index == 0
            parts += [
                _CONV[ndim](
                    inputs if first else outputs,
                    outputs,
                    3,
                    stride=stride if first else 1,  # type: ignore[arg-type]
                    padding=1,
                ),
                _norm(ndim, outputs, norm),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, *spatial) to (B, outputs, *spatial / stride)."""
        for part in self:
            x = part(channels_last(x))
        return x


def stage_factors(patch: Sequence[int], decoder: str) -> tuple[tuple[int, ...], ...]:
    """Return how much each stage enlarges each axis, from patch grid to pixels.

    A stage doubles; an axis with a shorter patch joins in the last stages only, so
    that the features are as isotropic as possible as early as possible.

    Parameters
    ----------
    patch
        Patch edge along each axis.
    decoder
        Name for the message.

    Raises
    ------
    ConfigError
        If an edge is no power of two.
    """
    doublings = [p.bit_length() - 1 for p in patch]
    if any(2**d != p for d, p in zip(doublings, patch, strict=True)):
        raise ConfigError(
            f"patch_size is {' x '.join(map(str, patch))}; the {decoder} decoder "
            "doubles the resolution at each stage and needs powers of two.",
            "patch_size",
        )
    stages = max(doublings)
    return tuple(
        tuple(2 if stage >= stages - d else 1 for d in doublings)
        for stage in range(stages)
    )


def cumulative(factors: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Product of the factors up to and with each stage, an axis each."""
    axes = list(zip(*factors, strict=True))
    return tuple(
        tuple(math.prod(axis[: stage + 1]) for axis in axes)
        for stage in range(len(factors))
    )


def upsample(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Enlarge the spatial axes of (B, C, *spatial) linearly, edge to edge."""
    if all(f == 1 for f in factors):
        return x
    size = [s * f for s, f in zip(x.shape[2:], factors, strict=True)]
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return F.interpolate(x, size=size, mode=mode, align_corners=False)
