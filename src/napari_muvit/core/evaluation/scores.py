"""What a confusion matrix says of one slide or of several: Dice, mDSC, accuracy.

References: Dice similarity and its mean over the classes that occur (mDSC).

Shapes: K classes; a confusion matrix is (K + 1, K + 1), truth along rows and
prediction along columns, with index 0 for *not annotated* and *not predicted*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .tables import (
    finite,
    folded_table,
    markdown_list,
    markdown_table,
    number,
    short,
    text_table,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Confusion = NDArray[np.int64]
MAX_NAMED = 6
"""Classes that a sentence names."""


def dice_from_confusion(confusion: Confusion) -> NDArray[np.float64]:
    """Dice of each class from a confusion matrix.

    Truth 0 (not annotated) is left out. Prediction 0 (not predicted) is wrong.

    Parameters
    ----------
    confusion
        (K + 1, K + 1) counts, truth along rows.

    Returns
    -------
    ndarray
        (K,), float64; NaN for a class in neither truth nor prediction.
    """
    known = np.asarray(confusion, dtype=np.float64)[1:]
    both = np.diagonal(known[:, 1:])
    total = known.sum(axis=1) + known[:, 1:].sum(axis=0)
    dice = np.full(len(known), np.nan)
    np.divide(2 * both, total, out=dice, where=total > 0)
    return dice


def mean_dice(dice: Sequence[float], background: int | None = None) -> float:
    """MDSC: mean Dice of the foreground classes that occur.

    Parameters
    ----------
    dice
        One number a class, NaN for a class that does not occur; label k at k - 1.
    background
        Label that is left out, or None.

    Returns
    -------
    float
        NaN when no foreground class occurs.
    """
    values = np.asarray(dice, dtype=np.float64)
    counted = np.isfinite(values)
    if background is not None and 1 <= background <= len(values):
        counted[background - 1] = False
    return float(values[counted].mean()) if counted.any() else float("nan")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Evaluation:
    """How a prediction, or several pooled, compare with the truth."""

    confusion: Confusion
    """(K + 1, K + 1) pixels, truth along rows; int64."""
    class_names: tuple[str, ...]
    """K names in label order."""
    background: int | None = None
    """Label left out of mDSC."""
    name: str = ""
    """Name of the slide; empty for the pooled result."""
    slides: tuple[Evaluation, ...] = ()
    """The same for each slide, of a pooled result; empty for a slide."""

    @property
    def dice(self) -> tuple[float, ...]:
        """Dice of each class, NaN for a class that does not occur."""
        return tuple(float(v) for v in dice_from_confusion(self.confusion))

    @property
    def mdice(self) -> float:
        """mDSC: mean Dice of the foreground classes that occur, else NaN."""
        return mean_dice(self.dice, self.background)

    @property
    def accuracy(self) -> float:
        """Share of annotated pixels with the right label, NaN without any."""
        known = self.confusion[1:]
        total = int(known.sum())
        return float(np.trace(known[:, 1:])) / total if total else float("nan")

    @property
    def pixels(self) -> tuple[int, ...]:
        """Annotated pixels of each class."""
        return tuple(int(v) for v in self.confusion[1:].sum(axis=1))

    @property
    def not_predicted(self) -> int:
        """Annotated pixels for which there is no prediction."""
        return int(self.confusion[1:, 0].sum())

    @property
    def slide_mdice(self) -> tuple[float, float]:
        """Mean and standard deviation of mDSC over the slides that have one."""
        values = [s.mdice for s in self.slides if np.isfinite(s.mdice)]
        if not values:
            return float("nan"), float("nan")
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        return float(np.mean(values)), spread

    def shares(self) -> NDArray[np.float64]:
        """Confusion as shares of each class's annotated pixels.

        Returns
        -------
        ndarray
            (K, K + 1), truth along rows, float64; column 0 is not predicted. NaN in
            the row of a class that is not annotated.
        """
        known = self.confusion[1:].astype(np.float64)
        total = known.sum(axis=1, keepdims=True)
        shares = np.full_like(known, np.nan)
        np.divide(known, total, out=shares, where=total > 0)
        return shares

    def about_mean(self) -> str:
        """Say over which classes mDSC is the mean, and which the labels do not show."""
        rest = [k for k in range(1, len(self.class_names) + 1) if k != self.background]
        dice = self.dice
        counted = [k for k in rest if np.isfinite(dice[k - 1])]
        absent = [k for k in rest if k not in counted]
        unmarked = [k for k in counted if not self.pixels[k - 1]]
        said = f"mDSC is the mean of {self._named(counted)}"
        if self.background is None:
            said += "; no class is left out (--background)"
        else:
            said += f", without {self.class_names[self.background - 1]}"
        if absent:
            said += f". Not found, so left out: {self._named(absent)}"
        if unmarked:
            said += (
                ". Predicted, but without an annotated pixel, so that Dice is 0 and "
                f"counts: {self._named(unmarked)}"
            )
        return f"{said}."

    def _named(self, labels: Sequence[int]) -> str:
        """Class names in a sentence; of many the first ones."""
        names = [self.class_names[k - 1] for k in labels]
        if not names:
            return "no class"
        if len(names) > MAX_NAMED:
            return f"{', '.join(names[:MAX_NAMED])} and {len(names) - MAX_NAMED} more"
        return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; what is not defined is None.

        A pooled result has the slides as ``slides``, a slide its ``name``.
        """
        content: dict[str, Any] = {"name": self.name} if self.name else {}
        content |= {
            "mDSC": finite(self.mdice),
            "accuracy": finite(self.accuracy),
            "background": self.background,
            "about": self.about_mean(),
            "classes": [
                {
                    "label": label,
                    "name": name,
                    "dice": finite(dice),
                    "pixels": self.pixels[label - 1],
                }
                for label, (name, dice) in enumerate(
                    zip(self.class_names, self.dice, strict=True), start=1
                )
            ],
            "not_predicted": self.not_predicted,
            "confusion": self.confusion.tolist(),
        }
        if self.slides:
            mean, spread = self.slide_mdice
            content["mDSC_of_slides"] = {
                "mean": finite(mean),
                "standard_deviation": finite(spread),
            }
            content["slides"] = [slide.to_dict() for slide in self.slides]
        return content

    def table(self) -> str:
        """Return a text table: one line a class, then mDSC and accuracy."""
        rows = self._class_rows()
        rows.append(("", "mDSC", number(self.mdice), ""))
        rows.append(("", "accuracy", number(self.accuracy), f"{sum(self.pixels):,}"))
        table = f"{text_table(rows, left=(1,))}\n{self.about_mean()}"
        missed = self.not_predicted
        if missed:
            table += f"\n{missed:,} annotated pixels are not predicted: wrong."
        return table

    def slide_table(self) -> str:
        """Return a text table: one line a slide, with mDSC and Dice of each class."""
        return folded_table([[short(cell) for cell in row] for row in self._slides()])

    def markdown(self) -> str:
        """Return all of it as a Markdown page."""
        head = [f"# Evaluation of {self.name}" if self.name else "# Evaluation"]
        mean, spread = self.slide_mdice
        several = len(self.slides) > 1
        missed = self.not_predicted
        facts = [
            f"mean Dice (mDSC): **{number(self.mdice)}**"
            + (" (the pixels of all slides together)" if several else "")
            + "; 1 is the same as the annotation, 0 no overlap",
            f"mDSC of {len(self.slides)} slides: {number(mean)} ± {number(spread)} "
            "(mean and standard deviation)"
            if several
            else "",
            self._lowest(),
            self.about_mean(),
            f"accuracy: {number(self.accuracy)} of the annotated pixels are right",
            f"annotated pixels: {sum(self.pixels):,}",
            f"annotated pixels without a prediction, which count as wrong: {missed:,}"
            if missed
            else "",
        ]
        parts = [*head, markdown_list(facts), "## Classes"]
        parts.append(markdown_table(self._class_rows(), left=(1,)))
        if several:
            parts += ["## Slides", markdown_table(self._slides())]
        parts += ["## Confusion", "What each class was taken for, in per cent of its "
                  "annotated pixels: annotated along rows, predicted along columns.",
                  markdown_table(self._confusion_rows())]  # fmt: skip
        return "\n\n".join(parts) + "\n"

    def figure(self) -> Figure:
        """Return a plot: Dice of each class, and the confusion matrix."""
        from .plots import evaluation_figure

        return evaluation_figure(self)

    def as_row(self) -> tuple[str, ...]:
        """Name, mDSC, accuracy, pixels and Dice of each class, as cells of a table."""
        figures = number(self.mdice), number(self.accuracy), f"{sum(self.pixels):,}"
        return (self.name, *figures, *map(number, self.dice))

    def _lowest(self) -> str:
        """Name the slide to look at first."""
        known = [s for s in self.slides if np.isfinite(s.mdice)]
        if len(known) < 2:
            return ""
        slide = min(known, key=lambda s: s.mdice)
        return f"lowest mDSC of a slide: {number(slide.mdice)}, {slide.name}"

    def _class_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("label", "class", "Dice", "annotated pixels")]
        for label, (name, dice) in enumerate(
            zip(self.class_names, self.dice, strict=True), start=1
        ):
            note = " (background)" if label == self.background else ""
            rows.append(
                (str(label), name + note, number(dice), f"{self.pixels[label - 1]:,}")
            )
        return rows

    def _slides(self) -> list[tuple[str, ...]]:
        head = ("slide", "mDSC", "accuracy", "annotated pixels", *self.class_names)
        return [head, *(slide.as_row() for slide in self.slides)]

    def _confusion_rows(self) -> list[tuple[str, ...]]:
        shares = self.shares()
        last = ("not predicted",) if self.not_predicted else ()
        rows: list[tuple[str, ...]] = [("annotated as", *self.class_names, *last)]
        for name, row in zip(self.class_names, shares, strict=True):
            cells = [number(100 * v, 1) for v in (*row[1:], *row[: len(last)])]
            rows.append((name, *cells))
        return rows
