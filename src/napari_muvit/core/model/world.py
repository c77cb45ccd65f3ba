"""Features of one box seen at the place of another, through world coordinates.

This is the *context skip*: the coarser level's features at the fine crop's place.

Shapes: B batch, C channels, N spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_at(
    features: Tensor, source: Tensor, target: Tensor, shape: Sequence[int]
) -> Tensor:
    """Sample feature maps linearly at the pixel centres of another box.

    Parameters
    ----------
    features
        (B, C, *grid) maps that fill ``source`` edge to edge; N is 2 or 3.
    source
        (B, 2, N) world box of the maps.
    target
        (B, 2, N) world box to sample.
    shape
        Pixels of the result along each axis.

    Returns
    -------
    Tensor
        (B, C, *shape). Positions beyond the centres of the outermost pixels of
        ``source``, and outside it, take the nearest pixel's value.
    """
    extent = (source[:, 1] - source[:, 0]).float()
    start = (target[:, 0] - source[:, 0]).float() / extent
    step = (target[:, 1] - target[:, 0]).float() / extent
    axes = []
    for axis, count in enumerate(shape):
        centres = torch.arange(count, device=features.device).add(0.5).div(count)
        # -1 and 1 are the outer edges of the source, not its pixel centres.
        where = 2 * (start[:, axis, None] + centres * step[:, axis, None]) - 1
        view = [-1] + [1] * len(shape)
        view[axis + 1] = count
        axes.append(where.view(view).expand(-1, *shape))
    # grid_sample wants the last axis first.
    grid = torch.stack(axes[::-1], dim=-1)
    return F.grid_sample(
        features.float(),
        grid,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    ).to(features.dtype)


@dataclass(frozen=True, eq=False, slots=True)
class PlacedMaps:
    """Maps of the next coarser level for B crops; several crops may have the same ones.

    They are behind the finer level's projections already. Those are linear, as sampling
    is, so they may come first: then they are computed once for all crops.
    """

    maps: Sequence[Sequence[Tensor]]
    """Of each crop: (1, C, *grid), as many as the finer level adds."""
    source: Tensor
    """(B, 2, N) world boxes of the maps."""
    target: Tensor
    """(B, 2, N) world boxes of the crops."""

    def add_to(self, features: Tensor, which: int) -> Tensor:
        """Add a map at each crop's place to (B, C, *shape), in place where it can."""
        maps = [of_crop[which] for of_crop in self.maps]
        shape = features.shape[2:]
        if features.device.type != "cpu":
            return features + sample_at(
                torch.cat(maps), self.source, self.target, shape
            )
        boxes = torch.stack((self.source, self.target), dim=1).double().tolist()
        for crop, field, (source, target) in zip(features, maps, boxes, strict=True):
            _add_at(crop, field[0], source, target)
        return features


def _add_at(
    onto: Tensor,
    field: Tensor,
    source: Sequence[Sequence[float]],
    target: Sequence[Sequence[float]],
) -> None:
    """`sample_at` for one crop, added to (C, *shape).

    Linear interpolation along boxes' axes is a product with a small matrix an axis, of
    the few pixels that are seen: a fifth of the time of sampling point by point.
    """
    axes = range(onto.ndim - 1)
    weights, seen = [], []
    for axis in axes:
        weight, part = _axis_weights(
            field.shape[1 + axis], onto.shape[1 + axis],
            source[0][axis], source[1][axis], target[0][axis], target[1][axis],
        )  # fmt: skip
        weights.append(weight)
        seen.append(part)
    current = field[(slice(None), *seen)].movedim(0, -1).float()
    for axis in reversed(axes):
        shape = current.shape
        rows = current.reshape(*shape[:axis], shape[axis], math.prod(shape[axis + 1 :]))
        current = (weights[axis] @ rows).unflatten(-1, shape[axis + 1 :])
    onto += current.movedim(-1, 0)


def _axis_weights(
    count: int, size: int, low: float, high: float, start: float, stop: float
) -> tuple[Tensor, slice]:
    """Weights (size, seen) of the pixels that are seen along an axis, and which.

    Parameters
    ----------
    count, size
        Pixels of the field and of the crop.
    low, high, start, stop
        World edges of the field and of the crop.
    """
    centres = torch.arange(size, dtype=torch.float64).add_(0.5).div_(size)
    places = (start - low + centres * (stop - start)) / (high - low) * count - 0.5
    places = places.clamp_(0, count - 1)
    first = int(places[0])
    last = min(int(places[-1]) + 1, count - 1)
    pixels = torch.arange(first, last + 1, dtype=torch.float64)
    weights = 1 - (places[:, None] - pixels).abs()
    return weights.clamp_(min=0).float(), slice(first, last + 1)
