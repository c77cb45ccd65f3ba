"""The tables and the plot of ``learning.py``, put into ``docs/concepts/learning.md``.

python benchmarks/learning_report.py
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from learning_arms import ARMS

RESULTS = Path(__file__).parent / "results" / "learning.jsonl"
PAGE = Path(__file__).parent.parent / "docs" / "concepts" / "learning.md"
PLOT = PAGE.with_suffix(".png")
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->\n"
TASKS = {
    "synthetic": "Synthetic, [1, 4], 160 steps",
    "brain": "Mouse brain sections, [1, 8], 300 steps",
}
DECODERS = RESULTS.with_name("demo_decoders.jsonl")
DRAWN = {
    "base": ("tiny: pyramid, coarse to fine", "#000000"),
    "joint": ("joint attention", "#009e73"),
    "no_tokens": ("no tokens", "#e69f00"),
    "no_skip": ("no context skip", "#d55e00"),
    "single": ("fine level only", "#cc79a7"),
    "unetr": ("UNETR (paper)", "#999999"),
    "unetr_skip": ("UNETR, skip and level heads", "#56b4e9"),
}
FEW = {
    "few": ("6 labelled sections", "#000000"),
    "few_no_tokens": ("the same, no tokens", "#e69f00"),
    "few_mae": ("the same, masked pretraining first", "#0072b2"),
}
PANELS = (
    ("synthetic", "Synthetic, [1, 4]", DRAWN),
    ("brain", "mouse brain, [1, 8], 46 sections", DRAWN),
    ("brain", "mouse brain, [1, 8], 6 sections", FEW),
)
Row = dict[str, Any]


def main() -> None:
    """Write the tables and draw the curves."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    parts = [_table(task, [r for r in rows if r["task"] == task]) for task in TASKS]
    runs = [json.loads(line) for line in DECODERS.read_text().splitlines()]
    parts.append(_decoder_table(runs))
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text("".join((before, BEGIN, *parts, END, after)))
    _plot(rows)


def _table(task: str, rows: list[Row]) -> str:
    by_arm: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_arm[row["arm"]].append(row)
    lines = [
        f"### {TASKS[task]}\n",
        "| arm | seeds | CPU-s | mDSC at a quarter | half | three quarters | end |",
        "|---|---|---|---|---|---|---|",
    ]
    order = {arm: index for index, arm in enumerate(ARMS)}
    for arm, runs in sorted(by_arm.items(), key=lambda item: order[item[0]]):
        spent = _mean([r["cpu_seconds"] for r in runs])
        before = _mean([r["pretrain_cpu_seconds"] for r in runs])
        cost = f"{before:.0f} + {spent:.0f}" if before else f"{spent:.0f}"
        scores = [
            " ± ".join(f"{v:.2f}" for v in _spread([_at(r, share) for r in runs]))
            for share in (0.25, 0.5, 0.75, 1.0)
        ]
        lines.append(f"| {arm} | {len(runs)} | {cost} | {' | '.join(scores)} |")
    return "\n".join(lines) + "\n\n"


def _decoder_table(rows: list[Row]) -> str:
    lines = [
        f"### The slides of the demo, by the command, {rows[0]['steps']} steps\n",
        "| model | training CPU-s | prediction CPU-s | outer | inner | mDSC |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['run']} | {r['train_cpu_seconds']} | {r['predict_cpu_seconds']} | "
        f"{r['dice']['outer']:.3f} | {r['dice']['inner']:.3f} | {r['mDSC']:.3f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n\n"


def _at(row: Row, share: float) -> float:
    """Score of the validation nearest to a share of the run."""
    nearest = min(row["curve"], key=lambda c: abs(c[0] - share * row["steps"]))
    return float(nearest[2])


def _spread(values: list[float]) -> list[float]:
    """Mean, and half the range where there are several."""
    mean = _mean(values)
    half = [(max(values) - min(values)) / 2] if len(values) > 1 else []
    return [mean, *half]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _plot(rows: list[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 4.4), layout="constrained")
    for axis, (task, title, drawn) in zip(axes, PANELS, strict=True):
        for arm, (name, colour) in drawn.items():
            runs = [r for r in rows if (r["task"], r["arm"]) == (task, arm)]
            if not runs:
                continue
            curves = np.array([r["curve"] for r in runs])
            seconds = curves[:, :, 1].mean(axis=0)
            seconds += _mean([r["pretrain_cpu_seconds"] for r in runs])
            scores = curves[:, :, 2]
            label = f"{name} ({len(runs)} seed{'s' if len(runs) > 1 else ''})"
            axis.plot(seconds, scores.mean(axis=0), color=colour, label=label, lw=1.6)
            low, high = scores.min(axis=0), scores.max(axis=0)
            axis.fill_between(seconds, low, high, color=colour, alpha=0.12, lw=0)
        top = 1.0 if task == "synthetic" else 0.7
        axis.set(title=title, xlabel="CPU-seconds of training", ylim=(0, top))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="best")
    axes[0].set_ylabel("mDSC of held-out crops (mean and range of the seeds)")
    figure.savefig(PLOT, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
