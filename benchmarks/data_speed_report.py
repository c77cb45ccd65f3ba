"""The page and the plot of ``data_speed.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "data.md"
PLOT = PAGE.with_suffix(".png")
RESULTS = Path(__file__).parent / "results" / "data_speed.jsonl"
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->\n"
Row = dict[str, Any]
PEER = {
    "grey zarr": "zarr-python", "grey zarr, 64 MiB": "zarr-python",
    "2 workers": "bare tensorstore", "RGB SVS": "",
    "RGB SVS, 64 MiB": "", "RGB SVS, a part": "",
}  # fmt: skip


def write_report() -> None:
    """Put the tables into the page, between its two marks, and draw the plot."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    # The last run of each case.
    last = {row["case"]: row for row in rows}
    parts = [_speeds(last), _memory(last), _opening(last)]
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    measured = "\n".join(part for part in parts if part)
    PAGE.write_text(f"{before}{BEGIN}{measured}{END}{after}")
    _plot([last[case] for case in PEER if case in last])


def _readers(row: Row) -> dict[str, Row]:
    return {k: v for k, v in row.items() if isinstance(v, dict)}


def _peer_rate(row: Row) -> float:
    """The peer's rate; of two peers that of the faster one."""
    readers = _readers(row)
    named = PEER[row["case"]]
    if named:
        return float(readers[named]["crops_a_second"])
    return max(v["crops_a_second"] for k, v in readers.items() if k != "ours")


def _speeds(last: dict[str, Row]) -> str:
    lines = [
        "| case | reader | crops/s | CPU ms a crop | calls a place | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for case in PEER:
        if case not in last:
            continue
        row = last[case]
        base = _peer_rate(row)
        for who, found in _readers(row).items():
            cpu = found.get("cpu_ms_a_crop")
            calls = found.get("calls_a_place")
            lines.append(
                f"| {case} | {who} | {found['crops_a_second']:,.0f} | "
                f"{'' if cpu is None else f'{cpu:.3f}'} | "
                f"{'' if calls is None else f'{calls:.2f}'} | "
                f"**{found['crops_a_second'] / base:.2f}** |"
            )
    cpus = ", ".join(sorted({last[c]["cpu"] for c in PEER if c in last}))
    return f"Measured on: {cpus}.\n\n" + "\n".join(lines) + "\n"


def _memory(last: dict[str, Row]) -> str:
    if "10,000 crops" not in last:
        return ""
    lines = [
        "| reader | peak after 1,000 places | after 2,000 | after 10,000, MiB |",
        "|---|---|---|---|",
    ]
    for who, found in _readers(last["10,000 crops"]).items():
        peaks = [found[f"peak_mib_{n}"] for n in (1000, 2000, 10_000)]
        lines.append(f"| {who} | " + " | ".join(f"{p:.0f}" for p in peaks) + " |")
    return "\n".join(lines) + "\n"


def _opening(last: dict[str, Row]) -> str:
    if "opening" not in last:
        return ""
    row = last["opening"]
    lines = ["| slide | ms to open |", "|---|---|"]
    lines += [f"| {name} | {ms:.1f} |" for name, ms in row["milliseconds"].items()]
    lines += ["", "| 1,500 times | seconds | KiB each | files left open |"]
    lines += ["|---|---|---|---|"]
    lines += [
        f"| {name} | {v['seconds']:.1f} | {v['kib_each']:.0f} | {v['open_files']} |"
        for name, v in row["many"].items()
    ]
    return "\n".join(lines) + "\n"


def _plot(rows: list[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(rows), figsize=(3 * len(rows), 3.4), layout="constrained", squeeze=False
    )
    for axis, row in zip(axes[0], rows, strict=True):
        readers = _readers(row)
        names = list(readers)
        rates = [readers[n]["crops_a_second"] for n in names]
        colours = ["#0072b2" if n.startswith("ours") else "#999999" for n in names]
        bars = axis.bar(range(len(names)), rates, color=colours)
        base = _peer_rate(row)
        axis.bar_label(bars, [f"{r / base:.2g}x" for r in rates], fontsize=8)
        broken = (n.replace("+tensor", "\n+ tensor\n") for n in names)
        labels = [n.replace(" ", "\n") for n in broken]
        axis.set_xticks(range(len(names)), labels, fontsize=7)
        axis.set_title(row["case"], fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("crops of 256 px a second")
    figure.savefig(PLOT, dpi=130)
    plt.close(figure)
