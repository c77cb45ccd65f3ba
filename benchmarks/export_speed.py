"""Measure time and memory of an export of a large label image.

Writes a synthetic label image (blobs of two classes with ragged edges on a background,
some with holes; sharded OME-Zarr) and exports it in fresh processes: exact, and with
limits and a tolerance.

    python benchmarks/export_speed.py [--again] [--sizes 20000] [--objects 20000]

Appends one JSON line a run to ``benchmarks/results/export_speed.jsonl``; a run that is
there already is skipped unless ``--again``. Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "export_speed.jsonl"
RUNS: dict[str, dict[str, float]] = {
    "exact": {},
    "simplified": {"simplify": 0.5},
    "limits": {"min_object": 20.0, "min_hole": 20.0, "simplify": 0.5},
}
"""Options of each run, in micrometres; a pixel is 0.5."""
BLOBS = 64
"""Different shapes."""


def peak_mib() -> float:
    """Peak memory of this process."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def make_blobs(edge: int, seed: int = 0) -> list[np.ndarray]:
    """Masks of ragged disks, every fourth one with a hole."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:edge, :edge] - (edge - 1) / 2
    angle, radius = np.arctan2(y, x), np.hypot(y, x)
    masks = []
    for number in range(BLOBS):
        limit = np.full_like(angle, edge * rng.uniform(0.25, 0.4))
        for wave in range(2, 12):
            size = edge * rng.uniform(0, 0.08) / wave**0.5
            limit += size * np.sin(wave * angle + rng.uniform(0, 7))
        mask = radius + rng.normal(0, 0.5, radius.shape) < limit
        if number % 4 == 0:
            mask &= radius > edge * 0.08
        masks.append(mask)
    return masks


def write_labels(path: Path, size: int, objects: int) -> int:
    """Write a label image; return how many blobs it has."""
    from napari_muvit.core.data.zarr_writer import write_pyramid

    cell = max(8, int(size / objects**0.5))
    masks = make_blobs(cell)

    def read(lower: tuple[int, ...], upper: tuple[int, ...]) -> np.ndarray:
        block = np.ones([u - v for v, u in zip(lower, upper, strict=True)], np.uint8)
        for row in range(lower[0] // cell, -(-upper[0] // cell)):
            for column in range(lower[1] // cell, -(-upper[1] // cell)):
                number = (row * 7919 + column * 104729) % (2 * BLOBS)
                mask, label = masks[number % BLOBS], 2 + number // BLOBS
                top, left = row * cell - lower[0], column * cell - lower[1]
                into = block[max(top, 0) : top + cell, max(left, 0) : left + cell]
                part = mask[max(-top, 0) :, max(-left, 0) :]
                part = part[: into.shape[0], : into.shape[1]]
                into[part] = label
        return block

    write_pyramid(
        path, read, shape=(size, size), dtype=np.uint8, labels=True, chunk=512,
        class_names=("background", "round", "other"),
        class_colors=("#808080", "#e41a1c", "#377eb8"), pixel_size=(0.5, 0.5),
    )  # fmt: skip
    return (-(-size // cell)) ** 2


def measure(labels: Path, folder: Path, options: dict[str, float]) -> dict[str, Any]:
    """Export in this process."""
    from napari_muvit.core import ExportConfig, export_prediction, open_pyramid

    open_pyramid(labels)
    idle = peak_mib()
    begin, cpu = time.perf_counter(), time.process_time()
    result = export_prediction(labels, folder, ExportConfig(**options))
    return {
        "objects": result.objects,
        "filled_holes": result.filled,
        "seconds": round(time.perf_counter() - begin, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "idle_mib": round(idle),
        "peak_mib": round(peak_mib()),
        "geojson_mb": round((folder / "objects.geojson").stat().st_size / 1e6, 1),
    }


def known() -> set[tuple[int, int, str]]:
    """Runs that are there already."""
    if not RESULTS.exists():
        return set()
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return {(row["size"], row["wanted"], row["run"]) for row in rows}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all sizes, each run in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20000])
    parser.add_argument("--objects", type=int, default=20000)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.one:
        labels, folder, run = arguments.one
        found = measure(Path(labels), Path(folder), RUNS[run])
        sys.stdout.write(json.dumps(found) + "\n")
        return
    done = set() if arguments.again else known()
    RESULTS.parent.mkdir(exist_ok=True)
    for size in arguments.sizes:
        missing = [r for r in RUNS if (size, arguments.objects, r) not in done]
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as folder:
            labels = Path(folder) / "labels.zarr"
            write_labels(labels, size, arguments.objects)
            for run in missing:
                words = ["--one", str(labels), str(Path(folder) / run), run]
                said = subprocess.run(
                    [sys.executable, __file__, *words],
                    check=True, capture_output=True, text=True,
                )  # fmt: skip
                row = {
                    "size": size, "wanted": arguments.objects, "run": run,
                    **json.loads(said.stdout), "cpus": os.cpu_count(),
                    "machine": platform.machine(),
                }  # fmt: skip
                with RESULTS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                sys.stdout.write(json.dumps(row) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
