"""Speed of whole training loops: against the authors' package, and with loading.

- ``loop``: masked autoencoding, our `pretrain` engine against the authors' ``fit``, the
  same network size, the same crops (in memory), float32, in turn in one process. A
  figure is the median CPU time (and wall time) from one step to the next.
- ``loading``: our fine-tuning on real slides against the same loop on crops that are
  there already (a null dataset): what reading costs.

Appends one JSON line a case to ``results/training_speed.jsonl`` and skips what is
there, unless ``--again``.

    python benchmarks/training_speed.py [--data DATA] [--threads 2] [--again]

``DATA`` holds real labelled slides, which are not part of this project.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "training_speed.jsonl"
SIZES: dict[str, dict[str, Any]] = {
    "small crops": {"embed_dim": 128, "depth": 4, "num_heads": 4, "mae_dim": 128,
                    "levels": (1, 4), "edge": 64, "batch": 16, "steps": 40},
    "paper": {"embed_dim": 512, "depth": 12, "num_heads": 8, "mae_dim": 256,
              "levels": (1, 8, 32), "edge": 256, "batch": 2, "steps": 6},
}  # fmt: skip
SIZES |= {f"{k}, bf16": {**v, "precision": "bf16-mixed"} for k, v in SIZES.items()}
SKIPPED = 2
"""First steps, which also set things up."""


class Tape:
    """CPU and wall time at the start of each batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.marks: list[tuple[float, float]] = []

    def see(self, index: int) -> None:
        """Note the time where a batch begins."""
        if index % self.batch == 0:
            self.marks.append((time.process_time(), time.perf_counter()))

    def seconds(self) -> tuple[float, float]:
        """Median CPU and wall seconds of a step."""
        pairs = list(zip(self.marks, self.marks[1:], strict=False))[SKIPPED:]
        return (
            statistics.median(b[0] - a[0] for a, b in pairs),
            statistics.median(b[1] - a[1] for a, b in pairs),
        )


def crops(size: dict[str, Any], count: int) -> list[tuple[Any, Any]]:
    """Random nested crops and their boxes."""
    import torch

    generator = torch.Generator().manual_seed(0)
    levels, edge = size["levels"], size["edge"]
    found = []
    for _ in range(count):
        pixels = torch.rand(len(levels), 1, edge, edge, generator=generator)
        boxes = torch.stack([
            torch.tensor([[-f, -f], [f, f]]) * edge / 2.0 for f in levels
        ])  # fmt: skip
        found.append((pixels, boxes))
    return found


def ours(size: dict[str, Any], samples: list[tuple[Any, Any]], folder: Path) -> Tape:
    """Train by this package's engine."""
    import torch
    from torch.utils.data import Dataset

    from napari_muvit.core import ModelConfig, MuViTMAE, TrainingConfig
    from napari_muvit.core.data.datasets import PixelBatch
    from napari_muvit.core.progress import ignore_progress, never_stop
    from napari_muvit.core.settings import RunSettings
    from napari_muvit.core.training.engine import Job, Run
    from napari_muvit.core.training.mae_module import PretrainModule
    from napari_muvit.core.training.memory import plan_memory
    from napari_muvit.core.training.run_folder import RunFolder
    from napari_muvit.core.training.work import at_work

    tape = Tape(size["batch"])

    class Crops(Dataset[PixelBatch]):
        def __init__(self, tape: Tape | None) -> None:
            self.tape = tape

        def __getitem__(self, index: int) -> PixelBatch:
            if self.tape is not None:
                self.tape.see(index)
            return PixelBatch(*samples[index % len(samples)])

    config = ModelConfig(
        scale_factors=size["levels"], crop_size=size["edge"],
        **{k: size[k] for k in ("embed_dim", "depth", "num_heads", "mae_dim")},
    )  # fmt: skip
    training = TrainingConfig(
        steps=size["steps"], steps_per_epoch=size["steps"], batch_size=size["batch"],
        validation_crops=1, device="cpu", num_threads=torch.get_num_threads(),
        clip_norm=0.5, schedule="cosine", warmup=0.0, learning_rate=6e-5,
        precision=size.get("precision", "32-true"),
    )  # fmt: skip
    mae = MuViTMAE(config)
    job = Job(
        kind="pretrain", module=PretrainModule(mae, training),
        model=config, training=Crops(tape), validation=Crops(None),
        folder=RunFolder(folder), device=torch.device("cpu"), data="",
        memory=plan_memory(mae, training, torch.device("cpu")),
        log_columns=("val_loss",), settings=RunSettings(),
    )  # fmt: skip
    with at_work(job.folder, training) as lock:
        Run(job, training, ignore_progress, never_stop, resume=False).train(lock)
    return tape


def theirs(size: dict[str, Any], samples: list[tuple[Any, Any]]) -> Tape:
    """Train by the authors' own loop."""
    import torch
    from muvit.mae import MuViTMAE2d
    from torch.utils.data import DataLoader, Dataset

    tape = Tape(size["batch"])

    class Crops(Dataset[dict[str, Any]]):
        def __init__(self, count: int, tape: Tape | None) -> None:
            self.count, self.tape = count, tape

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: int) -> dict[str, Any]:
            if self.tape is not None:
                self.tape.see(index)
            pixels, boxes = samples[index % len(samples)]
            return {"img": pixels, "bbox": boxes}

    model = MuViTMAE2d(
        1, size["levels"], 8, size["depth"], size["embed_dim"], 2, size["mae_dim"],
        size["num_heads"],
    )  # fmt: skip
    count = size["steps"] * size["batch"]
    torch.set_grad_enabled(True)
    model.fit(
        DataLoader(Crops(count, tape), batch_size=size["batch"]),
        DataLoader(Crops(1, None), batch_size=1),
        output=None, num_epochs=1, logger=None, dry=True, accelerator="cpu", lr=6e-5,
        precision=size.get("precision", "32-true"),
    )  # fmt: skip
    return tape


def measure_loop(name: str) -> dict[str, Any]:
    """Both loops in turn, twice; the better of the two of each."""
    size = SIZES[name]
    samples = crops(size, size["batch"] * 2)
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder, silence():
            found["ours"].append(ours(size, samples, Path(folder) / "m").seconds())
            found["theirs"].append(theirs(size, samples).seconds())
    row: dict[str, Any] = {"kind": "loop", "case": name}
    for who, seconds in found.items():
        row[f"{who}_cpu"] = round(min(s[0] for s in seconds), 4)
        row[f"{who}_wall"] = round(min(s[1] for s in seconds), 4)
    row["ratio_cpu"] = round(row["theirs_cpu"] / row["ours_cpu"], 2)
    row["ratio_wall"] = round(row["theirs_wall"] / row["ours_wall"], 2)
    return row


@contextlib.contextmanager
def silence() -> Any:
    """Keep progress bars away."""
    logging.disable(logging.WARNING)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def slides(name: str, data: Path) -> tuple[list[Path], list[Path], dict[str, Any]]:
    """Images, labels, and what differs from the preset ``tiny``."""
    folder = data / {"brain": "brain_sections", "glomeruli": "glomeruli_pas"}[name]
    images = sorted(folder.glob("*_image.tif"))
    labels = [p.with_name(p.name.replace("_image", "_labels")) for p in images]
    factors = (1, 4, 16) if name == "brain" else (1, 4)
    return images, labels, {"scale_factors": factors}


def measure_loading(name: str, data: Path, workers: int) -> dict[str, Any]:
    """Steps on slides against steps on crops that were read before."""
    from napari_muvit.core import TrainingConfig, model_config_for, open_pyramid
    from napari_muvit.core.progress import Progress, never_stop
    from napari_muvit.core.settings import RunSettings
    from napari_muvit.core.training import check_training
    from napari_muvit.core.training.engine import Job, Run
    from napari_muvit.core.training.finetuning import finetune_job
    from napari_muvit.core.training.prepare import open_annotations
    from napari_muvit.core.training.run_folder import RunFolder
    from napari_muvit.core.training.work import at_work

    paths, labels, changes = slides(name, data)
    images = [open_pyramid(p) for p in paths]
    marks = open_annotations([str(p) for p in labels], images)
    model = model_config_for("tiny", images, marks, **changes)
    training = TrainingConfig(
        steps=40, steps_per_epoch=40, batch_size=16, validation_crops=16, device="cpu",
        num_workers=workers,
    )  # fmt: skip
    row: dict[str, Any] = {"kind": "loading", "case": name, "workers": workers}
    for who in ("slides", "null", "slides", "null"):
        with tempfile.TemporaryDirectory() as folder, silence():
            out = Path(folder) / "m"
            ready = check_training(images, marks, training, out=out, model=model)
            job: Job = finetune_job(ready, training, RunFolder(out), RunSettings())
            if who == "null":
                job = dataclasses.replace(job, training=Known(job.training))
            tape = Tape(1)

            def see(event: Progress, tape: Tape = tape) -> None:
                if event.stage == "train":
                    tape.see(0)

            with at_work(job.folder, training) as lock:
                Run(job, training, see, never_stop, resume=False).train(lock)
        cpu, wall = tape.seconds()
        row[f"{who}_cpu"] = round(min(cpu, row.get(f"{who}_cpu", cpu)), 4)
        row[f"{who}_wall"] = round(min(wall, row.get(f"{who}_wall", wall)), 4)
    row["more_wall"] = round(row["slides_wall"] / row["null_wall"] - 1, 3)
    return row


class Known:
    """The first batch's samples again and again."""

    def __init__(self, dataset: Any) -> None:
        self.samples = [dataset[i] for i in range(16)]

    def __getitem__(self, index: int) -> Any:
        return self.samples[index % 16]


def main() -> None:
    """Measure what is not there yet, each case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        kind, name, workers = arguments.case.split(":")
        if kind == "loop":
            row = measure_loop(name)
        else:
            row = measure_loading(name, arguments.data, int(workers))
        print(json.dumps({**row, "threads": arguments.threads}))
        return
    if arguments.again:
        RESULTS.unlink(missing_ok=True)
    cases = [f"loop:{name}:0" for name in SIZES]
    if arguments.data:
        for name in ("brain", "glomeruli"):
            cases += [f"loading:{name}:{workers}" for workers in (0, 1)]
    known = {
        f"{r['kind']}:{r['case']}:{r.get('workers', 0)}"
        for r in (json.loads(line) for line in _lines())
    }
    for case in cases:
        if case in known:
            continue
        words = ["--case", case, "--threads", str(arguments.threads)]
        words += ["--data", str(arguments.data)] if arguments.data else []
        done = subprocess.run(
            [sys.executable, __file__, *words], capture_output=True, text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": str(arguments.threads),
                 "OMP_WAIT_POLICY": "PASSIVE", "WANDB_MODE": "disabled"},
        )  # fmt: skip
        if done.returncode:
            sys.stderr.write(f"{case}: {done.stderr.strip()[-800:]}\n")
            continue
        with RESULTS.open("a") as file:
            file.write(done.stdout.strip().splitlines()[-1] + "\n")


def _lines() -> list[str]:
    return RESULTS.read_text().splitlines() if RESULTS.exists() else []


if __name__ == "__main__":
    main()
