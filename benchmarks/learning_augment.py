"""Turns by any angle and changes of size, tried on the learning benchmarks.

A turned world: the coarse boxes are drawn around the fine one in it, so the boxes that
the model is told are exact; each level is read from a larger box and resampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from napari_muvit.core import Box, ModelConfig
from napari_muvit.core.data.augment import Augmentation, Turn, jitter_contrast
from napari_muvit.core.data.datasets import CropBatch
from napari_muvit.core.data.sampling import CropSampler


@dataclass(frozen=True)
class Turning:
    """How far a crop may be turned (degrees), scaled (share) and mirrored."""

    angle: float
    zoom: float
    mirror: bool

    @property
    def reach(self) -> float:
        """Edge of the box to read, as a multiple of the crop's."""
        angle = math.radians(min(self.angle, 45.0))
        return (math.cos(angle) + math.sin(angle)) * (1 + self.zoom) + 0.05


class TurningDataset(Dataset[CropBatch]):
    """As `SegmentationDataset`, in a turned and scaled world; 2D only."""

    def __init__(
        self,
        sampler: CropSampler,
        config: ModelConfig,
        augmentation: Augmentation,
        turning: Turning,
    ) -> None:
        self.sampler, self.config, self.turning = sampler, config, turning
        self.augmentation = augmentation
        self.pixels = 8 * math.ceil(config.crop_size * turning.reach / 8)

    def __getitem__(self, sample: int) -> CropBatch:
        """Read, turn, normalise."""
        config, turning = self.config, self.turning
        drawn = self.sampler.draw(sample)
        slide = self.sampler.slides[drawn.slide]
        rng = np.random.default_rng([self.sampler.seed, sample, 2])
        angle = math.radians(turning.angle) * rng.uniform(-1, 1)
        zoom = 1 + turning.zoom * rng.uniform(-1, 1)
        matrix = zoom * np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        if turning.mirror and rng.integers(2):
            matrix = matrix @ np.diag([1.0, -1.0])
        # World vectors of the turned frame's axes are the columns of the matrix.
        fine = np.array(drawn.crop.boxes[0].centre)
        told = [b.as_array() for b in drawn.crop.boxes]
        offsets = [self._offset(b.mean(axis=0) - fine, matrix) for b in told]
        background = np.array(config.background_value, dtype=np.float32)
        fill = slide.normalisation.undo(tuple(background.tolist()))
        read, boxes, shares = [], [], []
        labels = None
        for level, (offset, factor) in enumerate(
            zip(offsets, config.scale_factors, strict=True)
        ):
            edge = config.crop_size * factor
            centre = fine + matrix @ offset
            half = 0.5 * self.pixels * factor
            box = Box(tuple(centre - half), tuple(centre + half))
            shape = (self.pixels,) * 2
            pixels = slide.pyramid.read(box, factor, shape, fill=fill)
            pixels = slide.normalisation.apply(pixels)
            grid = self._grid(matrix)
            read.append(_sampled(pixels, grid, "bilinear"))
            boxes.append(np.stack([fine + offset - edge / 2, fine + offset + edge / 2]))
            if level == 0:
                found = slide.annotations.rasterise(box, shape)[None]
                labels = _sampled(found, grid, "nearest")[0].to(torch.uint8)
            elif config.level_heads:
                found = slide.annotations.fractions(box, shape, config.num_classes)[1:]
                shares.append(_sampled(found, grid, "bilinear"))
        stacked = torch.stack(read).numpy()
        if self.augmentation.intensity_jitter:
            amount = self.augmentation.intensity_jitter
            stacked = jitter_contrast(stacked, background, amount, rng)
        turn = Turn.none(2)
        if self.augmentation.flips and not self.turning.mirror:
            turn = Turn.draw(rng, 2)
        array = turn.boxes(np.stack(boxes))
        array = (array - array[:1, :1]).astype(np.float32)
        coarse = (
            torch.stack(shares).numpy()
            if shares
            else np.zeros((0, config.num_classes, *stacked.shape[2:]), dtype=np.float32)
        )
        return CropBatch(
            _tensor(turn.pixels(stacked)),
            torch.from_numpy(array),
            _tensor(turn.pixels(labels.numpy())),
            _tensor(turn.pixels(coarse)),
        )

    def _offset(self, offset: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Centre of a level against the fine one in the turned frame.

        Kept inside what nesting allows, so that the fine box stays in the coarse one.
        """
        found = np.linalg.inv(matrix) @ offset
        limit = np.abs(offset).max()
        return np.clip(found, -limit, limit)

    def _grid(self, matrix: np.ndarray) -> Tensor:
        """(1, h, w, 2) places of the crop's pixels in the box that is read."""
        edge = self.config.crop_size
        steps = np.arange(edge) + 0.5 - edge / 2
        y, x = np.meshgrid(steps, steps, indexing="ij")
        place = np.einsum("ij,jhw->hwi", matrix, np.stack([y, x])) / (self.pixels / 2)
        return torch.from_numpy(place[None, :, :, ::-1].astype(np.float32).copy())


def _sampled(array: np.ndarray, grid: Tensor, mode: str) -> Tensor:
    """(C, h, w) at the places of the grid."""
    source = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None]
    return F.grid_sample(source, grid, mode=mode, align_corners=False)[0]


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
