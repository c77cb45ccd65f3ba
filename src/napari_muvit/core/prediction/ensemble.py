"""Whether several models read the same, so that their logits may be averaged.

Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config import ModelConfig
from ..errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

EXACT = (
    "in_channels", "ndim", "scale_factors", "crop_size", "num_classes", "class_names",
    "background", "zero_is_background", "normalisation", "boxes",
)  # fmt: skip
"""Fields that must be equal; the network itself may be another one."""
PADDING_TOLERANCE = 0.05
"""Of the padding beyond the slide, in shares of its range: models that were trained on
different slides have found slightly different borders."""


def config_of(model: nn.Module) -> ModelConfig:
    """Return the configuration that a model carries.

    Raises
    ------
    ConfigError
        If it carries none.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, ModelConfig):
        raise ConfigError(
            f"{type(model).__name__} has no `config` of type ModelConfig, so it is not "
            "known what it reads; build it with build_model or load_model.",
            "model",
        )
    return config


def same_input(models: Sequence[ModelConfig]) -> ModelConfig:
    """Return what all of the models read: the configuration of the first one.

    Raises
    ------
    ConfigError
        If there is none, or two of them differ in what they read or answer.
    """
    if not models:
        raise ConfigError("No model was given; at least one is needed.", "model")
    first = models[0]
    for number, other in enumerate(models[1:], 2):
        name = _difference(first, other)
        if name is not None:
            raise ConfigError(
                f"Models 1 and {number} differ in {name} ({getattr(first, name)} and "
                f"{getattr(other, name)}); models whose answers are averaged must read "
                "the same pixels and know the same classes.",
                "model",
            )
    return first


def _difference(one: ModelConfig, other: ModelConfig) -> str | None:
    """Name of the first field in which two models differ."""
    for name in EXACT:
        if getattr(one, name) != getattr(other, name):
            return name
    if not _same_size(one.pixel_size, other.pixel_size):
        return "pixel_size"
    pairs = zip(_padding(one), _padding(other), strict=True)
    if any(abs(a - b) > PADDING_TOLERANCE for a, b in pairs):
        return "background_value"
    return None


def _same_size(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one == other
    return math.isclose(one, other, rel_tol=1e-3)


def _padding(model: ModelConfig) -> tuple[float, ...]:
    return model.background_value or (0.0,) * model.in_channels
