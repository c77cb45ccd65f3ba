"""What sharing context costs in accuracy, at equal training; by the command alone.

Trains the preset ``tiny`` with joint attention, with ``coarse_to_fine`` and with
``within_level``, the same steps and seeds. The joint model is predicted with a coarse
crop around each fine crop (it cannot share), the others so and with shared context. All
test images are predicted whole. Tasks: Synthetic [1, 4], 200 steps of 8 crops (100
images of 512 px to train on, 10 to test), and mouse brain sections [1, 4, 16], every
fifth held out, 1000 steps of 8 crops (not part of this project: ``DATA`` holds
``brain_sections``).

Appends one JSON line a training to ``results/shared_context_dice.jsonl`` and skips
what is there, so it can be stopped and goes on when it is started again. Models stay in
``WORK``. A Synthetic training takes 80 CPU-seconds, one of the brain 500, predictions a
fifth of that; one process of one thread:

    OMP_NUM_THREADS=1 nice python benchmarks/shared_context_dice.py DATA --work WORK

``--tasks synthetic,brain``, ``--arms coarse_to_fine,joint``, ``--seeds 0,1,2`` choose.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from real_slides import Experiment, command, experiments, labels_of

from napari_muvit.core import evaluate

RESULTS = Path(__file__).parent / "results" / "shared_context_dice.jsonl"
TASKS = {"synthetic": ("synthetic", 200), "brain": ("upright_fifth", 1000)}
"""Which experiment of ``real_slides``, and how many steps."""
CONTEXTS = {
    "coarse_to_fine": ("own", "shared"),
    "joint": ("own",),
    "within_level": ("own", "shared"),
}


def run(
    task: str, experiment: Experiment, attention: str, seed: int, work: Path
) -> dict[str, Any]:
    """Train, predict in each way, score; return a row of the results."""
    folder, steps = work / f"{task}_{attention}_{seed}", TASKS[task][1]
    trained = command(
        "finetune", "--images", *experiment.train,
        "--labels", *map(labels_of, experiment.train), *experiment.options,
        "--attention", attention, "--steps", steps, "--seed", seed,
        "--out", folder / "model", "--overwrite",
    )  # fmt: skip
    return {
        "task": task,
        "attention": attention,
        "seed": seed,
        "steps": steps,
        "train_cpu_seconds": round(trained),
        "predicted": {
            context: predicted(experiment, folder, context)
            for context in CONTEXTS[attention]
        },
    }


def predicted(experiment: Experiment, folder: Path, context: str) -> dict[str, Any]:
    """Scores of the whole test images."""
    out = folder / context
    spent = command(
        "predict", *experiment.test, "--model", folder / "model",
        "--context", context, "--out", out, "--overwrite",
    )  # fmt: skip
    outputs = [out / f"{image.stem}.zarr" for image in experiment.test]
    score = evaluate(outputs, [labels_of(image) for image in experiment.test])
    shutil.rmtree(out)
    named = zip(score.class_names, score.dice, strict=True)
    return {
        "cpu_seconds": round(spent, 1),
        "mDSC": round(score.mdice, 4),
        "dice": {name: round(dice, 4) for name, dice in named},
    }


def main() -> None:
    """Run what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--arms", default=",".join(CONTEXTS))
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    found = experiments(arguments.data, arguments.work)
    for task, seed, attention in itertools.product(
        arguments.tasks.split(","),
        map(int, arguments.seeds.split(",")),
        arguments.arms.split(","),
    ):
        if (task, attention, seed) in finished():
            continue
        row = run(task, found[TASKS[task][0]], attention, seed, arguments.work)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")


def finished() -> set[tuple[str, str, int]]:
    """What the results hold already."""
    if not RESULTS.exists():
        return set()
    rows = map(json.loads, RESULTS.read_text().splitlines())
    return {(row["task"], row["attention"], row["seed"]) for row in rows}


if __name__ == "__main__":
    main()
