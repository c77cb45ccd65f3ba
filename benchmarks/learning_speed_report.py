"""Tables and plots of ``learning_speed.py`` and ``few_labels.py`` for the docs page.

python benchmarks/learning_speed_report.py
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learning_loop import rows_of

from napari_muvit.core.figures import new_figure, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent
SPEED = HERE / "results" / "learning_speed.jsonl"
FEW = HERE / "results" / "few_labels.jsonl"
PAGE = HERE.parent / "docs" / "concepts" / "learning.md"
BEGIN, END = "<!-- speed -->\n", "<!-- /speed -->\n"
TASKS = {
    "synthetic": "Synthetic: 100 training images of 512 px, 10 to test",
    "brain_choice": "Brain sections, recipes: test sections apart",
    "brain": "Brain sections: every fifth held out",
    "brain_block": "Brain sections: a block of neighbours held out",
    "glomeruli": "Glomeruli",
}
COLOURS = (
    "#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
    "#999999", "#882255", "#44aa99", "#ddcc77", "#332288",
)  # fmt: skip
Row = dict[str, Any]


def main() -> None:
    """Write the tables, draw the curves."""
    rows = rows_of(SPEED)
    few = rows_of(FEW)
    parts = [_table(t, [r for r in rows if r["task"] == t]) for t in TASKS]
    parts.append(_few_table(few))
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text("".join((before, BEGIN, *parts, END, after)))
    _plot_speed(rows)
    _plot_few(few)


def _table(task: str, rows: list[Row]) -> str:
    """One line an arm and budget."""
    if not rows:
        return ""
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        limit = row["max_steps"] or f"{row['max_cpu']:g} s"
        found[(row["arm"], limit, row.get("bfloat16", False))].append(row)
    lines = [
        f"### {TASKS[task]}\n",
        "| arm | levels | seeds | steps | CPU-s | loss, training / test | "
        "mDSC of crops | averaged weights | whole images | averaged weights |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (arm, _, bfloat16), runs in found.items():
        last = [r["curve"][-1] for r in runs]
        name = f"{arm}, bfloat16" if bfloat16 else arm
        levels = ", ".join(map(str, runs[0]["levels"]))
        whole = [
            _spread([r[key]["mDSC_without_first"] for r in runs if key in r])
            for key in ("whole", "whole_ema")
        ]
        loss = (
            _mean([c["train_loss"] for c in last]),
            _mean([c["loss"] for c in last]),
        )
        before = _mean([r["mae_cpu_seconds"] for r in runs])
        cost = _mean([r["cpu_seconds"] for r in runs])
        spent = f"{before:.0f} + {cost:.0f}" if before else f"{cost:.0f}"
        lines.append(
            f"| {name} | [{levels}] | {len(runs)} | "
            f"{_mean([r['steps'] for r in runs]):.0f} | {spent} | "
            f"{loss[0]:.2f} / {loss[1]:.2f} | {_spread([c['mDSC'] for c in last])} | "
            f"{_spread([c['ema_mDSC'] for c in last])} | {whole[0]} | {whole[1]} |"
        )
    return "\n".join(lines) + "\n\n"


LABELS = ("1", "3", "10", "30", "strokes")
FEW_ARMS = {
    "context": "[1, 4]",
    "mae": "[1, 4], MAE first",
    "single": "[1]",
    "single_mae": "[1], MAE first",
}

WITH_CONTEXT = ("context", "mae")


def _few_table(rows: list[Row]) -> str:
    """Labels down, arms across; whole test images."""
    if not rows:
        return ""
    arms = [a for a in FEW_ARMS if any(r["arm"] == a for r in rows)]
    lines = [
        "### Few labels, Synthetic: mDSC of whole test images, batches of 8\n",
        "| labels | share of the pixels | steps | "
        + " | ".join(FEW_ARMS[a] for a in arms)
        + " |",
        "|---|---|---|" + "---|" * len(arms),
    ]
    budgets = sorted({r["steps"] for r in rows})
    for kind, steps in ((k, s) for k in LABELS for s in budgets):
        runs = [r for r in rows if (r["labels"], r["steps"]) == (kind, steps)]
        if not runs:
            continue
        cells = [
            _spread([r["whole"]["mDSC"] for r in runs if r["arm"] == arm])
            for arm in arms
        ]
        name = kind if kind == "strokes" else f"{kind} image{'s' * (kind != '1')}"
        share = 100 * _mean([r["labelled_share"] for r in runs])
        lines.append(f"| {name} | {share:.2g} % | {steps} | {' | '.join(cells)} |")
    each = [r["cpu_seconds"] / r["steps"] for r in rows if r["arm"] in WITH_CONTEXT]
    alone = [
        r["cpu_seconds"] / r["steps"] for r in rows if r["arm"] not in WITH_CONTEXT
    ]
    before = [r["mae_cpu_seconds"] for r in rows if r["mae_steps"]]
    note = f"\nCPU-seconds of a step: {_mean(each):.2f} with context"
    note += f", {_mean(alone):.2f} without" if alone else ""
    if before:
        steps = max(r["mae_steps"] for r in rows)
        note += f"; {_mean(before):.0f} for {steps} steps of MAE, once"
    return "\n".join(lines) + "\n" + note + ".\n\n"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spread(values: Sequence[float]) -> str:
    """Mean, and half the range where there are several."""
    if not values:
        return ""
    half = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{_mean(values):.3f}{half}"


def _plot_speed(rows: list[Row]) -> None:
    """A panel a task: mDSC of crops, the better of last and averaged weights."""
    shown = [t for t in TASKS if any(r["task"] == t for r in rows)]
    # Scored on crops: whole images cost as much as the steps between two points.
    figure = new_figure(5.2 * len(shown), 4.4)
    for number, task in enumerate(shown):
        axis = figure.add_subplot(1, len(shown), number + 1)
        arms = list(dict.fromkeys(r["arm"] for r in rows if r["task"] == task))
        for colour, arm in zip(COLOURS * 3, arms, strict=False):
            for run in (r for r in rows if (r["task"], r["arm"]) == (task, arm)):
                seconds = [c["cpu"] for c in run["curve"]]
                scores = [max(c["mDSC"], c["ema_mDSC"]) for c in run["curve"]]
                axis.plot(seconds, scores, color=colour, lw=1.4, marker=".", label=arm)
        _finish(axis, TASKS[task].split(":")[0], "CPU-seconds of training")
    save_png(figure, PAGE.with_name("learning_speed.png"))


def _plot_few(rows: list[Row]) -> None:
    """Dice against outlined images; strokes beside them."""
    if len({r["labels"] for r in rows} - {"strokes"}) < 2:
        return
    # Strokes take longer: the longest runs of each kind.
    most = {
        kind: max(r["steps"] for r in rows if r["labels"] == kind)
        for kind in LABELS
        if any(r["labels"] == kind for r in rows)
    }
    rows = [r for r in rows if r["steps"] == most[r["labels"]]]
    figure = new_figure(6, 4.4)
    axis = figure.add_subplot(1, 1, 1)
    for colour, (arm, name) in zip(COLOURS, FEW_ARMS.items(), strict=False):
        runs = [r for r in rows if r["arm"] == arm]
        if not runs:
            continue
        found = defaultdict(list)
        for run in runs:
            found[run["labels"]].append(run["whole"]["mDSC"])
        counts = [k for k in LABELS[:-1] if k in found]
        means = [_mean(found[k]) for k in counts]
        axis.plot([int(k) for k in counts], means, marker="o", color=colour, label=name)
        if "strokes" in found:
            axis.plot([100], [_mean(found["strokes"])], marker="*", ms=11, color=colour)
    axis.set_xscale("log")
    axis.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "strokes,\n1 % of 100"])
    _finish(axis, "Synthetic from few labels", "labelled images")
    save_png(figure, PAGE.with_name("few_labels.png"))


def _finish(axis: Axes, title: str, x: str) -> None:
    """Names; each line once in the legend."""
    axis.set(title=title, xlabel=x, ylabel="mDSC, held-out images", ylim=(0, 1))
    axis.grid(alpha=0.3)
    handles, labels = axis.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axis.legend(once.values(), once.keys(), fontsize=7)


if __name__ == "__main__":
    main()
