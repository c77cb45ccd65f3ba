"""What the engine itself costs: a null network, against MONAI, in turn in one run.

4096 x 4096 px, crops of 512 px, 25 % overlap, Gaussian, 5 classes, one thread, no GPU.
Ours ends as an OME-Zarr label pyramid with all levels (and as tiles handed out, without
a store); MONAI's sliding window as a tensor of labels, its ZarrAvgMerger as a zarr of
float scores. Each case runs in a process of its own, several rounds in turn; the least
CPU time a crop counts. Also: how fast tiles of 1024 px are written with 6 levels, by us
and level by level for each tile. Appends JSON lines to
``results/prediction_speed.jsonl``.

    python benchmarks/prediction_speed.py [--monai FOLDER] [--rounds 3]

MONAI is not installed with this package; ``FOLDER`` holds it where it cannot be
imported.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

RESULTS = Path(__file__).parent / "results" / "prediction_speed.jsonl"
EDGE, CROP, OVERLAP, CLASSES, BATCH = 4096, 512, 0.25, 5, 4


def pixels() -> np.ndarray:
    """A smooth field with noise, uint8."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.random((EDGE // 64, EDGE // 64)), np.ones((64, 64)))
    return (200 * coarse + 40 * rng.random((EDGE, EDGE))).astype(np.uint8)


def scores(x: Any) -> Any:
    """(B, 1, H, W) to (B, 5, H, W): nearly nothing, so that the engine is measured."""
    import torch

    return torch.cat((x, -x, x - 1, 1 - x, x * 0.5), dim=1)


def ours(out: Path | None, outputs: tuple[str, ...] = ()) -> tuple[float, float, int]:
    """CPU and wall seconds, and crops."""
    import torch

    from napari_muvit.core import ModelConfig, PredictionConfig, predict
    from napari_muvit.core.data.arrays import ArraySource
    from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel

    class Null(torch.nn.Module):
        config = ModelConfig(
            scale_factors=(1,), crop_size=CROP, num_classes=CLASSES,
            normalisation="none", context_skip=False, level_heads=False,
        )  # fmt: skip

        def forward(self, x: Any, bboxes: Any) -> Any:
            # Probabilities of all sizes, with noise: the most that they can cost.
            return scores(x[:, 0] / 64 if outputs else x[:, 0])

    level = PyramidLevel(ArraySource(pixels(), axes="yx"), (1.0, 1.0), (0.0, 0.0))
    config = PredictionConfig(
        overlap=OVERLAP, batch_size=BATCH, device="cpu", num_threads=1, outputs=outputs
    )
    run = predict(Pyramid((level,)), Null(), config, out)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in run:
        pass
    return time.process_time() - cpu, time.perf_counter() - wall, run.plan.num_crops


def monai_window() -> tuple[float, float, int]:
    """MONAI's sliding window, then argmax."""
    import torch
    from monai.inferers import sliding_window_inference

    x = torch.from_numpy(pixels()).float()[None, None]
    count = 0

    def net(part: Any) -> Any:
        nonlocal count
        count += len(part)
        return scores(part)

    cpu, wall = time.process_time(), time.perf_counter()
    with torch.inference_mode():
        found = sliding_window_inference(
            x, (CROP, CROP), BATCH, net, overlap=OVERLAP, mode="gaussian"
        )
        found.argmax(dim=1).to(torch.uint8)
    return time.process_time() - cpu, time.perf_counter() - wall, count


def monai_zarr(out: Path) -> tuple[float, float, int]:
    """MONAI's patches, averaged in a zarr on disk."""
    import torch
    from monai.inferers import PatchInferer, SlidingWindowSplitter, ZarrAvgMerger

    x = torch.from_numpy(pixels()).float()[None, None]
    count = 0

    def net(part: Any) -> Any:
        nonlocal count
        count += len(part)
        return scores(part)

    step = round(CROP * (1 - OVERLAP))
    reach = -(-(EDGE - CROP) // step) * step + CROP
    inferer = PatchInferer(
        splitter=SlidingWindowSplitter((CROP, CROP), overlap=OVERLAP),
        merger_cls=ZarrAvgMerger,
        batch_size=BATCH,
        # The last patches reach beyond the image.
        merged_shape=(1, CLASSES, reach, reach),
        store=str(out / "merged.zarr"),
        value_store=str(out / "values.zarr"),
        count_store=str(out / "counts.zarr"),
        chunks=(1, CLASSES, CROP, CROP),
    )
    cpu, wall = time.process_time(), time.perf_counter()
    with torch.inference_mode():
        inferer(x, net)
    return time.process_time() - cpu, time.perf_counter() - wall, count


def write_tiles(out: Path, late: bool) -> tuple[float, float, int]:
    """Tiles of 1024 px into a pyramid of 6 levels, ours or each level each time."""
    import zarr

    from napari_muvit.core.prediction.levels import CoarseLevel, write_levels

    side, tile = 10240, 1024
    levels = [
        zarr.create_array(
            out / str(k), shape=(side >> k, side >> k), chunks=(1024, 1024),
            dtype="uint8",
        )
        for k in range(6)
    ]  # fmt: skip
    if late:
        levels = [levels[0], *(CoarseLevel(level) for level in levels[1:])]
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(1, 6, (64, 64)), np.ones((16, 16))).astype(np.uint8)
    cpu, wall = time.process_time(), time.perf_counter()
    for y in range(0, side, tile):
        for x in range(0, side, tile):
            write_levels(levels, (y, x, y + tile, x + tile), labels)
    if late:
        for level in levels[1:]:
            level.flush()
    return (
        time.process_time() - cpu, time.perf_counter() - wall, (side // tile) ** 2,
    )  # fmt: skip


CASES: dict[str, Callable[[Path], tuple[float, float, int]]] = {
    "ours, label pyramid": lambda out: ours(out / "labels.zarr"),
    "ours, and confidence": lambda out: ours(out / "labels.zarr", ("confidence",)),
    "ours, and probabilities": lambda out: ours(
        out / "labels.zarr", ("probabilities", "confidence")
    ),
    "ours, handed out": lambda out: ours(None),
    "MONAI sliding window": lambda out: monai_window(),
    "MONAI ZarrAvgMerger": monai_zarr,
    "tiles, ours": lambda out: write_tiles(out, late=True),
    "tiles, every level each time": lambda out: write_tiles(out, late=False),
}


def cpu_name() -> str:
    """What this machine says its processor is."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found = {k.strip(): v.strip() for k, _, v in (x.partition(":") for x in lines)}
        return f"{found['model name']}, family {found['cpu family']}"
    return platform.processor()


def main() -> None:
    """Measure all cases in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--monai", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        if arguments.monai:
            sys.path.insert(0, str(arguments.monai))
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with tempfile.TemporaryDirectory() as folder:
            cpu, wall, count = CASES[arguments.case](Path(folder))
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps([cpu, wall, count, (most - idle) / 1024]))
        return
    best: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for case in CASES:
            command = [sys.executable, __file__, "--case", case]
            command += ["--monai", str(arguments.monai)] if arguments.monai else []
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.stderr.write(f"{case}: {done.stderr.strip()[-600:]}\n")
                continue
            found = json.loads(done.stdout.strip().splitlines()[-1])
            best[case] = min(best.get(case, found), found)
    run = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with RESULTS.open("a") as file:
        for case, (cpu, wall, count, memory) in best.items():
            row = {
                "run": run, "cpu": cpu_name(), "case": case, "units": count,
                "cpu_ms": round(1000 * cpu / count, 2),
                "per_second": round(count / wall, 1), "mib": round(memory),
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
