"""Learning curves: which arrangement learns to use context, at what cost in CPU time.

Trains every *arm* (an arrangement of the network) on a *task* for the same number of
steps, on one thread, and scores crops of held-out images on the way. Appends one JSON
line a run to ``results/learning.jsonl`` and skips what is there, so it can be stopped
and resumed.

    python benchmarks/learning.py --work WORK [--data DATA] [--task synthetic|brain]
                                  [--arms base,no_skip] [--seeds 0,1,2] [--steps N]

``DATA`` holds the folder ``brain_sections``, which is not part of this project; the
Synthetic images are made in ``--work``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from learning_arms import ARMS, Arm
from torch.utils.data import DataLoader, Subset

from napari_muvit.core import (
    PRESETS,
    ModelConfig,
    MuViTMAE,
    Progress,
    TrainingConfig,
    finetune,
    model_config_for,
    open_pyramid,
    save_model,
    write_synthetic,
)
from napari_muvit.core.data.augment import Augmentation
from napari_muvit.core.data.datasets import SegmentationDataset
from napari_muvit.core.data.sampling import CropSampler
from napari_muvit.core.training.prepare import open_annotations, prepare
from napari_muvit.core.training.schedule import one_cycle

RESULTS = Path(__file__).parent / "results" / "learning.jsonl"
BRAIN_CLASSES = (
    "background,Isocortex,OLF,HPF,CTXsp,STR,PAL,TH,HY,MB,P,MY,CB,fiber tracts,VS"
)


BEFORE = {"batch_size": 16, "ema": 0.0, "precision": "32-true"}


@dataclass(frozen=True)
class Task:
    """Images and labels to train on and to score with."""

    train: list[tuple[Path, Path]]
    test: list[tuple[Path, Path]]
    scale_factors: tuple[int, ...]
    three_factors: tuple[int, ...]
    classes: list[str] | None
    steps: int


def tasks(work: Path, data: Path | None) -> dict[str, Task]:
    """Return the tasks for which there are images."""
    pairs = write_synthetic(work / "synthetic", images=28, size=1024, field=256, seed=0)
    found = {"synthetic": Task(pairs[:24], pairs[24:], (1, 4), (1, 2, 4), None, 160)}
    brain = sorted((data / "brain_sections").glob("*_image.tif")) if data else []
    if brain:
        labelled = [
            (p, p.with_name(p.name.replace("_image", "_labels"))) for p in brain
        ]
        found["brain"] = Task(
            [p for i, p in enumerate(labelled) if i % 5 != 2],
            [p for i, p in enumerate(labelled) if i % 5 == 2],
            (1, 8),
            (1, 4, 16),
            BRAIN_CLASSES.split(","),
            300,
        )
    return found


class Curve:
    """Collects step, CPU-seconds of training alone, and mDSC."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, float]] = []
        self.spent = 0.0
        self._last = time.process_time()

    def __call__(self, event: Progress) -> None:
        """Take one event of the run."""
        now = time.process_time()
        if event.stage == "train":
            self.spent += now - self._last
        elif event.stage == "validate" and "mDSC" in event.metrics:
            score = event.metrics["mDSC"]
            self.rows.append((int(event.metrics["step"]), round(self.spent, 1), score))
        self._last = now


def run(
    name: str, arm: Arm, task: Task, seed: int, steps: int, out: Path
) -> dict[str, Any]:
    """Train one arm; return a row of the results."""
    slides, labels = opened(task.train)
    held_out, held_out_labels = opened(task.test)
    factors = task.three_factors if arm.three_levels else task.scale_factors
    changes = {"scale_factors": factors, **arm.model}
    config = model_config_for("tiny", slides, labels, classes=task.classes, **changes)
    curve = Curve()
    start = out.with_name(f"{out.name}_mae") if arm.pretrain_steps else None
    pretrain_seconds = 0.0
    if start is not None:
        pretrain_seconds = pretrained(
            slides, labels, config, arm.pretrain_steps, seed, start
        )
    if arm.labelled is not None:
        # Evenly along the brain, not the first ones.
        chosen = range(0, len(slides), max(1, len(slides) // arm.labelled))
        chosen = chosen[: arm.labelled]
        slides, labels = [slides[i] for i in chosen], [labels[i] for i in chosen]
    training = TrainingConfig(
        **{
            **PRESETS["tiny"].training,
            # As the preset was when the tables were begun.
            **BEFORE,
            "minutes": None,
            "steps": steps,
            "steps_per_epoch": max(1, steps // 8),
            "validation_crops": 160,
            "seed": seed,
            "num_threads": 1,
        }
    )
    with arm.patch():
        result = finetune(
            slides, labels, training, out=out, model=config, start=start,
            val_images=held_out, val_annotations=held_out_labels, overwrite=True,
            on_progress=curve,
        )  # fmt: skip
    return {
        "arm": name,
        "seed": seed,
        "steps": steps,
        "levels": list(config.scale_factors),
        "cpu_seconds": round(curve.spent, 1),
        "pretrain_cpu_seconds": round(pretrain_seconds, 1),
        "curve": curve.rows,
        "mDSC": round(result.history[-1].get("mDSC", float("nan")), 4),
        "dice": {
            k.removeprefix("Dice "): round(v, 4)
            for k, v in result.history[-1].items()
            if k.startswith("Dice ")
        },
    }


def opened(pairs: list[tuple[Path, Path]]) -> tuple[list[Any], list[Any]]:
    """Return slides and their annotations."""
    slides = [open_pyramid(image) for image, _ in pairs]
    names = [str(label) for _, label in pairs]
    return slides, open_annotations(names, slides, zero_is_background=False)


def pretrained(
    slides: list[Any],
    labels: list[Any],
    config: ModelConfig,
    steps: int,
    seed: int,
    folder: Path,
) -> float:
    """Train a masked autoencoder on crops from anywhere; return its CPU-seconds.

    The labels say only that all of a slide may be sampled.
    """
    data = prepare(slides, labels, config, seed)
    sampler = CropSampler(
        data.slides, data.config, foreground_share=0.0, seed=seed + 1000
    )
    batch = BEFORE["batch_size"]
    crops = Subset(
        SegmentationDataset(
            sampler, data.config, augmentation=Augmentation(flips=True)
        ),
        range(steps * batch),
    )
    torch.manual_seed(seed)
    mae = MuViTMAE(data.config)
    optimiser = torch.optim.AdamW(mae.parameters(), 1e-3, weight_decay=0.05)
    began = time.process_time()
    for step, crop in enumerate(DataLoader(crops, batch_size=batch)):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * one_cycle(step / steps, 0.1)
        loss = mae(crop.pixels, crop.bboxes).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(mae.parameters(), 0.5)
        optimiser.step()
    spent = time.process_time() - began
    save_model(mae, folder)
    return spent


def main() -> None:
    """Run what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--task")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = tasks(arguments.work, arguments.data)
    key = ("task", "arm", "seed", "steps")
    for seed in map(int, arguments.seeds.split(",")):
        for name in arguments.arms.split(","):
            for kind, task in found.items():
                steps = arguments.steps or task.steps
                if arguments.task not in (None, kind) or (
                    (kind, name, seed, steps) in finished(key)
                ):
                    continue
                out = arguments.work / "models" / f"{kind}_{name}_{seed}"
                row = run(name, ARMS[name], task, seed, steps, out)
                with RESULTS.open("a") as file:
                    file.write(json.dumps({"task": kind, **row}) + "\n")


def finished(key: tuple[str, ...]) -> set[tuple[Any, ...]]:
    """What the results hold already."""
    RESULTS.parent.mkdir(exist_ok=True)
    if not RESULTS.exists():
        return set()
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return {tuple(row[name] for name in key) for row in rows}


if __name__ == "__main__":
    main()
