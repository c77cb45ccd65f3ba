"""Tables and plot of ``real_slides.py`` for the docs page on learning.

python benchmarks/real_slides_report.py
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from napari_muvit.core.figures import new_figure, save_png

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "real_slides.jsonl"
PAGE = HERE.parent / "docs" / "concepts" / "learning.md"
PLOT = PAGE.with_name("learning_command.png")
BEGIN, END = "<!-- command -->\n", "<!-- /command -->\n"
Row = dict[str, Any]

TASKS = {
    "synthetic": "Synthetic: 100 images of 512 px to train on, 10 to test",
    "upright_fifth": "Brain sections: every fifth of 57 held out",
    "upright_block": "Brain sections: neighbours 24 to 34 held out",
    "glomeruli": "Glomeruli: 15 tiles to train on, 4 to test",
}
"""A run is called after its task; what follows the name is its arm."""
ARMS = {
    "": "as it is", "_1": "[1]", "_1_8": "[1, 8]", "_1_8_32": "[1, 8, 32]",
    "_naive": "naive boxes",
}  # fmt: skip
LEVELS = {"synthetic": "[1, 4]", "glomeruli": "[1, 4]"}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def main() -> None:
    """Write the tables, draw the curves."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    # Older rows have no curve.
    groups = grouped([row for row in rows if row.get("curve")])
    parts = [table(task, groups[task]) for task in TASKS if task in groups]
    parts.append(class_table(groups.get("upright_fifth"), groups.get("upright_block")))
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text("".join((before, BEGIN, *parts, END, after)))
    plot(groups)


def grouped(rows: list[Row]) -> dict[str, dict[tuple[str, int], list[Row]]]:
    """Rows of the same task, arm and steps."""
    found: dict[str, dict[tuple[str, int], list[Row]]] = {}
    for row in rows:
        for task in TASKS:
            arm = row["run"].removeprefix(task)
            if row["run"].startswith(task) and arm in ARMS:
                runs = found.setdefault(task, defaultdict(list))
                runs[(arm, row["steps"])].append(row)
    return found


def name_of(task: str, arm: str) -> str:
    """Of an arm, with its levels."""
    levels = LEVELS.get(task, "[1, 4, 16]")
    if arm == "":
        return levels
    return f"{levels}, naive boxes" if arm == "_naive" else ARMS[arm]


def table(task: str, groups: dict[tuple[str, int], list[Row]]) -> str:
    """One line an arm and number of steps."""
    one = next(iter(groups.values()))[0]
    names = list(one["dice"])
    # Few classes have a column each; those of the brain a table of their own.
    columns = names if len(names) < 6 else []
    lines = [
        f"### {TASKS[task]}\n",
        "| model | steps | seeds | training, CPU-s | mDSC"
        + "".join(f" | {name}" for name in columns)
        + " |",
        "|---|---|---|---|---|" + "---|" * len(columns),
    ]
    for (arm, steps), runs in groups.items():
        cells = [spread([r["mDSC_without_first"] for r in runs])]
        cells += [spread([r["dice"][name] for r in runs]) for name in columns]
        cost = spread([r["train_cpu_seconds"] for r in runs], digits=0)
        lines.append(
            f"| {name_of(task, arm)} | {steps} | {len(runs)} | {cost} | "
            f"{' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n\n"


def class_table(*splits: dict[tuple[str, int], list[Row]] | None) -> str:
    """Dice of each region in the longest run of each split."""
    columns: dict[str, list[Row]] = {}
    for split, title in zip(splits, ("every fifth", "block"), strict=True):
        for arm in ("", "_1"):
            runs = {s: r for (a, s), r in (split or {}).items() if a == arm}
            if runs:
                steps = max(runs)
                name = f"{title}, {name_of('brain', arm)}, {steps} steps"
                columns[name] = runs[steps]
    if not columns:
        return ""
    names = list(next(iter(columns.values()))[0]["dice"])
    lines = [
        "### Brain sections, Dice of each region\n",
        "| region | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name in names:
        cells = [spread([r["dice"][name] for r in runs]) for runs in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"


def spread(values: list[float | None], digits: int = 3) -> str:
    """Mean, and the least and greatest of several; a dash where there is none."""
    known = [v for v in values if v is not None and v == v]
    if not known:
        return "–"
    mean = f"{sum(known) / len(known):.{digits}f}"
    if len(known) == 1:
        return mean
    return f"{mean} ({min(known):.{digits}f} to {max(known):.{digits}f})"


def plot(groups: dict[str, dict[tuple[str, int], list[Row]]]) -> None:
    """Mean Dice on the held-out part of the labels, against the steps."""
    figure = new_figure(12, 3.4 * -(-len(groups) // 2))
    for place, (task, arms) in enumerate(groups.items(), start=1):
        axis = figure.add_subplot(-(-len(groups) // 2), 2, place)
        axis.set_title(TASKS[task], fontsize=10)
        colours = {arm: COLOURS[i] for i, arm in enumerate(ARMS)}
        seen: set[str] = set()
        for (arm, _), runs in arms.items():
            for row in runs:
                label = None if arm in seen else name_of(task, arm)
                seen.add(arm)
                axis.plot(
                    [p[0] for p in row["curve"]], [p[2] for p in row["curve"]],
                    color=colours[arm], linewidth=1.2, label=label,
                )  # fmt: skip
        axis.set_ylim(0, 1)
        axis.set_xlabel("step")
        axis.set_ylabel("mDSC, held-out labels")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="lower right")
    save_png(figure, PLOT)


if __name__ == "__main__":
    main()
