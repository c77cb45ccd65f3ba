"""Tables of ``shared_context.py`` and ``shared_context_dice.py`` for the docs page.

python benchmarks/shared_context_report.py
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COST = HERE / "results" / "shared_context.jsonl"
DICE = HERE / "results" / "shared_context_dice.jsonl"
PAGE = HERE.parent / "docs" / "concepts" / "shared-context.md"
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->\n"
TASKS = {"synthetic": "Synthetic, [1, 4]", "brain": "brain sections, [1, 4, 16]"}
Row = dict[str, Any]


def main() -> None:
    """Write the tables."""
    # The last measurement of a case counts.
    cost = {row["case"]: row for row in rows_of(COST)}
    parts = [
        slides([row for row in cost.values() if "contexts" in row]),
        paper(cost["paper, UNETR"]),
        keys(cost["small 256, keys"]),
        dice(rows_of(DICE)),
    ]
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(before + BEGIN + "\n".join(parts) + END + after)


def slides(rows: Sequence[Row]) -> str:
    """Whole slides through the engine."""
    lines = [
        "### Milliseconds of CPU a crop, engine included\n",
        "| model | crops, contexts | fine level alone | joint | own context | "
        "shared | joint / shared | shared / alone |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ms = row["ms"]
        lines.append(
            f"| {row['case']} | {row['crops']}, {row['contexts']} | {ms['alone']:.1f} |"
            f" {ms['joint']:.1f} | {ms['own']:.1f} | {ms['shared']:.1f} | "
            f"**{row['joint_by_shared']:.2f}** | **{row['shared_by_alone']:.2f}** |"
        )
    return "\n".join(lines) + "\n"


def paper(row: Row) -> str:
    """The paper's model."""
    spent, crops = row["seconds"], row["crops_a_context"]
    return "\n".join(
        (
            "### The paper's model, [1, 8, 32] x 256 px, seconds of CPU a crop\n",
            "| | joint | shared | joint / shared |",
            "|---|---|---|---|",
            f"| encoder, 25 M | {spent['joint encoder']:.2f} | "
            f"{spent['shared encoder']:.2f} | "
            f"**{row['encoder_joint_by_shared']:.2f}** |",
            f"| with UNETR | {spent['joint']:.2f} | {spent['shared']:.2f} | "
            f"**{row['joint_by_shared']:.2f}** |",
            f"| with its share of a context ({spent['context']:.2f} s for {crops} "
            f"crops) | {spent['joint']:.2f} | "
            f"{spent['shared'] + spent['context'] / crops:.2f} | "
            f"**{row['joint_by_shared_with_context']:.2f}** |\n",
        )
    )


def keys(row: Row) -> str:
    """Fewer coarse tokens."""
    arms = [arm for arm in row["ms"] if arm != "alone"]
    spent = " | ".join(f"{row['ms'][arm]:.0f}" for arm in arms)
    ratios = " | ".join(f"{row['by_alone'][arm]:.2f}" for arm in arms)
    return "\n".join(
        (
            "### `small` at 256 px: coarse tokens that a fine one sees\n",
            f"| | fine level alone | {' | '.join(arms)} |",
            "|---|---|" + "---|" * len(arms),
            f"| ms of CPU a crop | {row['ms']['alone']:.0f} | {spent} |",
            f"| by the fine level alone | 1 | {ratios} |\n",
        )
    )


def dice(rows: Sequence[Row]) -> str:
    """Accuracy at equal training."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        found[row["task"], row["attention"]].append(row)
    lines = [
        "### mDSC of whole test images at equal training\n",
        "| task | steps x 8 | attention | seeds | training, CPU-s | own context | "
        "shared | half | prediction, CPU-s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (task, attention), runs in found.items():
        ways = [row["predicted"] for row in runs]
        scores = {
            way: spread([w[way]["mDSC"] for w in ways if way in w])
            for way in ("own", "shared", "shared_half")
        }
        costs = [
            f"{mean([w[way]['cpu_seconds'] for w in ways]):.0f}"
            for way in ("own", "shared")
            if all(way in w for w in ways)
        ]
        lines.append(
            f"| {TASKS[task]} | {runs[0]['steps']} | {attention} | "
            f"{', '.join(str(r['seed']) for r in runs)} | "
            f"{mean([r['train_cpu_seconds'] for r in runs]):.0f} | {scores['own']} | "
            f"{scores['shared']} | {scores['shared_half']} | {' / '.join(costs)} |"
        )
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float]) -> str:
    """Mean and range; nothing of nothing."""
    if not values:
        return ""
    middle = f"{mean(values):.4f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.4f} to {max(values):.4f})"


def mean(values: Sequence[float]) -> float:
    """Of some numbers."""
    return sum(values) / len(values)


def rows_of(path: Path) -> list[Row]:
    """Rows of a file of results."""
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
