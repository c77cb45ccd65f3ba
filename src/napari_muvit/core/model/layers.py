"""Convolutional pieces that both decoders use, for two and three axes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError

_CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


def check_ndim(ndim: int, decoder: str) -> None:
    """Refuse axes that convolutions do not cover."""
    if ndim not in _CONV:
        raise ConfigError(
            f"The {decoder} decoder works in 2D and 3D, not with {ndim} axes.", "ndim"
        )


def conv(
    ndim: int, inputs: int, outputs: int, kernel: int, stride: int = 1
) -> nn.Module:
    """Convolution that keeps the size at stride 1."""
    return _CONV[ndim](inputs, outputs, kernel, stride=stride, padding=kernel // 2)


class ConvBlock(nn.Sequential):
    """``count`` times 3x3 convolution, batch norm, ReLU; the first one may stride."""

    def __init__(
        self, ndim: int, inputs: int, outputs: int, count: int = 2, stride: int = 1
    ) -> None:
        parts: list[nn.Module] = []
        for index in range(count):
            first = index == 0
            parts += [
                _CONV[ndim](
                    inputs if first else outputs,
                    outputs,
                    3,
                    stride=stride if first else 1,
                    padding=1,
                ),
                _NORM[ndim](outputs),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*parts)


def upsample(x: Tensor, factor: int) -> Tensor:
    """Enlarge the spatial axes linearly, edge to edge."""
    if factor == 1:
        return x
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return F.interpolate(x, scale_factor=factor, mode=mode, align_corners=False)
