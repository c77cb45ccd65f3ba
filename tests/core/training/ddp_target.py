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
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import TrainingResult, finetune, pretrain

FOLDER = Path(sys.argv[1])
RANK = int(os.environ.get("LOCAL_RANK", "0"))


def listen(event: Progress) -> None:
    """Tell the test how far it is."""
    if event.stage == "train":
        (FOLDER / "step").write_text(str(int(event.metrics["step"])))


def train(job: dict[str, Any], **options: Any) -> TrainingResult:
    slide = np.load(job["data"])
    config = TrainingConfig.from_dict(job["config"])
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
