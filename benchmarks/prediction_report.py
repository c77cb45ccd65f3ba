"""The page and the plots of the benchmarks of prediction.

    python benchmarks/prediction_report.py

Reads ``results/prediction_{speed,memory,scale}.jsonl``, the last run of each; writes
the tables of ``docs/benchmarks/prediction.md`` and its plot.
"""

from __future__ import annotations

import heapq
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "prediction.md"
PLOT = PAGE.with_suffix(".png")
BEGIN, END = "<!-- measured: {} -->\n", "<!-- /measured -->\n"
PEER = "MONAI sliding window"
ENGINES = (
    "ours, label pyramid", "ours, and confidence", "ours, and probabilities",
    "ours, handed out", PEER, "MONAI ZarrAvgMerger",
)  # fmt: skip
WRITERS = ("tiles, ours", "tiles, every level each time")
BLOCK = 16
"""Tiles of 512 px in a block."""
MODELS = {
    "tiny preset, one core": 0.25,
    "small preset, one core": 0.8,
    "paper preset, one GPU (goal: 60 s a Gpx)": 60 / (2**30 / 512**2),
}
"""Seconds of a worker a tile of 512 px."""
WORKERS = (1, 3, 10, 30, 100, 300, 1000)
Row = dict[str, Any]


def read(name: str) -> list[Row]:
    """Rows of a results file, oldest first."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(head: str, rows: list[str]) -> str:
    """A Markdown table."""
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", "|" + "---|" * columns, *rows]) + "\n"


def speed() -> str:
    """What the engine costs against MONAI."""
    last = {row["case"]: row for row in read("prediction_speed")}
    base = last[PEER]["cpu_ms"]
    rows = [
        f"| {case} | {row['cpu_ms']:.1f} | **{row['cpu_ms'] / base:.2f}** | "
        f"{row['per_second']:.0f} | {row['mib']} |"
        for case in ENGINES
        if (row := last.get(case))
    ]
    text = table("engine | CPU ms a crop | of the first peer's | crops/s | MiB", rows)
    rows = [
        f"| {case.removeprefix('tiles, ')} | {last[case]['cpu_ms']:.1f} | "
        f"{last[case]['per_second']:.0f} |"
        for case in WRITERS
        if case in last
    ]
    text += "\n" + table("tiles of 1024 px, 6 levels | CPU ms a tile | tiles/s", rows)
    return f"Measured on: {last[PEER].get('cpu', 'unknown')}.\n\n{text}"


def memory() -> str:
    """Peaks by size of the slide."""
    found = read("prediction_memory")
    last = {(row.get("overlap", 0), row["size"]): row for row in found}
    rows = []
    for (overlap, size), row in sorted(last.items()):
        peak = row["peak_above_idle_mib"]
        smallest = min(s for o, s in last if o == overlap)
        ratio = peak / last[overlap, smallest]["peak_above_idle_mib"]
        rows.append(
            f"| {size:,} px | {overlap:.0%} | {row['tiles']:,} | {peak} | "
            f"**{ratio:.2f}** | {row['tiles_per_s']:.0f} |"
        )
    head = "slide's edge | overlap | tiles | peak above idle, MiB | ratio | tiles/s"
    return table(head, rows)


def best_scale() -> dict[str, Row]:
    """The best figures of each case; on a shared machine others only slow it down."""
    best: dict[str, Row] = {}
    for row in read("prediction_scale"):
        found = best.setdefault(row["case"], dict(row))
        for key, value in row.items():
            if key != "case":
                better = min if key.startswith("seconds") else max
                found[key] = better(found[key], value)
    if "processes" in best:
        times = best["processes"]
        times["gain"] = times["seconds_1"] / times["seconds_2"]
    return best


def scale() -> str:
    """How busy the model is, and what processes bring."""
    found = best_scale()
    lines = []
    if row := found.get("busy"):
        lines.append(
            f"- The preset `paper` computes in **{row['busy']:.1%}** of the time of a "
            f"run ({row['tiles']} tiles of 512 px in {row['seconds']:.0f} s, two "
            "threads); the rest is the first reading and the last writing."
        )
    if row := found.get("processes"):
        lines.append(
            f"- Null network, slide on disk, one core each: {row['seconds_1']:.1f} s "
            f"by one process, {row['seconds_2']:.1f} s by two: **{row['gain']:.2f}x**."
        )
    if row := found.get("rates"):
        lines.append(
            f"- One coordinator takes over {row['adopt_per_second']:.0f} tiles a "
            f"second from its workers; a dask scheduler here passes "
            f"{row['tasks_per_second']:.0f} tasks a second."
        )
    return "\n".join(lines) + "\n"


def gain(tile: float, workers: int, adopt: float, task: float, blocks: int) -> float:
    """How many times faster than one worker, by simulation.

    Workers take blocks in turn, as many as two each are under way; each block passes
    the scheduler, and then the coordinator, one after the other.
    """
    free = [0.0] * workers
    heapq.heapify(free)
    scheduler = coordinator = 0.0
    finished: list[float] = []
    for number in range(blocks):
        start = heapq.heappop(free)
        if number >= 2 * workers:
            # The coordinator hands out a block when it has taken one over.
            start = max(start, finished[number - 2 * workers])
        scheduler = max(scheduler, start) + task
        end = max(start, scheduler) + BLOCK * tile
        heapq.heappush(free, end)
        coordinator = max(coordinator, end) + BLOCK * adopt
        finished.append(coordinator)
    return blocks * BLOCK * tile / finished[-1]


def gains() -> dict[str, list[float]]:
    """Gain by model and number of workers."""
    row = best_scale()["rates"]
    adopt, task = 1 / row["adopt_per_second"], 1 / row["tasks_per_second"]
    return {
        name: [gain(tile, n, adopt, task, max(20 * n, 2000)) for n in WORKERS]
        for name, tile in MODELS.items()
    }


def growth() -> str:
    """Gain by number of workers, computed."""
    rows = [
        f"| {name} | " + " | ".join(f"{value:,.1f}" for value in values) + " |"
        for name, values in gains().items()
    ]
    head = "workers | " + " | ".join(f"{n:,}" for n in WORKERS)
    return table(head, rows)


def plot() -> None:
    """Engines beside each other, and the gain by workers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    last = {row["case"]: row for row in read("prediction_speed")}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    names = [case for case in ENGINES if case in last]
    colours = ["#0072b2" if n.startswith("ours") else "#999999" for n in names]
    bars = left.barh(names, [last[n]["cpu_ms"] for n in names], color=colours)
    left.bar_label(bars, [f" {last[n]['cpu_ms']:.1f}" for n in names], fontsize=8)
    left.invert_yaxis()
    left.set_xlabel("CPU ms a crop of 512 px, null network")
    left.tick_params(labelsize=8)
    marks = ("o", "s", "^")
    for (name, values), mark in zip(gains().items(), marks, strict=True):
        right.plot(WORKERS, values, marker=mark, label=name)
    right.plot(WORKERS, WORKERS, color="#999999", linestyle=":", label="ideal")
    right.set(xscale="log", yscale="log", xlabel="workers", ylabel="times faster")
    right.legend(fontsize=7)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(PLOT, dpi=130)
    plt.close(figure)


PARTS = {"speed": speed, "memory": memory, "scale": scale, "growth": growth}


def main() -> None:
    """Put the tables into the page, between their marks, and draw the plot."""
    text = PAGE.read_text()
    for name, part in PARTS.items():
        begin = BEGIN.format(name)
        before, after = text.split(begin)
        text = f"{before}{begin}{part()}{END}{after.split(END, 1)[1]}"
    PAGE.write_text(text)
    plot()


if __name__ == "__main__":
    main()
