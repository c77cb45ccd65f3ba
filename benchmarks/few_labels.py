"""Learning from few labels on Synthetic: outlined images, and strokes.

1, 3, 10 and 30 images labelled all over, or strokes over 1 % of the pixels of all 100
images; with context and without; from nothing and from a masked autoencoder trained on
the 100 images without their labels. Ten other images are predicted whole and scored.
Appends one JSON line a run to ``results/few_labels.jsonl`` and skips what is there.

    python benchmarks/few_labels.py --work WORK [--seeds 0] [--steps 150]
                                    [--labels 1,3,10,30,strokes]
                                    [--arms context,mae,single]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from learning_loop import (
    Recipe,
    append,
    opened,
    pretrain_mae,
    rows_of,
    train,
    whole_images,
)
from learning_speed import synthetic_task

from napari_muvit.core import (
    Annotations,
    MuViTEncoder,
    load_model,
    model_config_for,
    open_pyramid,
    save_model,
)
from napari_muvit.core.data.brush_mask import BrushMask
from napari_muvit.core.data.sampling import PlainSlide
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.model.transfer import load_encoder_into
from napari_muvit.core.training.prepare import prepare

RESULTS = Path(__file__).parent / "results" / "few_labels.jsonl"
MAE_STEPS = 1000
RADIUS = 2
"""Of the brush, pixels."""
ARMS = ("context", "mae", "single", "single_mae")


def strokes(labels: np.ndarray, share: float, rng: np.random.Generator) -> Annotations:
    """Random walks of a brush over each class, an equal part of ``share`` each.

    Parameters
    ----------
    labels
        (h, w), 1..K.
    share
        Of all pixels to be painted.
    rng
        Generator of the walks.
    """
    classes = [int(k) for k in np.unique(labels) if k]
    wanted = share * labels.size / len(classes)
    items = []
    for label in classes:
        inside = labels == label
        painted = np.zeros_like(inside)
        while painted.sum() < min(wanted, 0.9 * inside.sum()):
            _walk(inside, painted, wanted, rng)
        items.append(BrushMask(label, painted))
    return Annotations(tuple(items), ("background", "outer", "inner"))


def _walk(
    inside: np.ndarray, painted: np.ndarray, wanted: float, rng: np.random.Generator
) -> None:
    """One stroke of up to 60 steps from a random pixel of the class, kept inside it."""
    places = np.argwhere(inside)
    at = places[rng.integers(len(places))].astype(float)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[: inside.shape[0], : inside.shape[1]]
    for _ in range(60):
        row, column = np.round(at).astype(int)
        within = 0 <= row < inside.shape[0] and 0 <= column < inside.shape[1]
        if not within or not inside[row, column] or painted.sum() >= wanted:
            return
        window = np.s_[
            max(0, row - RADIUS) : row + RADIUS + 1,
            max(0, column - RADIUS) : column + RADIUS + 1,
        ]
        disc = (y[window[0]] - row) ** 2 + (x[:, window[1]] - column) ** 2
        painted[window] |= inside[window] & (disc <= RADIUS**2)
        angle += rng.normal(0, 0.3)
        at += 2 * np.array([np.sin(angle), np.cos(angle)])


def annotated(task: Any, kind: str, seed: int) -> tuple[list[Any], list[Any], float]:
    """Slides, annotations and the share of all pixels of the 100 images labelled."""
    if kind != "strokes":
        rng = np.random.default_rng(seed)
        chosen = sorted(rng.permutation(len(task.train))[: int(kind)])
        slides, labels = opened([task.train[i] for i in chosen])
        return slides, labels, int(kind) / len(task.train)
    slides = [open_pyramid(image) for image, _ in task.train]
    marks, count, total = [], 0, 0
    for number, (_, path) in enumerate(task.train):
        pyramid = open_pyramid(path)
        truth = pyramid.levels[0].source.read((0, 0), pyramid.shape)[0]
        rng = np.random.default_rng([seed, number])
        found = strokes(truth, 0.01, rng)
        count += sum(int(item.mask.sum()) for item in found.items)
        total += truth.size
        marks.append(found)
    return slides, marks, count / total


def encoder_of(task: Any, work: Path, seed: int) -> tuple[Path, float]:
    """Folder of the encoder pretrained on all images, and its CPU-seconds."""
    folder = work / "models" / f"mae_synthetic512_{seed}_{MAE_STEPS}"
    cost = folder / "cpu_seconds.txt"
    if not cost.exists():
        slides, labels = opened(task.train)
        config = model_config_for("tiny", slides, labels, scale_factors=(1, 4))
        data = prepare(slides, labels, config, seed)
        unlabelled = [PlainSlide(s.pyramid, s.normalisation) for s in data.slides]
        mae, spent = pretrain_mae(unlabelled, data.config, steps=MAE_STEPS, seed=seed)
        save_model(mae, folder)
        cost.write_text(f"{spent:.1f}")
    return folder, float(cost.read_text())


def run(
    task: Any, kind: str, arm: str, seed: int, steps: int, work: Path
) -> dict[str, Any]:
    """Train on few labels; return a row of the results."""
    slides, labels, share = annotated(task, kind, seed)
    held, held_labels = opened(task.test)
    factors: Sequence[int] = (1,) if arm.startswith("single") else (1, 4)
    config = model_config_for(
        "tiny", slides, labels, scale_factors=factors,
        classes=("background", "outer", "inner"),
    )  # fmt: skip
    data = prepare(slides, labels, config, seed)
    test = prepare(held, held_labels, data.config, seed).slides
    torch.manual_seed(seed)
    model, cost = build_model(data.config), 0.0
    if arm.endswith("mae"):
        folder, cost = encoder_of(task, work, seed)
        encoder = load_model(folder, MuViTEncoder).extract_levels(factors)
        load_encoder_into(model, encoder)
    recipe = Recipe(steps=steps, batch_size=8, bfloat16=True)
    done = train(model, data.slides, test, data.config, recipe, seed=seed, points=2)
    return {
        "labels": kind, "arm": arm, "seed": seed, "steps": steps,
        "labelled_share": round(share, 5), "mae_steps": MAE_STEPS if cost else 0,
        "mae_cpu_seconds": cost, "cpu_seconds": done.cpu_seconds, "curve": done.curve,
        "whole": whole_images(done.model, task.test),
    }  # fmt: skip


def main() -> None:
    """Run what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--labels", default="1,3,10,30,strokes")
    parser.add_argument("--arms", default="context,mae,single")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = synthetic_task(arguments.work)
    for seed in map(int, arguments.seeds.split(",")):
        for kind in arguments.labels.split(","):
            for arm in arguments.arms.split(","):
                key = (kind, arm, seed, arguments.steps)
                names = ("labels", "arm", "seed", "steps")
                if key in {tuple(r[n] for n in names) for r in rows_of(RESULTS)}:
                    continue
                append(
                    RESULTS, run(task, kind, arm, seed, arguments.steps, arguments.work)
                )


if __name__ == "__main__":
    main()
