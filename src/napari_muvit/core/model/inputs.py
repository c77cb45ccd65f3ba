"""What a batch must be before anything is computed from it.

Shapes: B batch, L levels, C channels, N spatial axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import ConfigError


def check_inputs(
    x: Tensor, bboxes: Tensor, config: ModelConfig, dtype: torch.dtype | None = None
) -> None:
    """Check a batch of nested crops against a configuration.

    Parameters
    ----------
    x
        Meant to be (B, L, C, *spatial).
    bboxes
        Meant to be (B, L, 2, N): ((lower...), (upper...)) of each level.
    config
        What the model reads.
    dtype
        Of the weights; under autocast pixels may have another one.

    Raises
    ------
    ConfigError
        That says what came, what is needed and what to do.
    """
    _check_pixels(x, config)
    if dtype not in (None, x.dtype) and not torch.is_autocast_enabled(x.device.type):
        raise ConfigError(
            f"Pixels of type {x.dtype} were given to a model of type {dtype}; pass "
            f"x.to({dtype})."
        )
    needed = (len(x), len(config.scale_factors), 2, config.ndim)
    if tuple(bboxes.shape) != needed:
        raise ConfigError(
            f"Boxes of shape {tuple(bboxes.shape)} were given; {needed} is needed: "
            "((lower), (upper)) of each level of each sample."
        )
    if bboxes.dtype not in (torch.float32, torch.float64):
        raise ConfigError(
            f"Boxes of type {bboxes.dtype} were given; world coordinates need float32 "
            "or float64, so pass bboxes.float() or bboxes.double()."
        )
    # On an accelerator this check would wait for the device in every step.
    if bboxes.device.type == "cpu":
        _check_edges(bboxes)


def _check_pixels(x: Tensor, config: ModelConfig) -> None:
    levels, ndim, patch = len(config.scale_factors), config.ndim, config.patch
    if x.ndim != 3 + ndim or tuple(x.shape[1:3]) != (levels, config.in_channels):
        raise ConfigError(
            f"Pixels of shape {tuple(x.shape)} were given; this model reads "
            f"(batch, {levels} levels, {config.in_channels} channels) and "
            f"{ndim} spatial axes."
        )
    if not x.is_floating_point():
        raise ConfigError(
            f"Pixels of type {x.dtype} were given; normalise them to floating point "
            "numbers first, such as x.float() / 255."
        )
    sizes = x.shape[3:]
    if any(s % p or s == 0 for s, p in zip(sizes, patch, strict=True)):
        raise ConfigError(
            f"A crop of {' x '.join(map(str, sizes))} pixels is no multiple of the "
            f"patch of {' x '.join(map(str, patch))}; crop or pad it.",
            "crop_size",
        )


def _check_edges(bboxes: Tensor) -> None:
    # As the model takes them: from the sample's origin, in float32.
    local = (bboxes - bboxes[:, :1, :1]).float()
    if not bool(torch.isfinite(local).all()):
        raise ConfigError("A box has edges that are not finite; give real places.")
    lower, upper = local.unbind(dim=2)
    if not bool((upper > lower).all()):
        raise ConfigError(
            "A box has a lower edge above its upper edge, or no extent; the order is "
            "((lower...), (upper...)) with the axes in the order of the pixels."
        )
