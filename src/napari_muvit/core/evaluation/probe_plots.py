"""Plots of what the probes found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..figures import new_figure
from ..model.kinds import plain_kind
from .tables import factors_text, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .box_noise import BoxNoiseResult
    from .linear_probe import LinearProbeResult
    from .mae_error import MAEErrorResult

COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44")
UNTRAINED = "#bbbbbb"


def linear_figure(result: LinearProbeResult) -> Figure:
    """Draw the mean ROC-AUC of each set of levels, and that of each class."""
    rows, classes = len(result.rows), len(result.class_names)
    height = max(0.34 * rows, 0.3 * classes, 1.8) + 1.4
    figure = new_figure(5.6 + 0.62 * rows + 1.6, height)
    left, right = figure.subplots(1, 2, width_ratios=(4.4, 0.62 * rows + 1.0))
    _draw_means(left, result)
    _draw_classes(right, result)
    kind = plain_kind(result.kind)
    figure.suptitle(f"Linear probe of {short(result.model)} ({kind}), test crops: "
                    f"{sum(result.test_crops)}", fontsize=11)  # fmt: skip
    return figure


def _draw_means(axes: Axes, result: LinearProbeResult) -> None:
    values = np.array([row.auc for row in result.rows])
    each = np.array([row.class_auc for row in result.rows])
    places = np.arange(len(values))
    colors = [UNTRAINED if row.untrained else COLORS[0] for row in result.rows]
    axes.barh(places, np.nan_to_num(values), color=colors, height=0.72)
    axes.plot(
        each, places, ".", color="#222222", markersize=4, alpha=0.6, clip_on=False
    )
    axes.axvline(0.5, color="#aa3377", linestyle="--", linewidth=1.2)
    for place, value in enumerate(values):
        text = f"{value:.3f}" if np.isfinite(value) else "-"
        axes.text(
            1.03,
            place,
            text,
            va="center",
            fontsize=8,
            transform=axes.get_yaxis_transform(),
        )
    axes.set_yticks(places, [row.title for row in result.rows], fontsize=8)
    axes.set_ylim(len(values) - 0.5, -0.5)
    low = np.nanmin([0.45, *each[np.isfinite(each)]])
    axes.set_xlim(max(0.0, float(low) - 0.03), 1)
    axes.set_xlabel("ROC-AUC")
    axes.set_ylabel("levels seen")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("mean (bars), classes (dots), chance (dashed)", fontsize=9)


def _draw_classes(axes: Axes, result: LinearProbeResult) -> None:
    each = np.array([row.class_auc for row in result.rows]).T
    axes.imshow(each, cmap="viridis", vmin=0.5, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(each):
        text = f"{value:.2f}" if np.isfinite(value) else "-"
        dark = not np.isfinite(value) or value > 0.8
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5,
                  color="black" if dark else "white")  # fmt: skip
    titles = [row.title for row in result.rows]
    axes.set_xticks(range(len(titles)), titles, rotation=90, fontsize=8)
    names = [
        f"{short(name, 20)} ({count})"
        for name, count in zip(result.class_names, result.test_crops, strict=True)
    ]
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title("classes (test crops)", fontsize=9)


def mae_figure(result: MAEErrorResult) -> Figure:
    """Draw the error by level of each row, and its difference to the first row."""
    figure = new_figure(max(8.0, 3.0 + 1.6 * len(result.scale_factors) * 2), 4.4)
    left, right = figure.subplots(1, 2)
    titles, rows = result.titles(), result.rows
    places = np.arange(len(result.scale_factors))
    width = 0.8 / len(rows)
    for number, (title, row) in enumerate(zip(titles, rows, strict=True)):
        style: dict[str, Any] = {"color": COLORS[number % len(COLORS)], "capsize": 3}
        style |= {"width": 0.94 * width, "label": short(title, 40)}
        at = places + (number - (len(rows) - 1) / 2) * width
        left.bar(at, np.nan_to_num(row.error), yerr=_bars(row.standard_error), **style)
        if number:
            share, spread = result.relative(row)
            at = places + (number - 1 - (len(rows) - 2) / 2) * width
            right.bar(at, np.nan_to_num(share), yerr=_bars(spread), **style)
    for place, value in zip(places, result.guess, strict=True):
        label = "guessing the mean visible patch" if place == 0 else None
        left.plot(place + np.array([-0.42, 0.42]), [value, value], "--", label=label,
                  color="#222222", linewidth=1.2)  # fmt: skip
    levels = [f"{factor:g}" for factor in result.scale_factors]
    for axes in (left, right):
        axes.set_xticks(places, levels)
        axes.set_xlabel("level")
        axes.spines[["top", "right"]].set_visible(False)
    # Above the bars: they are tall, so there is no room inside.
    left.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1.07))
    left.set_ylabel(f"squared error of hidden patches\n({result.unit})")
    left.set_title("mean ± standard error over crops", fontsize=9)
    right.axhline(0, color="#222222", linewidth=0.8)
    right.set_ylabel("% of the first one's error")
    right.set_title(f"difference to {short(titles[0], 40)}, same crops", fontsize=9)
    return figure


def _bars(spread: object) -> np.ndarray:
    return np.nan_to_num(np.asarray(spread, dtype=np.float64))


def _on_white(color: str) -> tuple[float, ...]:
    """Darken a colour that would not be seen on white, such as yellow."""
    rgb = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    light = float(rgb @ (0.3, 0.59, 0.11))
    return tuple(float(v) for v in rgb * min(1.0, 0.65 / max(light, 1e-6)))


def boxes_figure(result: BoxNoiseResult) -> Figure:
    """Draw Dice over sigma: the mean as a thick line, classes as thin ones."""
    count = len(result.class_names)
    figure = new_figure(7.6, max(4.2, 0.22 * count + 1.4))
    axes = figure.subplots()
    sigmas = np.array([row.sigma for row in result.rows])
    order = np.argsort(sigmas, kind="stable")
    dice = np.array([row.dice for row in result.rows])[order]
    means = np.array([row.mdice for row in result.rows])[order]
    axes.plot(sigmas[order], means, "o-", color="black", linewidth=2.5, label="mDSC",
              zorder=5)  # fmt: skip
    for k, (name, color) in enumerate(
        zip(result.class_names, result.class_colors, strict=True)
    ):
        named = name.strip().lower() == "background"
        note = " (background)" if k + 1 == result.background and not named else ""
        if np.isfinite(dice[:, k]).any():
            axes.plot(sigmas[order], dice[:, k], ".-", color=_on_white(color), lw=1.1,
                      label=short(name) + note)  # fmt: skip
    positive = sigmas[sigmas > 0]
    if len(positive):
        axes.set_xscale("symlog", base=2, linthresh=float(positive.min()))
    axes.set_xticks(np.unique(sigmas), [f"{s:g}" for s in np.unique(sigmas)])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("standard deviation of the shift of each box, px")
    axes.set_ylabel("Dice")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_title(f"{short(result.model)} {factors_text(result.scale_factors)}, "
                   f"{result.crops} crops", fontsize=10)  # fmt: skip
    return figure
