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
import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from napari_muvit.core import (
    PRESETS,
    MuViTEncoder,
    Progress,
    TrainingConfig,
    finetune,
    model_config_for,
    open_pyramid,
    write_synthetic,
)
from napari_muvit.core.training.prepare import open_annotations

RESULTS = Path(__file__).parent / "results" / "learning.jsonl"
BRAIN_CLASSES = (
    "background,Isocortex,OLF,HPF,CTXsp,STR,PAL,TH,HY,MB,P,MY,CB,fiber tracts,VS"
)


@dataclass(frozen=True)
class Arm:
    """What differs from the preset ``tiny``."""

    model: Mapping[str, Any] = field(default_factory=dict)
    tokens: bool = True
    three_levels: bool = False


ARMS = {
    "base": Arm(),
    "coarse_to_fine": Arm({"attention": "coarse_to_fine"}),
    "no_tokens": Arm(tokens=False),
    "no_skip": Arm({"context_skip": False}),
    "no_heads": Arm({"level_heads": False}),
    "single": Arm({"scale_factors": (1,)}),
    "naive": Arm({"boxes": "naive"}),
    "skip_8": Arm({"context_strides": (8,)}),
    "skip_1_8": Arm({"context_strides": (1, 8)}),
    "skip_all": Arm({"context_strides": (1, 2, 4, 8)}),
    "group_norm": Arm({"pyramid_norm": "group"}),
    "narrow": Arm({"pyramid_channels": (16, 32, 32, 64)}),
    "wide": Arm({"pyramid_channels": (32, 64, 64, 128)}),
    "three_levels": Arm(three_levels=True),
    "unetr": Arm({"decoder": "unetr"}),
    "unetr_skip": Arm({"decoder": "unetr", "context_skip": True, "level_heads": True}),
    "mask2former": Arm({"decoder": "mask2former"}),
}


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


@contextlib.contextmanager
def without_tokens() -> Iterator[None]:
    """Replace what the encoder says by zeros."""
    real = MuViTEncoder.intermediate_tokens

    def silent(self: MuViTEncoder, x: Any, bboxes: Any, layers: Any) -> list[Any]:
        count = len(self.config.scale_factors)
        for size, edge in zip(x.shape[3:], self.config.patch, strict=True):
            count *= size // edge
        return [x.new_zeros(len(x), count, self.config.embed_dim) for _ in layers]

    MuViTEncoder.intermediate_tokens = silent  # type: ignore[method-assign]
    try:
        yield
    finally:
        MuViTEncoder.intermediate_tokens = real  # type: ignore[method-assign]


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
    slides, held_out = (
        [open_pyramid(image) for image, _ in part] for part in (task.train, task.test)
    )
    labels, held_out_labels = (
        open_annotations([str(p) for _, p in part], opened, zero_is_background=False)
        for part, opened in ((task.train, slides), (task.test, held_out))
    )
    factors = task.three_factors if arm.three_levels else task.scale_factors
    changes = {"scale_factors": factors, **arm.model}
    config = model_config_for("tiny", slides, labels, classes=task.classes, **changes)
    training = TrainingConfig(
        **{
            **PRESETS["tiny"].training,
            "minutes": None,
            "steps": steps,
            "steps_per_epoch": max(1, steps // 8),
            "validation_crops": 160,
            "seed": seed,
            "num_threads": 1,
        }
    )
    curve = Curve()
    with contextlib.nullcontext() if arm.tokens else without_tokens():
        result = finetune(
            slides, labels, training, out=out, model=config, val_images=held_out,
            val_annotations=held_out_labels, overwrite=True, on_progress=curve,
        )  # fmt: skip
    return {
        "arm": name,
        "seed": seed,
        "steps": steps,
        "levels": list(config.scale_factors),
        "cpu_seconds": round(curve.spent, 1),
        "curve": curve.rows,
        "mDSC": round(result.history[-1].get("mDSC", float("nan")), 4),
        "dice": {
            k.removeprefix("Dice "): round(v, 4)
            for k, v in result.history[-1].items()
            if k.startswith("Dice ")
        },
    }


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
    key = ("task", "arm", "seed", "steps")
    for seed in map(int, arguments.seeds.split(",")):
        for name in arguments.arms.split(","):
            for kind, task in tasks(arguments.work, arguments.data).items():
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
