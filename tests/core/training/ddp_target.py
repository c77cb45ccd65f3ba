"""Trainings as a program of its own, which Lightning starts again for each device."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from napari_muvit._console import interruptible
from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.errors import Cancelled, MuvitError
from napari_muvit.core.model.segmenter import MuViTSegmenter
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import TrainingResult, finetune, memory, pretrain

FOLDER = Path(sys.argv[1])
RANK = int(os.environ.get("LOCAL_RANK", "0"))


def listen(event: Progress) -> None:
    """Tell the test how far it is."""
    if event.stage == "train":
        (FOLDER / "step").write_text(str(int(event.metrics["step"])))


def less_memory_on_the_second(model: ModelConfig) -> None:
    """Let two crops fit at a time into the first process, and one into the other."""
    estimate = memory.estimate_memory(MuViTSegmenter, model, distributed=True)
    crops = 4 - 2.5 * RANK
    free = estimate.total(0) + int(crops * estimate.activations)
    # Of what is free, each of two processes takes a safe share of its half.
    free = int(2 * free / memory.SAFE_SHARE)
    memory.free_memory = lambda _device: free


def train(job: dict[str, Any], **options: Any) -> TrainingResult:
    slide = np.load(job["data"])
    config = TrainingConfig.from_dict(job["config"])
    if job.get("uneven"):
        less_memory_on_the_second(ModelConfig.from_dict(job["model"]))
    options |= {
        "model": ModelConfig.from_dict(job["model"]), "out": job["out"],
        "on_progress": listen, **job.get("options", {}),
    }  # fmt: skip
    if job["kind"] == "pretrain":
        return pretrain([slide["image"]], config, **options)
    return finetune([slide["image"]], [slide["labels"]], config, **options)


def main() -> int:
    (FOLDER / f"pid{RANK}").write_text(str(os.getpid()))
    jobs = json.loads((FOLDER / "jobs.json").read_text())
    with interruptible() as should_stop:
        try:
            results = [train(job, should_stop=should_stop) for job in jobs]
        except Cancelled as stop:
            sys.stderr.write(f"{stop}\n")
            return 130
        except MuvitError as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            return 2
    found = [
        {"steps": r.steps, "stopped": r.stopped, "history": list(r.history),
         "seconds": r.seconds}
        for r in results
    ]  # fmt: skip
    (FOLDER / f"results{RANK}.json").write_text(json.dumps(found))
    return 130 if results[-1].stopped == "stopped" else 0


if __name__ == "__main__":
    sys.exit(main())
