"""How much noise on its boxes a model stands.

Reference: MuViT (arXiv 2602.24222), section 4.7 and Fig. S3: Gaussian noise on the
world coordinates at prediction time.

Shapes: B batch, L levels, N spatial axes, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .mode import evaluating
from .scores import dice_from_confusion, mean_dice
from .tables import (
    factors_text,
    finite,
    folded_table,
    markdown_list,
    markdown_table,
    number,
    short,
)

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
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


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxNoiseResult:
    """How Dice falls with noise on the boxes of a model."""

    model: str
    """Name of the model folder."""
    class_names: tuple[str, ...]
    """K names in label order."""
    class_colors: tuple[str, ...]
    """K colours as ``#rrggbb``."""
    background: int | None
    """Label left out of mDSC."""
    scale_factors: tuple[float, ...]
    """Of the model's levels."""
    crop_size: int
    """Edge of a crop, pixels of its level."""
    rows: tuple[BoxNoiseRow, ...]
    """Points of the curve."""
    crops: int
    """Crops that were looked at."""
    images: tuple[str, ...]
    """Names."""
    seed: int
    """Of crops and noise."""
    notes: tuple[str, ...] = ()
    """What the reader should know."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; what is not defined is None."""
        return {
            "probe": "boxes",
            "model": self.model,
            "scale_factors": list(self.scale_factors),
            "crop_size": self.crop_size,
            "background": self.background,
            "curve": [
                {
                    "sigma": row.sigma,
                    "mDSC": finite(row.mdice),
                    "dice": dict(
                        zip(self.class_names, map(finite, row.dice), strict=True)
                    ),
                }
                for row in self.rows
            ],
            "crops": self.crops,
            "images": list(self.images),
            "seed": self.seed,
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """Return a text table: one line a sigma."""
        return folded_table([[short(cell) for cell in row] for row in self._rows()])

    def markdown(self) -> str:
        """Return all of it as a Markdown page."""
        facts = [
            f"model: {self.model}, levels {factors_text(self.scale_factors)}, crops of "
            f"{self.crop_size} px",
            f"{self.crops} crops of {len(self.images)} images, half of them around a "
            "foreground pixel; Dice is that of these crops pooled, not of whole slides",
            "sigma: standard deviation, in pixels of the finest level, of a shift of "
            "the box that the model is told, of each level and axis on its own",
            f"seed: {self.seed}",
            *self.notes,
        ]
        parts = [
            "# Dice against noise on the boxes", markdown_list(facts),
            markdown_table(self._rows()),
            "## Images", markdown_list([", ".join(self.images)]),
        ]  # fmt: skip
        return "\n\n".join(parts) + "\n"

    def figure(self) -> Figure:
        """Return a plot: Dice over sigma."""
        from .probe_plots import boxes_figure

        return boxes_figure(self)

    def _rows(self) -> list[tuple[str, ...]]:
        head = ("sigma", "mDSC", *self.class_names)
        return [
            head,
            *(
                (f"{row.sigma:g}", number(row.mdice), *map(number, row.dice))
                for row in self.rows
            ),
        ]


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
        Source of the noise, on any device; None: torch's own.

    Returns
    -------
    Tensor
        (B, L, 2, N), a new one.

    Raises
    ------
    ConfigError
        If ``sigma`` is negative or not finite, or the boxes are not such boxes.
    """
    import torch

    if bboxes.ndim != 4 or bboxes.shape[2] != 2 or not bboxes.is_floating_point():
        raise ConfigError(
            f"Boxes of shape {tuple(bboxes.shape)} and type {bboxes.dtype} were given; "
            "(batch, levels, 2, axes) of a floating point type is needed."
        )
    if not 0 <= sigma < float("inf"):
        raise ConfigError(f"sigma is {sigma}; zero or a positive number is needed.")
    batch, levels, _, axes = bboxes.shape
    device = generator.device if generator is not None else "cpu"
    noise = torch.randn(batch, levels, 1, axes, generator=generator, device=device)
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
        As a `MuViTSegmenter`: pixels (B, L, C, *spatial) and boxes (B, L, 2, N) to
        logits (B, K, *spatial). A module runs in evaluation mode, then is as before.
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
        If there is no batch or no sigma, a sigma cannot be, or labels do not fit.
    """
    import torch

    counts: list[NDArray[np.int64] | None] = [None] * len(sigmas)
    with evaluating(model), torch.inference_mode():
        for index, (pixels, bboxes, labels) in enumerate(batches):
            for place, sigma in enumerate(sigmas):
                generator = torch.Generator().manual_seed(seed + index)
                scores = model(pixels, jitter_boxes(bboxes, sigma, generator))
                found, before = _confusion(scores, labels), counts[place]
                counts[place] = found if before is None else before + found
    rows = []
    for sigma, confusion in zip(sigmas, counts, strict=True):
        if confusion is None:
            raise ConfigError("No batch was given; at least one is needed.")
        dice = tuple(map(float, dice_from_confusion(confusion)))
        rows.append(BoxNoiseRow(float(sigma), mean_dice(dice, background), dice))
    if not rows:
        raise ConfigError("No sigma was given; at least one is needed.")
    return tuple(rows)


def _confusion(scores: Tensor, labels: Tensor) -> NDArray[np.int64]:
    """(K + 1, K + 1) counts, truth along rows."""
    import torch

    classes = scores.shape[1] + 1
    if labels.shape != scores[:, 0].shape:
        raise ConfigError(
            f"Labels of shape {tuple(labels.shape)} were given for logits of shape "
            f"{tuple(scores.shape)}; {tuple(scores[:, 0].shape)} is needed."
        )
    truth = labels.long().flatten()
    if not torch.equal(truth, labels.flatten()):
        raise ConfigError("Labels that are no whole numbers were given.")
    if bool(((truth < 0) | (truth >= classes)).any()):
        raise ConfigError(
            f"Labels from {int(truth.min())} to {int(truth.max())} were given; this "
            f"model has 1 to {classes - 1}, and 0 is not annotated."
        )
    pairs = truth * classes + scores.max(dim=1).indices.flatten() + 1
    found = torch.bincount(pairs, minlength=classes**2)
    return found.view(classes, classes).cpu().numpy()
