from __future__ import annotations

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig

Slide = tuple[np.ndarray, np.ndarray]

CONFIG = ModelConfig(
    decoder="pyramid", scale_factors=(1, 4), crop_size=16, patch_size=8, embed_dim=32,
    depth=1, num_heads=2, num_classes=2, class_names=("background", "cell"),
    pyramid_channels=(8, 8, 8, 8), mae_dim=16, mae_depth=1,
)  # fmt: skip


@pytest.fixture
def tiny_config() -> ModelConfig:
    """A model that trains in milliseconds a step."""
    return CONFIG


@pytest.fixture
def slide() -> Slide:
    """Bright squares, and their labels."""
    rng = np.random.default_rng(0)
    image = rng.normal(50, 5, (160, 160))
    labels = np.ones((160, 160), np.uint8)
    for _ in range(40):
        y, x = rng.integers(0, 150, 2)
        image[y : y + 8, x : x + 8] += 100
        labels[y : y + 8, x : x + 8] = 2
    return image.clip(0, 255).astype(np.uint8), labels
