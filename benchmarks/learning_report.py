"""The tables and the plot of ``learning.py``, put into ``docs/concepts/learning.md``.

python benchmarks/learning_report.py
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "learning.jsonl"
PAGE = Path(__file__).parent.parent / "docs" / "concepts" / "learning.md"
PLOT = PAGE.with_suffix(".png")
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->\n"
TASKS = {"synthetic": "Synthetic, [1, 4]", "brain": "mouse brain sections, [1, 8]"}
DRAWN = {
    "base": ("pyramid", "#000000"),
    "skip_1_8": ("skip at strides 1 and 8", "#0072b2"),
    "coarse_to_fine": ("coarse to fine", "#009e73"),
    "no_tokens": ("no tokens", "#e69f00"),
    "no_skip": ("no context skip", "#d55e00"),
    "single": ("fine level only", "#cc79a7"),
    "unetr_skip": ("UNETR, skip and level heads", "#56b4e9"),
    "unetr": ("UNETR (paper)", "#999999"),
}
Row = dict[str, Any]


def main() -> None:
    """Write the tables and draw the curves."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    parts = [_table(task, [r for r in rows if r["task"] == task]) for task in TASKS]
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text("".join((before, BEGIN, *parts, END, after)))
    _plot(rows)


def _table(task: str, rows: list[Row]) -> str:
    by_arm: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        by_arm[row["arm"], row["steps"]].append(row)
    lines = [
        f"### {TASKS[task]}\n",
        "| arm | steps | seeds | CPU-s | mDSC at a quarter | half | three quarters "
        "| end |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (arm, steps), runs in by_arm.items():
        spent = sum(r["cpu_seconds"] for r in runs) / len(runs)
        scores = [
            " ± ".join(f"{v:.2f}" for v in _spread([_at(r, share) for r in runs]))
            for share in (0.25, 0.5, 0.75, 1.0)
        ]
        lines.append(
            f"| {arm} | {steps} | {len(runs)} | {spent:.0f} | {' | '.join(scores)} |"
        )
    return "\n".join(lines) + "\n\n"


def _at(row: Row, share: float) -> float:
    """Score of the validation nearest to a share of the run."""
    nearest = min(row["curve"], key=lambda c: abs(c[0] - share * row["steps"]))
    return float(nearest[2])


def _spread(values: list[float]) -> list[float]:
    """Mean, and half the range where there are several."""
    mean = sum(values) / len(values)
    half = [(max(values) - min(values)) / 2] if len(values) > 1 else []
    return [mean, *half]


def _plot(rows: list[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(TASKS), figsize=(9, 3.6), layout="constrained")
    for axis, (task, title) in zip(axes, TASKS.items(), strict=True):
        labelled = set()
        for row in (r for r in rows if r["task"] == task and r["arm"] in DRAWN):
            name, colour = DRAWN[row["arm"]]
            _, seconds, scores = zip(*row["curve"], strict=True)
            label = None if name in labelled else name
            labelled.add(name)
            axis.plot(seconds, scores, color=colour, label=label, lw=1.4)
        axis.set(title=title, xlabel="CPU-seconds of training", ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mDSC of held-out crops")
    shown = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    axes[1].legend(shown.values(), shown.keys(), fontsize=7)
    figure.savefig(PLOT, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
