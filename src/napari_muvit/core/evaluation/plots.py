"""Plot of an evaluation: Dice of each class, and the confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..figures import new_figure
from .tables import number, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .scores import Evaluation

FOREGROUND, BACKGROUND, DOT = "#4477aa", "#bbbbbb", "#222222"
CELL = 0.44
"""Edge of a cell of the confusion matrix, inches."""
MOST_TEXT = 30
"""Classes from which on the cells of a confusion matrix hold no numbers."""
LARGEST = 14.0
"""Edge of the confusion matrix, inches, however many classes there are."""


def evaluation_figure(evaluation: Evaluation) -> Figure:
    """Draw Dice of each class as bars, and the confusion as shares of the truth.

    Of several slides each one is a dot upon the bar.
    """
    count = len(evaluation.class_names)
    edge = min(LARGEST, max(2.2, CELL * count))
    label = 0.09 * max([len(short(n, 20)) for n in evaluation.class_names] or [0])
    bars = 4.2
    figure = new_figure(bars + edge + 2 * label + 1.6, edge + label + 1.1)
    left, right = figure.subplots(1, 2, width_ratios=(bars, edge + 0.8))
    _draw_dice(left, evaluation)
    _draw_confusion(right, evaluation)
    return figure


def _draw_dice(axes: Axes, evaluation: Evaluation) -> None:
    """Bars from top to bottom in label order."""
    count = len(evaluation.class_names)
    places = np.arange(count)
    dice = np.array(evaluation.dice, dtype=np.float64)
    colors = [
        BACKGROUND if k == evaluation.background else FOREGROUND
        for k in range(1, count + 1)
    ]
    size = _font(count)
    axes.barh(places, np.nan_to_num(dice), color=colors, height=0.72)
    for place, value in enumerate(dice):
        text = f"{value:.3f}" if np.isfinite(value) else "does not occur"
        axes.text(1.02 if np.isfinite(value) else 0.02, place, text, va="center",
                  fontsize=size)  # fmt: skip
    if len(evaluation.slides) > 1:
        each = np.array([slide.dice for slide in evaluation.slides])
        axes.plot(each.T, places, ".", color=DOT, markersize=4, alpha=0.7)
    if np.isfinite(evaluation.mdice):
        axes.axvline(evaluation.mdice, color="#aa3377", linestyle="--", linewidth=1.2)
    names = _names(evaluation)
    if evaluation.background is not None:
        names[evaluation.background - 1] += "\n(not in the mean)"
    axes.set_yticks(places, names, fontsize=size)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("Dice (0: no overlap with the annotation, 1: the same)")
    axes.spines[["top", "right"]].set_visible(False)
    several = len(evaluation.slides) > 1
    slides = f"\ndots: each of the {len(evaluation.slides)} slides" if several else ""
    title = f"mean Dice (mDSC) {number(evaluation.mdice, 3)}, dashed{slides}"
    named = f"{short(evaluation.name)}: " if evaluation.name else ""
    axes.set_title(named + title, fontsize=10)


def _draw_confusion(axes: Axes, evaluation: Evaluation) -> None:
    """Truth from top to bottom, prediction from left to right."""
    shares = evaluation.shares()
    names = _names(evaluation)
    missed = evaluation.not_predicted > 0
    shown = np.hstack((shares[:, 1:], shares[:, :1] if missed else shares[:, :0]))
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    columns = [*names, "not predicted"] if missed else names
    size = _font(len(names))
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_xlabel("predicted as")
    axes.set_ylabel("annotated as")
    axes.set_title("what each class was taken for,\n% of its annotated pixels",
                   fontsize=10)  # fmt: skip
    if len(names) > MOST_TEXT:
        return
    for (row, column), share in np.ndenumerate(shown):
        if not np.isfinite(share):
            continue
        text = f"{100 * share:.0f}" if share >= 0.005 or share == 0 else "<1"
        axes.text(column, row, text, ha="center", va="center", fontsize=size - 0.5,
                  color="white" if share > 0.55 else "black" if share else "#bbbbbb",
                  )  # fmt: skip


def _names(evaluation: Evaluation) -> list[str]:
    return [short(name, 20) for name in evaluation.class_names]


def _font(count: int) -> float:
    """Points, so that names of so many classes do not touch."""
    return float(np.clip(72 * LARGEST / max(count, 1) / 1.3, 3.0, 8.5))
