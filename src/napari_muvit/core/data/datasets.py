"""Samples by index: nested crops, with their labels for segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..config import ModelConfig
from ..geometry import Box, naive_boxes
from .augment import (
    Augmentation,
    Turn,
    alike_axes,
    jitter_contrast,
    jitter_stains,
    jitter_told_boxes,
)
from .crops import read_crop
from .sampling import (
    CropSampler,
    DrawnCrop,
    HoldOut,
    PlainSlide,
    TrainingSlide,
    UniformSampler,
)


class PixelBatch(NamedTuple):
    """One sample without labels, or a batch of them after collation (leading B)."""

    pixels: Tensor
    """(L, C, *spatial), float32, normalised."""
    bboxes: Tensor
    """(L, 2, N), float32, world boxes relative to the finest box's lower corner."""


class CropBatch(NamedTuple):
    """One sample, or a batch of them after collation (leading B)."""

    pixels: Tensor
    """(L, C, *spatial), float32, normalised."""
    bboxes: Tensor
    """(L, 2, N), float32, world boxes relative to the finest box's lower corner."""
    labels: Tensor
    """(*spatial), uint8, finest level; 0 = not annotated."""
    coarse_shares: Tensor
    """(L - 1, K, *spatial), float32: share of each class in each coarser pixel; no
    levels when the model has no level heads."""


class MAEDataset(Dataset[PixelBatch]):
    """Nested crops without labels, by sample index, for pretraining.

    Parameters
    ----------
    sampler
        Where to crop.
    config
        The model to be fed.
    augmentation
        What is changed at random.
    """

    def __init__(
        self,
        sampler: UniformSampler,
        config: ModelConfig,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.sampler = sampler
        self.config = config
        self.augmentation = augmentation or Augmentation()

    def __getitem__(self, sample: int) -> PixelBatch:
        """Read, normalise and augment the sample with this index."""
        drawn = self.sampler.draw(sample)
        pixels, boxes, _ = read_sample(
            self.sampler, sample, drawn, self.config, self.augmentation
        )
        return PixelBatch(pixels, boxes)


class SegmentationDataset(Dataset[CropBatch]):
    """Nested crops with labels, by sample index.

    Parameters
    ----------
    sampler
        Where to crop.
    config
        The model to be fed.
    augmentation
        What is changed at random.
    hold_outs
        One a slide, or None; labels on the wrong side are not shown.
    held_only
        Show only the labels in held-out cells (validation).
    """

    def __init__(
        self,
        sampler: CropSampler,
        config: ModelConfig,
        *,
        augmentation: Augmentation | None = None,
        hold_outs: Sequence[HoldOut | None] | None = None,
        held_only: bool = False,
    ) -> None:
        self.sampler = sampler
        self.config = config
        self.augmentation = augmentation or Augmentation()
        self.hold_outs = list(hold_outs or [None] * len(sampler.slides))
        self.held_only = held_only

    def __getitem__(self, sample: int) -> CropBatch:
        """Read, normalise and augment the sample with this index."""
        drawn = self.sampler.draw(sample)
        pixels, boxes, turn = read_sample(
            self.sampler, sample, drawn, self.config, self.augmentation
        )
        labels = self.labels(drawn.slide, drawn.crop.boxes[0])
        shares = self._coarse_shares(drawn.slide, drawn.crop.boxes[1:])
        return CropBatch(
            pixels, boxes, _tensor(turn.pixels(labels)), _tensor(turn.pixels(shares))
        )

    def labels(self, slide: int, box: Box) -> NDArray[np.uint8]:
        """Return the labels of a finest box that this side may see, (*spatial)."""
        shape = (self.config.crop_size,) * self.config.ndim
        labels = self.sampler.slides[slide].annotations.rasterise(box, shape)
        if self.hold_outs[slide] is not None:
            labels *= self._sees(slide, box, shape)
        return labels

    def _coarse_shares(self, slide: int, boxes: Sequence[Box]) -> NDArray[np.float32]:
        config = self.config
        shape = (config.crop_size,) * config.ndim
        levels = boxes if config.level_heads else ()
        out = np.zeros((len(levels), config.num_classes, *shape), dtype=np.float32)
        annotations = self.sampler.slides[slide].annotations
        keep = None if self.hold_outs[slide] is None else partial(self._sees, slide)
        for index, box in enumerate(levels):
            shares = annotations.fractions(box, shape, config.num_classes, keep)
            out[index] = shares[1:]
        return out

    def _sees(self, slide: int, box: Box, shape: Sequence[int]) -> NDArray[np.bool_]:
        """Return which pixels of a box this side may see the labels of, (*shape)."""
        out = self.hold_outs[slide]
        if out is None:
            return np.ones(tuple(shape), dtype=bool)
        return np.asarray(out.mask(box, shape) == self.held_only)


def read_sample(
    sampler: UniformSampler | CropSampler,
    sample: int,
    drawn: DrawnCrop,
    config: ModelConfig,
    augmentation: Augmentation,
) -> tuple[Tensor, Tensor, Turn]:
    """Read a nested crop as the model is trained on it.

    What is changed at random follows from the sampler's seed and the sample's index.

    Returns
    -------
    pixels
        (L, C, *spatial), float32, normalised.
    boxes
        (L, 2, N), float32, relative to the finest box's lower corner.
    turn
        What was flipped and reordered, for the labels.
    """
    slide, crop = sampler.slides[drawn.slide], drawn.crop
    rng = np.random.default_rng([sampler.seed, sample, 1])
    turn = Turn.none(config.ndim)
    if augmentation.flips and augmentation.upright:
        turn = Turn.mirror(rng, config.ndim)
    elif augmentation.flips:
        groups = alike_axes(slide.pyramid.pixel_size, config.ndim)
        turn = Turn.draw(rng, config.ndim, groups)
    pixels = read_crop(slide.pyramid, crop, config, slide.normalisation)
    pixels = _jittered(pixels, slide, config, augmentation, rng)
    boxes = crop.as_array()
    if config.boxes == "naive":
        edge = (config.crop_size * 1.0,) * config.ndim
        boxes = naive_boxes(edge, config.scale_factors).as_array()
    boxes = turn.boxes(boxes)
    if augmentation.box_shift or augmentation.box_scale:
        boxes = jitter_told_boxes(
            boxes, augmentation.box_shift, augmentation.box_scale, rng
        )
    boxes = (boxes - boxes[:1, :1]).astype(np.float32)
    return _tensor(turn.pixels(pixels)), torch.from_numpy(boxes), turn


def _jittered(
    pixels: NDArray[np.float32],
    slide: PlainSlide | TrainingSlide,
    config: ModelConfig,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """One change for all levels, so that they stay one place."""
    if augmentation.intensity_jitter:
        values = config.background_value or (0.0,) * config.in_channels
        background = np.array(values, dtype=np.float32)
        pixels = jitter_contrast(pixels, background, augmentation.intensity_jitter, rng)
    if augmentation.stain_jitter and slide.pyramid.rgb:
        # Stains are a matter of the intensities as they were.
        white = _white(slide).reshape(-1, *[1] * config.ndim)
        raw = np.stack([slide.normalisation.revert(v) for v in pixels]) / white
        raw = jitter_stains(raw, augmentation.stain_jitter, rng) * white
        pixels = np.stack([slide.normalisation.apply(level) for level in raw])
    return pixels


def _white(slide: PlainSlide | TrainingSlide) -> NDArray[np.float32]:
    """Brightest value of red, green and blue: glass."""
    dtype = slide.pyramid.dtype
    high = np.array(slide.normalisation.high, dtype=np.float32)
    if dtype == np.uint8:
        return np.full_like(high, 255)
    if dtype.kind != "f" and (high <= 1).all():
        # Pixels that are not normalised.
        return np.full_like(high, np.iinfo(dtype).max)
    # Cameras of 12 bits fill a part of the type, floats run to 1 or to 255.
    return np.maximum(high, np.float32(1e-6))


def _tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
