"""Samples of a run: what is changed at random, and which are validated."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch.utils.data import Dataset

from ..config import TrainingConfig
from ..data.augment import Augmentation
from .base_module import Network
from .budget import Budget
from .distributed import Together

VALIDATION_SEED_OFFSET = 104729
"""Keeps validation places apart from training places of the same seed."""


def augmentation_of(config: TrainingConfig) -> Augmentation:
    """Return the random changes that a training configuration asks for."""
    return Augmentation(
        flips=config.flips,
        upright=config.upright,
        intensity_jitter=config.intensity_jitter,
        stain_jitter=config.stain_jitter,
        box_shift=config.box_shift,
        box_scale=config.box_scale,
    )


class Remembered(Dataset[Any]):
    """The same samples at every validation, read once."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset
        self._samples: dict[int, Any] = {}

    def __getitem__(self, index: int) -> Any:
        if index not in self._samples:
            self._samples[index] = self.dataset[index]
        return self._samples[index]


class RankShare(Dataset[Any]):
    """A process's share of the first ``count`` samples.

    All have equally many: a process with one batch more would wait for the others.
    """

    def __init__(self, dataset: Dataset[Any], count: int, together: Together) -> None:
        self.dataset = dataset
        self.count = count
        self.together = together

    def __len__(self) -> int:
        return math.ceil(self.count / self.together.world)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.dataset[index * self.together.world + self.together.rank]


def count_validation_crops(
    network: Network,
    validation: Dataset[Any],
    budget: Budget,
    config: TrainingConfig,
    device: torch.device,
    size: int,
) -> int:
    """How many crops a validation has: timed, so that a time budget is kept.

    Parameters
    ----------
    network, device
        What is timed, and where.
    validation
        Samples by index.
    budget
        Of the run; time for the last validation is kept back in it.
    config
        How many crops are wanted.
    size
        Crops of a pass: more at a time may not fit into memory.
    """
    if not budget.by_time or config.world_size > 1:
        # Processes that time themselves would disagree.
        return config.validation_crops
    wanted = math.ceil(config.validation_crops / size)
    sample = validation[0]
    count = min(size, config.validation_crops)
    pixels = sample.pixels[None].expand(count, *[-1] * sample.pixels.ndim).to(device)
    boxes = sample.bboxes[None].expand(count, -1, -1, -1).to(device)
    network.to(device).eval()
    seconds = math.inf
    with torch.inference_mode():
        for _ in range(2):
            begun = time.monotonic()
            network(pixels, boxes)
            seconds = min(seconds, time.monotonic() - begun)
    network.train()
    batches = budget.validation_batches(1.3 * seconds, wanted)
    budget.reserve(1.3 * seconds * batches)
    return min(config.validation_crops, batches * size)
