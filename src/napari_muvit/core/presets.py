"""Named sizes: what differs from the defaults of a model and its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A named size: what differs from the defaults, for ``--preset``."""

    summary: str
    """One line for people."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `ModelConfig`."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainingConfig` for fine-tuning."""
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainingConfig` for pretraining."""


_OUR_PRETRAINING: Mapping[str, Any] = {
    "learning_rate": 1e-3, "weight_decay": 0.05, "clip_norm": 0.5, "warmup": 0.1,
    "precision": "auto",
}  # fmt: skip

PRESETS: Mapping[str, Preset] = {
    "tiny": Preset(
        summary="learns within minutes on a laptop",
        model={
            "decoder": "pyramid", "scale_factors": (1, 4), "crop_size": 64,
            "attention": "coarse_to_fine", "embed_dim": 128, "depth": 4,
            "num_heads": 4, "decoder_dim": 64, "mae_dim": 64,
        },
        training={
            "batch_size": 8, "foreground_weight": 5.0, "minutes": 5.0,
            "precision": "auto", "ema": 0.99,
        },
        pretraining={**_OUR_PRETRAINING, "batch_size": 16, "minutes": 10.0},
    ),
    "small": Preset(
        summary="for a GPU or a patient laptop",
        model={
            "decoder": "pyramid", "scale_factors": (1, 8), "crop_size": 64,
            "attention": "coarse_to_fine", "embed_dim": 192, "depth": 6,
            "num_heads": 6, "decoder_dim": 96, "mae_dim": 96,
            "pyramid_channels": (32, 64, 64, 128),
        },
        training={
            "batch_size": 12, "foreground_weight": 5.0, "minutes": 20.0,
            "precision": "auto", "ema": 0.99,
        },
        pretraining={**_OUR_PRETRAINING, "batch_size": 16, "minutes": 60.0},
    ),
    "paper": Preset(
        summary="the paper's sizes and recipe, for GPUs",
        model={"decoder": "unetr", "scale_factors": (1, 8, 32), "crop_size": 256},
        training={
            "epochs": 100, "batch_size": 8, "learning_rate": 1e-4,
            "encoder_learning_rate": 1e-5,
            "clip_norm": 0.5, "dice_weight": 0.1, "foreground_weight": 1.0,
            "schedule": "cosine", "warmup": 0.0, "steps_per_epoch": 512,
            "box_shift": 0.02, "box_scale": 0.02,
        },
        # 10,000 crops an epoch.
        pretraining={
            "epochs": 2000, "steps_per_epoch": 208, "batch_size": 48,
            "learning_rate": 6e-5, "clip_norm": 0.5,
            "schedule": "cosine", "warmup": 0.0,
            "box_shift": 0.02, "box_scale": 0.02,
        },
    ),
}  # fmt: skip


def preset(name: str) -> Preset:
    """Return the preset called ``name``."""
    if name not in PRESETS:
        raise ConfigError(
            f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}.",
            "preset",
        )
    return PRESETS[name]
