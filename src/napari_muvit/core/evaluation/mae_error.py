"""Reconstruction error of masked autoencoders, level by level, by what boxes they get.

Reference: MuViT (arXiv 2602.24222), Table 2.

Shapes: A arms, n crops, B batch, L levels, m patches a level, P pixels of a patch, N
spatial axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import BoxMode, ModelConfig
from ..errors import ConfigError
from ..geometry import naive_boxes
from ..model.mae import MuViTMAE
from ..model.masking import TokenMask, draw_mask, mask_from_hidden
from ..model.patches import patchify
from ..progress import StopFn, check_stop, never_stop
from .mode import evaluating
from .tables import (
    factors_text,
    finite,
    folded_table,
    markdown_list,
    markdown_table,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MAEArm:
    """A model and what it is told of where its crops lie."""

    name: str
    """Of the model."""
    model: MuViTMAE
    """Run in evaluation mode, then left as it was."""
    boxes: BoxMode
    """``true`` or ``naive``."""


@dataclass(frozen=True, slots=True)
class MAEErrorRow:
    """Errors of one arm; one number a level, NaN where nothing was hidden."""

    model: str
    """Name of the model."""
    boxes: BoxMode
    """What boxes it got."""
    error: tuple[float, ...]
    """Mean over the crops of the mean squared error of the hidden patches."""
    standard_error: tuple[float, ...]
    """Of that mean."""
    difference: tuple[float, ...]
    """Mean over the same crops of this arm's error minus the first arm's."""
    difference_error: tuple[float, ...]
    """Standard error of that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MAEErrorResult:
    """What true boxes are worth to a masked autoencoder, level by level."""

    scale_factors: tuple[float, ...]
    """Of the L levels."""
    rows: tuple[MAEErrorRow, ...]
    """One an arm; the first is the one that the others are compared with."""
    guess: tuple[float, ...]
    """Error, one number a level, of guessing the mean of the level's visible patches:
    a model that is no better has learned nothing of the level."""
    crops: tuple[int, ...]
    """Crops with a hidden patch, one number a level."""
    images: tuple[str, ...]
    """Names."""
    mask_ratio: float
    """Share of the tokens that was hidden."""
    unit: str
    """What the errors are squares of."""
    seed: int
    """Of crops and masks."""
    notes: tuple[str, ...] = ()
    """What the reader should know."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; what is not defined is None."""
        rows = []
        for row in self.rows:
            figures = zip(row.error, row.standard_error, row.difference,
                          row.difference_error, strict=True)  # fmt: skip
            rows.append({
                "model": row.model,
                "boxes": row.boxes,
                "levels": [
                    {
                        "scale_factor": factor,
                        "error": finite(error),
                        "standard_error": finite(spread),
                        "difference": finite(difference),
                        "difference_standard_error": finite(difference_spread),
                    }
                    for factor, (error, spread, difference, difference_spread) in zip(
                        self.scale_factors, figures, strict=True
                    )
                ],
            })  # fmt: skip
        return {
            "probe": "mae",
            "rows": rows,
            "error_of_the_mean_visible_patch": [finite(v) for v in self.guess],
            "crops": list(self.crops),
            "images": list(self.images),
            "mask_ratio": self.mask_ratio,
            "unit": self.unit,
            "seed": self.seed,
            "notes": list(self.notes),
        }

    def titles(self) -> list[str]:
        """What to call each row."""
        several = len({row.model for row in self.rows}) > 1
        return [
            f"{row.model}, {row.boxes} boxes" if several else f"{row.boxes} boxes"
            for row in self.rows
        ]

    def table(self) -> str:
        """Return a text table: one line a level."""
        return folded_table(self._rows())

    def markdown(self) -> str:
        """Return all of it as a Markdown page."""
        facts = [
            f"levels: {factors_text(self.scale_factors)}",
            f"{max(self.crops, default=0)} crops of {len(self.images)} images, "
            f"{100 * self.mask_ratio:g} % of the tokens hidden; the same crops and "
            "the same masks for every column",
            f"error: mean over the crops ± its standard error, in squares of "
            f"{self.unit}",
            f"difference: to {self.titles()[0]}, paired (on the same crops); above 0 "
            "it is worse",
            "guess: the error of guessing the mean of the level's visible patches; a "
            "model that is no better has learned nothing of the level",
            f"seed: {self.seed}",
            *self.notes,
        ]
        parts = [
            "# Reconstruction error by level", markdown_list(facts),
            markdown_table(self._rows()),
            "## Images", markdown_list([", ".join(self.images)]),
        ]  # fmt: skip
        return "\n\n".join(parts) + "\n"

    def figure(self) -> Figure:
        """Return a plot: errors by level, and the differences."""
        from .probe_plots import mae_figure

        return mae_figure(self)

    def relative(self, row: MAEErrorRow) -> tuple[Floats, Floats]:
        """Difference and its standard error in per cent of the first row's error."""
        base = np.array(self.rows[0].error)
        scale = np.full_like(base, np.nan)
        np.divide(100.0, base, out=scale, where=base > 0)
        return np.array(row.difference) * scale, np.array(row.difference_error) * scale

    def _rows(self) -> list[tuple[str, ...]]:
        titles = self.titles()
        others = list(zip(titles, self.rows, strict=True))[1:]
        head = ["level", "crops", "guess", *titles]
        head += [f"{title}: difference" for title, _ in others]
        table: list[tuple[str, ...]] = [tuple(head)]
        for place, factor in enumerate(self.scale_factors):
            cells = [f"{factor:g}", str(self.crops[place])]
            cells.append(_pair(self.guess[place], np.nan))
            cells += [_pair(r.error[place], r.standard_error[place]) for r in self.rows]
            for _, row in others:
                share, spread = self.relative(row)
                found = _pair(row.difference[place], row.difference_error[place])
                part = _pair(share[place], spread[place], "+.1f", ".1f")
                cells.append(f"{found} ({part} %)")
            table.append(tuple(cells))
        return table


def _pair(value: float, error: float, form: str = ".3e", spread: str = ".1e") -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:{form}} ± {error:{spread}}" if np.isfinite(error) else (
        f"{value:{form}}"
    )  # fmt: skip


def crop_masks(config: ModelConfig, first: int, count: int, seed: int) -> TokenMask:
    """Draw the masks of some crops; each follows from the seed and its crop's index.

    Parameters
    ----------
    config
        Gives the tokens, the share that is hidden, and how it is shared among levels.
    first, count
        Indices of the crops are ``first`` to ``first + count - 1``.
    seed
        Of the masks.

    Returns
    -------
    TokenMask
        On the CPU.
    """
    patches = 1
    for edge in config.patch:
        patches *= config.crop_size // edge
    hidden = []
    for index in range(first, first + count):
        state = np.random.SeedSequence([seed, index]).generate_state(1)[0]
        mask = draw_mask(
            1, len(config.scale_factors), patches, ratio=config.mask_ratio,
            shares=config.mask_shares,
            generator=torch.Generator().manual_seed(int(state)),
        )  # fmt: skip
        hidden.append(mask.hidden)
    return mask_from_hidden(torch.cat(hidden))


def mae_errors(
    arms: Sequence[MAEArm],
    batches: Iterable[Sequence[Tensor]],
    *,
    seed: int = 0,
    should_stop: StopFn = never_stop,
) -> tuple[Floats, Floats]:
    """Error of each arm on the same crops with the same masks.

    Parameters
    ----------
    arms
        Of the same levels, crops and patches; the first says how much is hidden.
    batches
        Pixels (B, L, C, *spatial) and true world boxes (B, L, 2, N).
    seed
        Of the masks; a crop's mask does not depend on the size of the batches.
    should_stop
        Asked before each run of a model.

    Returns
    -------
    errors, guesses
        (A, n, L) mean squared errors over the hidden patches of a crop's level, and
        (n, L) those of guessing the mean of its visible patches; float64, NaN where
        nothing is hidden.

    Raises
    ------
    ConfigError
        If there is no arm or no crop.
    Cancelled
        If ``should_stop`` said so.
    """
    if not arms:
        raise ConfigError("No model was given; at least one is needed.")
    config = arms[0].model.config
    edge = (float(config.crop_size),) * config.ndim
    naive = naive_boxes(edge, config.scale_factors).as_array()
    found, guessed, done = [], [], 0
    for pixels, bboxes in batches:
        mask = crop_masks(config, done, len(pixels), seed)
        mask = TokenMask(mask.visible.to(pixels.device), mask.hidden.to(pixels.device))
        wrong = torch.from_numpy(naive - naive[:1, :1]).to(bboxes).expand_as(bboxes)
        errors = []
        for arm in arms:
            check_stop(should_stop)
            told = wrong if arm.boxes == "naive" else bboxes
            with evaluating(arm.model), torch.inference_mode():
                errors.append(arm.model(pixels, told, mask).crop_losses.cpu().numpy())
        found.append(np.stack(errors).astype(np.float64))
        guessed.append(_guess(arms[0].model, pixels, mask).cpu().numpy())
        done += len(pixels)
    if not found:
        raise ConfigError("No crop was given; at least one is needed.")
    return np.concatenate(found, axis=1), np.concatenate(guessed).astype(np.float64)


def _guess(model: MuViTMAE, pixels: Tensor, mask: TokenMask) -> Tensor:
    """(B, L) errors of a level's mean visible patch; of all levels' without any."""
    target = model.target(patchify(pixels, model.config.patch)).float()
    hidden = mask.hidden.view(*target.shape[:3], 1).to(target.dtype)
    shown = 1 - hidden
    counts = shown.sum(dim=2)
    everything = (target * shown).sum(dim=(1, 2)) / counts.sum(dim=1)
    means = (target * shown).sum(dim=2) / counts
    means = torch.where(counts > 0, means, everything[:, None])
    errors = (target - means[:, :, None]).square().mean(dim=3, keepdim=True)
    return ((errors * hidden).sum(dim=2) / hidden.sum(dim=2))[..., 0]


def summarise(
    arms: Sequence[MAEArm], errors: Floats
) -> tuple[tuple[MAEErrorRow, ...], tuple[int, ...]]:
    """Means and standard errors over the crops.

    Parameters
    ----------
    arms
        A of them.
    errors
        (A, n, L) of `mae_errors`.

    Returns
    -------
    rows, crops
        One row an arm; crops that have an error, one number a level.
    """
    rows = []
    for arm, own in zip(arms, errors, strict=True):
        error, spread = mean_and_error(own)
        difference, difference_spread = mean_and_error(own - errors[0])
        rows.append(
            MAEErrorRow(
                arm.name, arm.boxes, error, spread, difference, difference_spread
            )
        )
    counts = np.isfinite(errors[0]).sum(axis=0)
    return tuple(rows), tuple(int(v) for v in counts)


def mean_and_error(values: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard error of each column of (n, L), without NaN."""
    means, errors = [], []
    for column in values.T:
        known = column[np.isfinite(column)]
        means.append(float(known.mean()) if len(known) else float("nan"))
        several = len(known) > 1
        spread = known.std(ddof=1) / np.sqrt(len(known)) if several else float("nan")
        errors.append(float(spread))
    return tuple(means), tuple(errors)
