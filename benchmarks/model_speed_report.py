"""The page and the plot of ``model_speed.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "model.md"
PLOT = PAGE.with_suffix(".png")
Row = dict[str, Any]

BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->\n"


def write_report(rows: list[Row]) -> None:
    """Put the tables into the page, between its two marks, and draw the plot."""
    plain = [r for r in rows if r["edge"] == 256 and r["levels"] == 3]
    parts = []
    keys = ("device", "cpu", "threads", "torch")
    for machine in sorted({tuple(r[k] for k in keys) for r in plain}):
        own = [r for r in plain if tuple(r[k] for k in keys) == machine]
        device, cpu, threads, torch = machine
        name = f"CPU ({cpu})" if device == "cpu" else device
        plural = "s" if threads > 1 else ""
        title = f"## {name}, {threads} thread{plural}, torch {torch}"
        parts.append(f"{title}\n\n{_table(own)}\n")
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text("".join((before, BEGIN, *parts, END, after)))
    _plot([r for r in rows if r["batch"] == 1 and r["device"] == "cpu"])


def _table(rows: list[Row]) -> str:
    time = "cpu_seconds" if rows[0]["device"] == "cpu" else "seconds"
    unit = "CPU-s" if time == "cpu_seconds" else "s"
    lines = [
        f"| what | precision | batch | theirs, {unit} | ours, {unit} | ratio | "
        "theirs, MiB | ours, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = {
        "forward": "forward",
        "step": "forward + backward",
        "train": "training step",
    }
    lines += [
        f"| {r['part']}, {names[r['work']]} | {r['precision']} | {r['batch']} | "
        f"{r['theirs_' + time]:.2f} | {r['ours_' + time]:.2f} | "
        f"**{r['theirs_' + time] / r['ours_' + time]:.2f}** | {r['theirs_mib']} | "
        f"{r['ours_mib']} |"
        for r in rows
    ]
    lines += [
        f"| {r['part']}, {names[r['work']]}, ours compiled (first pass "
        f"{r['compiled_first_seconds']:.0f} s) | {r['precision']} | {r['batch']} | | "
        f"{r['compiled_' + time]:.2f} | | | {r['compiled_mib']} |"
        for r in rows
        if "compiled_mib" in r
    ]
    return "\n".join(lines) + "\n"


def _plot(rows: list[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [
        r for r in rows
        if (r["part"], r["work"], r["precision"]) == ("encoder", "forward", "float32")
    ]  # fmt: skip
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    colours = {1: "#0072b2", 2: "#d55e00", 3: "#009e73"}
    for axis, key, label in (
        (axes[0], "cpu_seconds", "CPU-seconds"), (axes[1], "mib", "MiB"),
    ):  # fmt: skip
        for levels, colour in colours.items():
            for who, style in (("ours", "-"), ("theirs", "--")):
                line = sorted(
                    (r["edge"], r[f"{who}_{key}"]) for r in rows
                    if r["levels"] == levels
                )  # fmt: skip
                axis.plot(
                    *zip(*line, strict=True), style, color=colour, marker="o", ms=3,
                    label=f"{levels} level{'s' if levels > 1 else ''}, {who}",
                )  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel="crop edge, px", ylabel=label)
        axis.set_xticks([64, 128, 256, 384], ["64", "128", "256", "384"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.savefig(PLOT, dpi=130)
    plt.close(figure)
