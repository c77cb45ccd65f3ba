"""Segmentation samples: nested crops with their labels, flipped as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..config import ModelConfig
from ..geometry import Box, naive_boxes
from .crops import read_crop
from .sampling import CropSampler, HoldOut


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


Axes = tuple[int, ...]


def flip_pixels(
    array: NDArray[np.generic], flips: Sequence[bool], order: Axes
) -> NDArray[np.generic]:
    """Flip, then reorder, the last spatial axes of an array."""
    ndim = len(flips)
    lead = array.ndim - ndim
    axes = tuple(lead + a for a, flip in enumerate(flips) if flip)
    flipped = np.flip(array, axes) if axes else array
    return flipped.transpose(*range(lead), *(lead + a for a in order))


def flip_boxes(
    boxes: NDArray[np.float64], flips: Sequence[bool], order: Axes
) -> NDArray[np.float64]:
    """Mirror the world the same way; (L, 2, N) boxes in and out.

    A flip maps a coordinate v to -v, so the lower edge becomes the negative upper one.
    Where the origin lies does not matter to the model.
    """
    out = boxes.copy()
    for axis, flip in enumerate(flips):
        if flip:
            out[:, 0, axis], out[:, 1, axis] = -boxes[:, 1, axis], -boxes[:, 0, axis]
    return out[:, :, list(order)]


class SegmentationDataset(Dataset[CropBatch]):
    """Crops by sample index.

    Parameters
    ----------
    sampler
        Where to crop.
    config
        The model to be fed.
    flips
        Flip and transpose at random.
    intensity_jitter
        Largest relative change of the contrast to the background.
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
        flips: bool = False,
        intensity_jitter: float = 0.0,
        hold_outs: Sequence[HoldOut | None] | None = None,
        held_only: bool = False,
    ) -> None:
        self.sampler = sampler
        self.config = config
        self.flips = flips
        self.intensity_jitter = intensity_jitter
        self.hold_outs = list(hold_outs or [None] * len(sampler.slides))
        self.held_only = held_only

    def __getitem__(self, sample: int) -> CropBatch:
        """Read, normalise and augment the sample with this index."""
        drawn = self.sampler.draw(sample)
        slide = self.sampler.slides[drawn.slide]
        config = self.config
        rng = np.random.default_rng([self.sampler.seed, sample, 1])
        flips = [self.flips and bool(rng.integers(2)) for _ in range(config.ndim)]
        order = tuple(range(config.ndim))
        if self.flips:
            order = tuple(int(a) for a in rng.permutation(config.ndim))
        pixels = read_crop(slide.pyramid, drawn.crop, config, slide.normalisation)
        pixels = self._jittered(pixels, rng)
        labels = self._labels(drawn.slide, drawn.crop.boxes[0])
        shares = self._coarse_shares(drawn.slide, drawn.crop.boxes[1:])
        boxes = drawn.crop.as_array()
        if config.boxes == "naive":
            edge = (config.crop_size * 1.0,) * config.ndim
            boxes = naive_boxes(edge, config.scale_factors).as_array()
        boxes = flip_boxes(boxes, flips, order)
        boxes = boxes - boxes[:1, :1]
        return CropBatch(
            torch.from_numpy(np.ascontiguousarray(flip_pixels(pixels, flips, order))),
            torch.from_numpy(boxes.astype(np.float32)),
            torch.from_numpy(np.ascontiguousarray(flip_pixels(labels, flips, order))),
            torch.from_numpy(np.ascontiguousarray(flip_pixels(shares, flips, order))),
        )

    def _jittered(
        self, pixels: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """One contrast for all levels, so that they stay one place.

        Around the background, which stays as it is: a shift of the brightness would
        drown what is left of sparse bright cells at a coarse level.
        """
        if not self.intensity_jitter:
            return pixels
        contrast = np.float32(1 + self.intensity_jitter * rng.uniform(-1, 1))
        config = self.config
        values = config.background_value or (0.0,) * config.in_channels
        background = np.array(values, dtype=np.float32)
        background = background.reshape(1, -1, *[1] * config.ndim)
        return background + (pixels - background) * contrast

    def _labels(self, slide: int, box: Box) -> NDArray[np.uint8]:
        shape = (self.config.crop_size,) * self.config.ndim
        labels = self.sampler.slides[slide].annotations.rasterise(box, shape)
        out = self.hold_outs[slide]
        if out is not None:
            labels = np.where(out.mask(box, shape) == self.held_only, labels, 0)
        return labels.astype(np.uint8)

    def _coarse_shares(self, slide: int, boxes: Sequence[Box]) -> NDArray[np.float32]:
        config = self.config
        shape = (config.crop_size,) * config.ndim
        levels = boxes if config.level_heads else ()
        out = np.zeros((len(levels), config.num_classes, *shape), dtype=np.float32)
        annotations = self.sampler.slides[slide].annotations
        hold_out = self.hold_outs[slide]
        for index, box in enumerate(levels):
            shares = annotations.fractions(box, shape, config.num_classes)[1:]
            if hold_out is not None:
                shares = shares * (hold_out.mask(box, shape) == self.held_only)
            out[index] = shares
        return out
