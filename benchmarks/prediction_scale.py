"""How a prediction grows with processes, and how busy the model is.

``busy``: the preset ``paper`` on a part of a slide; share of the time in which the
model computes, so that reading, adding up and writing are hidden behind it.
``processes``: the null network of ``prediction_speed.py`` on a slide of 12,288 px on
disk, by one process and by two, each held to one core and one thread (two shards of
one output, coarse levels included).
``rates``: what one coordinator can do: tiles taken over a second (read at the finest
level, coarse levels made), and empty tasks a second through a dask scheduler here.
The growth to 1,000 workers is computed from these by ``prediction_report.py``.

Appends JSON lines to ``results/prediction_scale.jsonl``.

    python benchmarks/prediction_scale.py [--only busy,processes,rates] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

RESULTS = Path(__file__).parent / "results" / "prediction_scale.jsonl"
SLIDE, CROP, CLASSES = 12_288, 512, 5


def busy() -> dict[str, Any]:
    """Share of the time in which the ``paper`` model computes, two threads."""
    import torch

    from napari_muvit.core import ModelConfig, PredictionConfig, open_pyramid, predict
    from napari_muvit.core.model.segmenter import build_model
    from napari_muvit.core.presets import PRESETS

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    model = build_model(ModelConfig(**{**PRESETS["paper"].model, "num_classes": 3}))
    spent = 0.0
    began = 0.0

    def before(_module: object, _args: object) -> None:
        nonlocal began
        began = time.perf_counter()

    def after(_module: object, _args: object, _out: object) -> None:
        nonlocal spent
        spent += time.perf_counter() - began

    model.register_forward_pre_hook(before)
    model.register_forward_hook(after)
    with tempfile.TemporaryDirectory() as folder:
        slide = make_slide(Path(folder) / "slide.zarr", 4096)
        config = PredictionConfig(
            region=(1024, 1024, 2048, 2048), device="cpu", batch_size=4
        )
        run = predict(open_pyramid(slide), model, config, Path(folder) / "out.zarr")
        start = time.perf_counter()
        tiles = sum(1 for _ in run)
        whole = time.perf_counter() - start
    return {
        "tiles": tiles, "seconds": round(whole, 2), "busy": round(spent / whole, 4),
    }  # fmt: skip


def make_slide(path: Path, edge: int) -> Path:
    """A smooth field with noise and its coarse levels, OME-Zarr on disk."""
    from napari_muvit.core import convert
    from napari_muvit.core.data.arrays import ArraySource
    from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel

    rng = np.random.default_rng(0)
    coarse = np.kron(rng.random((edge // 256, edge // 256)), np.ones((256, 256)))
    pixels = (200 * coarse + 40 * rng.random((edge, edge), np.float32)).astype(np.uint8)
    level = PyramidLevel(ArraySource(pixels, axes="yx"), (1.0, 1.0), (0.0, 0.0))
    convert(Pyramid((level,)), path)
    return path


def null_shard(slide: Path, out: Path, index: int, count: int) -> None:
    """One part of the null network's prediction, in this process."""
    import torch

    from napari_muvit.core import ModelConfig, PredictionConfig, open_pyramid, predict

    class Null(torch.nn.Module):
        config = ModelConfig(
            scale_factors=(1,), crop_size=CROP, num_classes=CLASSES,
            normalisation="none", context_skip=False, level_heads=False,
        )  # fmt: skip

        def forward(self, x: Any, bboxes: Any) -> Any:
            x = x[:, 0]
            return torch.cat((x, -x, x - 1, 1 - x, x * 0.5), dim=1)

    config = PredictionConfig(
        overlap=0.25, batch_size=4, device="cpu", num_threads=1,
        shard=None if count == 1 else (index, count),
    )  # fmt: skip
    run = predict(open_pyramid(slide), Null(), config, out)
    # Those that begin together are timed together.
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for _ in run:
        pass


def processes() -> dict[str, Any]:
    """Seconds of one process and of two, each held to one core."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        slide = make_slide(Path(folder) / "slide.zarr", SLIDE)
        for count in (1, 2):
            out = Path(folder) / f"{count}.zarr"
            started = [
                subprocess.Popen(
                    [
                        "taskset", "-c", str(i), sys.executable, __file__,
                        "--shard", str(slide), str(out), str(i), str(count),
                    ],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
                for i in range(count)
            ]  # fmt: skip
            for process in started:
                process.stdout.readline()  # type: ignore[union-attr]
            begun = time.perf_counter()
            for process in started:
                process.stdin.write("\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
            for process in started:
                process.wait()
            rows[f"seconds_{count}"] = round(time.perf_counter() - begun, 2)
            shutil.rmtree(out)
    rows["gain"] = round(rows["seconds_1"] / rows["seconds_2"], 3)
    return rows


def rates() -> dict[str, Any]:
    """Tiles taken over, and dask tasks, a second."""
    return {"adopt_per_second": adopt_rate(), "tasks_per_second": task_rate()}


def adopt_rate(edge: int = 8192) -> float:
    """Tiles of 512 px whose coarse levels a coordinator makes, a second."""
    import torch

    from napari_muvit.core import ModelConfig, PredictionConfig, open_pyramid, predict

    class Null(torch.nn.Module):
        config = ModelConfig(
            scale_factors=(1,), crop_size=CROP, num_classes=2,
            normalisation="none", context_skip=False, level_heads=False,
        )  # fmt: skip

        def forward(self, x: Any, bboxes: Any) -> Any:
            return torch.cat((x[:, 0], 100 - x[:, 0]), dim=1)

    with tempfile.TemporaryDirectory() as folder:
        slide = make_slide(Path(folder) / "slide.zarr", edge)
        out = Path(folder) / "out.zarr"
        config = PredictionConfig(
            overlap=0, device="cpu", num_threads=1, shard=(0, 1), batch_size=4
        )
        run = predict(open_pyramid(slide), Null(), config, out)
        for _ in run:
            pass
        writer = run._writer
        writer.begin()
        began = time.perf_counter()
        for index in run.plan.indices():
            writer.adopt(run.plan.tile(int(index)))
        spent = time.perf_counter() - began
        writer.close()
    return round(len(run.plan) / spent, 1)


def task_rate(count: int = 2000) -> float:
    """Tasks of a block's size in bytes through a scheduler on this machine."""
    from distributed import Client, LocalCluster

    payload = bytes(4096)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(len, [payload] * 100, pure=False))
        began = time.perf_counter()
        client.gather(client.map(len, [payload] * count, pure=False))
        return round(count / (time.perf_counter() - began), 1)


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "busy": busy, "processes": processes, "rates": rates,
}  # fmt: skip


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shard", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.shard:
        slide, out, index, count = arguments.shard
        null_shard(Path(slide), Path(out), int(index), int(count))
        return
    for case in arguments.only.split(","):
        for _ in range(1 if case == "busy" else arguments.rounds):
            row = {"case": case, **CASES[case]()}
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
