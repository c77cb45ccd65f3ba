"""How much noise on its boxes a model stands.

Reference: MuViT (arXiv 2602.24222), section 4.7 and Fig. S3: Gaussian noise on the
world coordinates at prediction time.

Shapes: B batch, L levels, N spatial axes, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError
from .dice import dice_from_confusion, mean_dice

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class BoxNoiseRow:
    """A point of the curve."""

    sigma: float
    """Standard deviation of the noise, world pixels."""
    mdice: float
    """Mean Dice of the classes that occur, without the background."""
    dice: tuple[float, ...]
    """Dice of each class, NaN for one that does not occur."""


def jitter_boxes(
    bboxes: Tensor, sigma: float, generator: torch.Generator | None = None
) -> Tensor:
    """Shift each level's box at random.

    Both corners shift alike, so extents stay; levels and axes shift independently.

    Parameters
    ----------
    bboxes
        (B, L, 2, N) world boxes, floating point.
    sigma
        Standard deviation of the shift, in world pixels (of the finest level).
    generator
        Source of the noise, on the CPU wherever the boxes are; None: torch's own.

    Returns
    -------
    Tensor
        (B, L, 2, N), a new one.

    Raises
    ------
    ConfigError
        If ``sigma`` is negative or not finite.
    """
    import torch

    if not 0 <= sigma < float("inf"):
        raise ConfigError(f"sigma is {sigma}; zero or a positive number is needed.")
    batch, levels, _, axes = bboxes.shape
    noise = torch.randn(batch, levels, 1, axes, generator=generator)
    return bboxes + sigma * noise.to(bboxes)


def box_noise_curve(
    model: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    sigmas: Sequence[float],
    *,
    background: int | None = None,
    seed: int = 0,
) -> tuple[BoxNoiseRow, ...]:
    """Dice of a model at several levels of noise, on the same crops.

    Parameters
    ----------
    model
        As a `MuViTSegmenter` in evaluation mode: pixels (B, L, C, *spatial) and boxes
        (B, L, 2, N) to logits (B, K, *spatial).
    batches
        Pixels, boxes and labels (B, *spatial), 0 = not annotated; passed over once.
    sigmas
        Standard deviations, world pixels.
    background
        Label that does not count in the mean.
    seed
        The same noise, scaled, at every sigma and in every run.

    Raises
    ------
    ConfigError
        If there is no batch, or a sigma cannot be.
    """
    import torch

    counts: dict[int, Tensor] = {}
    for index, (pixels, bboxes, labels) in enumerate(batches):
        for place, sigma in enumerate(sigmas):
            generator = torch.Generator().manual_seed(seed + index)
            with torch.inference_mode():
                scores = model(pixels, jitter_boxes(bboxes, sigma, generator))
            classes = scores.shape[1] + 1
            pairs = labels.long() * classes + scores.max(dim=1).indices + 1
            found = torch.bincount(pairs.flatten(), minlength=classes**2).cpu()
            counts[place] = counts.get(place, torch.zeros_like(found)) + found
    if not counts:
        raise ConfigError("No batch was given; at least one is needed.")
    rows = []
    for place, sigma in enumerate(sigmas):
        classes = round(len(counts[place]) ** 0.5)
        confusion = counts[place].view(classes, classes).numpy().astype(np.int64)
        dice = tuple(map(float, dice_from_confusion(confusion)))
        rows.append(BoxNoiseRow(float(sigma), mean_dice(dice, background), dice))
    return tuple(rows)
