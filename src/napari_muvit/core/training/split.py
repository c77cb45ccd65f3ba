"""Training and validation samples: no labelled pixel in both."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from ..config import TrainingConfig
from ..data.augment import Augmentation
from ..data.datasets import CropBatch, SegmentationDataset
from ..data.sampling import CropSampler, HoldOut, TrainingSlide, hold_out
from ..model.segmenter import MuViTSegmenter
from .budget import Budget
from .prepare import (
    ImageSource,
    LabelSource,
    PreparedData,
    open_annotations,
    open_images,
    prepare,
)

VALIDATION_SEED_OFFSET = 104729
"""Keeps validation places apart from training places of the same seed."""


def prepare_validation(
    images: Sequence[ImageSource],
    annotations: Sequence[LabelSource],
    data: PreparedData,
    seed: int,
) -> tuple[TrainingSlide, ...]:
    """Open the validation slides, with the same checks as the training slides."""
    if not len(images) and not len(annotations):
        return ()
    pyramids = open_images(images) if len(images) else []
    zero = data.config.zero_is_background
    marks = open_annotations(
        annotations,
        pyramids,
        zero_is_background=zero,
        classes=data.config.names,
        purpose="validation",
    )
    return prepare(pyramids, marks, data.config, seed).slides


class Remembered(Dataset[CropBatch]):
    """The same few samples at every validation, read once."""

    def __init__(self, dataset: Dataset[CropBatch], count: int) -> None:
        self.dataset = dataset
        self.count = count
        self._samples: dict[int, CropBatch] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> CropBatch:
        if index not in self._samples:
            self._samples[index] = self.dataset[index]
        return self._samples[index]


def augmentation_of(config: TrainingConfig) -> Augmentation:
    """Return the random changes that a training configuration asks for."""
    return Augmentation(
        flips=config.flips,
        intensity_jitter=config.intensity_jitter,
        stain_jitter=config.stain_jitter,
        box_shift=config.box_shift,
        box_scale=config.box_scale,
    )


def build_datasets(
    data: PreparedData, validation: Sequence[TrainingSlide], config: TrainingConfig
) -> tuple[SegmentationDataset, SegmentationDataset]:
    """Training and validation samples, no label in both."""
    outs: list[HoldOut | None] = [None] * len(data.slides)
    if not validation:
        edge = data.config.crop_size * data.config.scale_factors[0]
        outs = [
            hold_out(slide.index, edge, config.validation_share, config.seed)
            for slide in data.slides
        ]

    def sampler(
        slides: Sequence[TrainingSlide],
        seed: int,
        held: Sequence[HoldOut | None] | None,
        held_only: bool,
    ) -> CropSampler:
        return CropSampler(
            slides,
            data.config,
            foreground_share=config.foreground_share,
            seed=seed,
            hold_outs=held,
            held_only=held_only,
        )

    training = SegmentationDataset(
        sampler(data.slides, config.seed, outs, False),
        data.config,
        augmentation=augmentation_of(config),
        hold_outs=outs,
    )
    seed = config.seed + VALIDATION_SEED_OFFSET
    if validation:
        return training, SegmentationDataset(
            sampler(validation, seed, None, False), data.config
        )
    split = [(s, o) for s, o in zip(data.slides, outs, strict=True) if o is not None]
    if not split:
        # Too little annotated to hold anything out: the curve shows the training fit.
        return training, SegmentationDataset(
            sampler(data.slides, seed, None, False), data.config
        )
    slides, held = [s for s, _ in split], [o for _, o in split]
    return training, SegmentationDataset(
        sampler(slides, seed, held, True), data.config, hold_outs=held, held_only=True
    )


def count_validation_crops(
    segmenter: MuViTSegmenter,
    validation: SegmentationDataset,
    budget: Budget,
    config: TrainingConfig,
    device: torch.device,
) -> int:
    """How many crops a validation has: timed, so that a time budget is kept."""
    wanted = math.ceil(config.validation_crops / config.batch_size)
    budget.start()
    if math.isinf(budget.seconds):
        return config.validation_crops
    sample = validation[0]
    count = min(config.batch_size, config.validation_crops)
    pixels = sample.pixels[None].expand(count, *[-1] * sample.pixels.ndim).to(device)
    boxes = sample.bboxes[None].expand(count, -1, -1, -1).to(device)
    segmenter.to(device).eval()
    seconds = math.inf
    with torch.inference_mode():
        for _ in range(2):
            begun = time.monotonic()
            segmenter(pixels, boxes)
            seconds = min(seconds, time.monotonic() - begun)
    segmenter.train()
    batches = budget.validation_batches(1.3 * seconds, wanted)
    budget.reserve(1.3 * seconds * batches)
    return min(config.validation_crops, batches * config.batch_size)
