"""The course of a run as a figure: ``curves.png``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...figures import new_figure
from .curve_lines import Floats, drawable, line_styles, smoothed, wants_log
from .record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

WIDTH, HEIGHT = 10.0, 4.6
"""Inches."""
COLUMN = 22
"""Names that fit below each other beside the plot."""
TRAIN, VALIDATION, RATE = "#4c78a8", "#e45756", "#7a7a7a"
SMOOTHING, WINDOW = 25, 10
"""The smoothed loss is a mean of one in so many of all points, or of so many points
where there are few."""
LEVEL_COLORS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02")
ERROR = "error "
"""Begins the columns of a pretraining's errors, a level each."""
DICE = "Dice "


def draw_curves(record: RunRecord) -> Figure:
    """Draw losses, learning rate, and the figures of every validation.

    On the left the training loss (thin: as it came; thick: smoothed), the validation
    loss and, below, the learning rate. On the right mDSC and Dice of each class, or
    for pretraining the error of each level; the kept weights are marked.

    Parameters
    ----------
    record
        Of a run, finished or not; what it lacks is left out.

    Returns
    -------
    Figure
        For `save_png` and `png_bytes` of `napari_muvit.core.figures`.
    """
    from matplotlib.ticker import MaxNLocator

    many = len(record.class_names) > COLUMN
    figure = new_figure(WIDTH + (2.5 if many else 0), HEIGHT)
    axes = figure.subplot_mosaic("LS;RS", height_ratios=(4, 1))
    losses, rate, score = axes["L"], axes["R"], axes["S"]
    last = max(1.0, _last_step(record))
    _draw_losses(losses, record)
    _draw_rate(rate, record)
    if record.kind == "pretrain":
        _draw_errors(score, record)
    else:
        _draw_dice(score, record)
    for part in axes.values():
        part.set_xlim(0, last * 1.02)
        part.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        part.grid(color="#e6e6e6", linewidth=0.6)
        part.set_axisbelow(True)
        part.spines[["top", "right"]].set_visible(False)
    losses.tick_params(labelbottom=False)
    rate.set_xlabel("step")
    score.set_xlabel("step")
    return figure


def _last_step(record: RunRecord) -> float:
    steps = [*record.losses.step, *_column(record, "step"), record.steps]
    return float(np.nanmax(steps))


def _column(record: RunRecord, name: str) -> Floats:
    """One number a validation; NaN where it is missing."""
    return _finite([float(row.get(name, math.nan)) for row in record.history])


def _finite(values: Sequence[float]) -> Floats:
    """What can be drawn; NaN for the rest."""
    out = np.array(values, dtype=np.float64)
    out[~np.isfinite(out)] = np.nan
    return out


def _draw_losses(axes: Axes, record: RunRecord) -> None:
    losses = record.losses
    raw = _finite(losses.loss)
    window = max(len(raw) / SMOOTHING, min(WINDOW, len(raw) / 6))
    steps, validation = _column(record, "step"), _column(record, "val_loss")
    log = wants_log([*raw, *validation])
    # In the scale of the axis, else the curve would not run through the middle.
    smooth = np.exp(smoothed(np.log(raw), window)) if log else smoothed(raw, window)
    labels = {}
    if np.isfinite(raw).any():
        labels["training (smoothed)"] = axes.plot(
            losses.step, smooth, color=TRAIN, linewidth=1.8, **_dots(raw)
        )[0]
        axes.plot(losses.step, raw, color=TRAIN, linewidth=0.6, alpha=0.35)
    if np.isfinite(validation).any():
        labels["validation"] = axes.plot(
            steps, validation, color=VALIDATION, linewidth=1.4, marker="o", markersize=4
        )[0]
    if log:
        axes.set_yscale("log")
    _mark_best(axes, record, "val_loss" if record.kind == "pretrain" else "")
    axes.set_ylabel("loss")
    axes.set_title("Loss", loc="left", fontsize=10)
    if labels:
        axes.legend(
            labels.values(), labels.keys(), frameon=False, fontsize=8, loc="upper right"
        )
    else:
        _say(axes, "no losses")


def _dots(values: Floats) -> dict[str, Any]:
    """A single point is no line."""
    few = np.isfinite(values).sum() < 3
    return {"marker": "o", "markersize": 4} if few else {}


def _draw_rate(axes: Axes, record: RunRecord) -> None:
    rates = _finite(record.losses.learning_rate)
    if np.isfinite(rates).any():
        axes.plot(record.losses.step, rates, color=RATE, linewidth=1.2, **_dots(rates))
        axes.set_ylim(0, float(np.nanmax(rates)) * 1.1 or 1.0)
        axes.ticklabel_format(axis="y", scilimits=(0, 0), useMathText=True)
        axes.yaxis.get_offset_text().set_fontsize(7)
    else:
        _say(axes, "not known")
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylabel("learning\nrate", fontsize=8)


def _draw_dice(axes: Axes, record: RunRecord) -> None:
    steps = _column(record, "step")
    lines = []
    styles = line_styles(record.class_colors)
    for label, (name, style) in enumerate(
        zip(record.class_names, styles, strict=True), start=1
    ):
        dice = _column(record, DICE + name)
        if not np.isfinite(dice).any():
            continue
        color, dashes = style
        line = axes.plot(steps, dice, color=color, linestyle=dashes, linewidth=1.3,
                         marker="o", markersize=2.5)[0]  # fmt: skip
        shown = drawable(name, f"class {label}")
        if label == record.background:
            shown += " (not in mean)"
        lines.append((_figure(record, DICE + name), shown, line))
    # The best on top, so that the legend reads like the plot.
    lines.sort(key=lambda entry: -np.nan_to_num(entry[0], nan=-1.0))
    mean = _column(record, "mDSC")
    if np.isfinite(mean).any():
        line = axes.plot(steps, mean, color="black", linewidth=2.2, marker="o",
                         markersize=4, zorder=5)[0]  # fmt: skip
        lines.insert(0, (_figure(record, "mDSC"), "mDSC", line))
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("Dice")
    axes.set_title(
        "Validation: mean Dice (mDSC) and Dice of each class", loc="left", fontsize=10
    )
    _mark_best(axes, record, "mDSC")
    _legend(axes, record, lines)
    if not lines:
        _say(axes, "no validation yet")


def _draw_errors(axes: Axes, record: RunRecord) -> None:
    steps = _column(record, "step")
    lines = []
    names = [n for n in dict.fromkeys(k for row in record.history for k in row)
             if n.startswith(ERROR)]  # fmt: skip
    shown: list[float] = []
    for index, name in enumerate(names):
        error = _column(record, name)
        if not np.isfinite(error).any():
            continue
        shown += error.tolist()
        line = axes.plot(
            steps, error, color=LEVEL_COLORS[index % len(LEVEL_COLORS)], linewidth=1.4,
            marker="o", markersize=3, linestyle="solid" if index < 6 else "dashed",
        )[0]  # fmt: skip
        level = name.removeprefix(ERROR)
        lines.append((_figure(record, name), f"level {level}", line))
    if wants_log(shown):
        axes.set_yscale("log")
    axes.set_ylabel("mean squared error of hidden patches")
    axes.set_title("Validation: error of each level", loc="left", fontsize=10)
    _mark_best(axes, record)
    _legend(axes, record, lines, digits=4)
    if not lines:
        _say(axes, "no validation yet")


def _figure(record: RunRecord, name: str) -> float:
    """Of the kept weights, else of the last validation."""
    row = record.best or record.history[-1]
    return float(row.get(name, math.nan))


def _mark_best(axes: Axes, record: RunRecord, name: str = "") -> None:
    """A vertical line at the kept weights, with their figure."""
    step = record.best.get("step", math.nan)
    if not math.isfinite(step):
        return
    axes.axvline(step, color="black", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    value = record.best.get(name, math.nan)
    if math.isfinite(value):
        axes.plot([step], [value], color="#f2b701", marker="*", markersize=13,
                  markeredgecolor="black", markeredgewidth=0.7, zorder=6)  # fmt: skip


def _legend(
    axes: Axes,
    record: RunRecord,
    lines: Sequence[tuple[float, str, Line2D]],
    digits: int = 3,
) -> None:
    """Names with their figures, beside the plot."""
    if not lines:
        return
    # Names are set afterwards: some have a meaning for matplotlib ("_x", "$x$").
    step = record.best.get("step", math.nan)
    when = f"kept: step {step:.0f}" if math.isfinite(step) else "last validation"
    legend = axes.legend(
        [line for _, _, line in lines], ["name"] * len(lines),
        loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8,
        title=when, title_fontsize=7, alignment="left",
        labelspacing=0.25 if len(lines) > 12 else 0.5,
        ncols=1 + (len(lines) - 1) // COLUMN,
    )  # fmt: skip
    for text, (value, name, _) in zip(legend.get_texts(), lines, strict=True):
        text.set_parse_math(False)
        text.set_text(f"{number(value, digits)}  {name}")


def number(value: float, digits: int = 3) -> str:
    """Return a figure for people; a dash where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center",
              color="#888888", fontsize=9)  # fmt: skip
