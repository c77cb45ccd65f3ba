"""Measure whether the memory of a prediction grows with the slide.

Predicts slides that hold nothing (zarr arrays without chunks, levels 1 and 4) with a
model that computes nothing, so that what is measured is the engine: planning, reading,
batching, writing all levels of the output. Each slide in a fresh process.

    python benchmarks/prediction_memory.py [--again] [--overlap 0.25]
                                           [--sizes 20000 100000]

Appends one JSON line a run to ``benchmarks/results/prediction_memory.jsonl``; a size
and overlap that are there already are skipped unless ``--again``. Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "prediction_memory.jsonl"
LIMIT_MIB = 1500
"""Criterion: peak above idle at the smallest size."""
LIMIT_GROWTH = 1.10
"""Criterion: peak above idle, largest over smallest size."""


def resident_mib() -> float:
    """Memory of this process now (Linux), else its peak so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_mib()
    return pages * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """Peak memory of this process."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measure(size: int, overlap: float, folder: Path) -> dict[str, Any]:
    """Predict one slide in this process and return the numbers."""
    import torch
    import zarr
    from torch import Tensor, nn

    from napari_muvit.core import ModelConfig, PredictionConfig, open_pyramid, predict

    class NullModel(nn.Module):
        """Says class 1 everywhere."""

        def __init__(self, config: ModelConfig) -> None:
            super().__init__()
            self.config = config

        def forward(self, x: Tensor, bboxes: Tensor) -> Tensor:
            shape = (len(x), 1, *x.shape[3:])
            return torch.zeros(()).expand(len(x), self.config.num_classes, *shape[2:])

    stored = [
        zarr.create_array(
            folder / f"{factor}.zarr",
            shape=(-(-size // factor),) * 2,
            chunks=(512, 512),
            dtype="uint8",
        )
        for factor in (1, 4)
    ]
    pyramid = open_pyramid(stored, name=f"{size}")
    model = NullModel(
        ModelConfig(scale_factors=(1, 4), crop_size=512, normalisation="uint8")
    )
    config = PredictionConfig(overlap=overlap, batch_size=16, device="cpu")
    # Once through everything, so that lazy imports count as idle.
    list(predict(open_pyramid([a[:600, :600] for a in stored]), model, config))
    idle, started, cpu = resident_mib(), time.monotonic(), time.process_time()
    run = predict(pyramid, model, config, folder / "out.zarr")
    checkpoints = [
        round(resident_mib() - idle)
        for tile in run
        if tile.done % max(1, tile.total // 8) == 0
    ]
    seconds = time.monotonic() - started
    return {
        "size": size,
        "overlap": overlap,
        "tiles": len(run.plan),
        "idle_mib": round(idle),
        "peak_above_idle_mib": round(peak_mib() - idle),
        "resident_above_idle_mib": checkpoints,
        "cpu_s": round(time.process_time() - cpu, 1),
        "wall_s": round(seconds, 1),
        "tiles_per_s": round(len(run.plan) / seconds, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "zarr": zarr.__version__,
        "system": platform.platform(terse=True),
    }


def run_size(size: int, overlap: float) -> dict[str, Any]:
    """Measure in a fresh process, in a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="muvit-memory-"))
    try:
        command = [sys.executable, __file__, "--measure", str(size), str(overlap)]
        command.append(str(folder))
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        return dict(json.loads(answer.stdout.splitlines()[-1]))
    finally:
        shutil.rmtree(folder)


def read_rows() -> list[dict[str, Any]]:
    """Rows of earlier runs."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, print a table, and return 1 if the criterion fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--again", action="store_true", help="measure done sizes too")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        size, overlap, folder = options.measure
        print(json.dumps(measure(int(size), float(overlap), Path(folder))))
        return 0
    overlap = options.overlap
    latest = {r["size"]: r for r in read_rows() if r.get("overlap", 0) == overlap}
    for size in options.sizes:
        if size in latest and not options.again:
            continue
        row = run_size(size, overlap)
        smallest = latest.get(min(options.sizes), row)
        row["ratio"] = round(
            row["peak_above_idle_mib"] / smallest["peak_above_idle_mib"], 3
        )
        latest[size] = row
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    rows = [latest[size] for size in sorted(options.sizes)]
    for row in rows:
        print(
            f"{row['size']:>7}^2  peak above idle {row['peak_above_idle_mib']} MiB  "
            f"x{row['ratio']}  CPU {row['cpu_s']} s  {row['tiles_per_s']} tiles/s"
        )
    growth = rows[-1]["peak_above_idle_mib"] / rows[0]["peak_above_idle_mib"]
    passed = rows[0]["peak_above_idle_mib"] < LIMIT_MIB and growth < LIMIT_GROWTH
    print("passed" if passed else "FAILED", f"(growth x{growth:.3f})")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
