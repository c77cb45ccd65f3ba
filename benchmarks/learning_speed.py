"""How fast which arrangement and recipe learns: Synthetic, brain sections, glomeruli.

Appends one JSON line a run to ``results/learning_speed.jsonl`` and skips what is there.

    python benchmarks/learning_speed.py --work WORK [--data DATA] --task synthetic
           --arms base,single,naive [--seeds 0,1,2]
           [--steps N | --cpu SECONDS] [--whole last|ema|both]

``DATA`` holds ``brain_sections`` and ``glomeruli_pas``, which are not part of this
project. Recipes are chosen on ``brain_choice``: sections that are held out from the
*training* sections of ``brain``, so that the test sections choose nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from learning_arms import Patch, without_tokens
from learning_loop import (
    Recipe,
    append,
    opened,
    plain,
    pretrain_mae,
    rows_of,
    train,
    whole_images,
)
from learning_paper_arms import (
    conv_stem,
    lean_pyramid,
    mask2former_heads,
    mlp_stem,
    root_of_pixels,
    together,
    unetr_token_heads,
)
from real_slides import BRAIN_CLASSES, GLOMERULI_TEST, draw, labels_of

from napari_muvit.core import model_config_for, save_model, write_synthetic
from napari_muvit.core.data.sampling import PlainSlide
from napari_muvit.core.model.segmenter import MuViTSegmenter, build_model
from napari_muvit.core.model.transfer import load_encoder_into
from napari_muvit.core.training.prepare import prepare

RESULTS = Path(__file__).parent / "results" / "learning_speed.jsonl"


@dataclass(frozen=True)
class Task:
    """Images and labels to train on and to score with."""

    train: list[tuple[Path, Path]]
    test: list[tuple[Path, Path]]
    scale_factors: tuple[int, ...]
    classes: list[str] | None


def synthetic_task(work: Path) -> Task:
    """100 training and 10 test images of 512 px."""
    pairs = write_synthetic(work / "synthetic512", images=110, size=512, field=256)
    return Task(pairs[:100], pairs[100:], (1, 4), None)


def tasks(work: Path, data: Path | None) -> dict[str, Callable[[], Task]]:
    """Return the tasks for which there are images."""
    found: dict[str, Callable[[], Task]] = {"synthetic": lambda: synthetic_task(work)}
    if data is None:
        return found
    images = sorted((data / "brain_sections").glob("*_image.tif"))
    brain = list(enumerate((p, labels_of(p)) for p in images))
    classes = BRAIN_CLASSES.split(",")
    others = [(i, pair) for i, pair in brain if i % 5 != 2]
    block = range(24, 35)

    def split(
        train: Callable[[int], bool], test: Callable[[int], bool], of: Any
    ) -> Any:
        return lambda: Task(
            [pair for i, pair in of if train(i)],
            [pair for i, pair in of if test(i)],
            (1, 4, 16),
            classes,
        )

    found["brain"] = split(lambda i: i % 5 != 2, lambda i: i % 5 == 2, brain)
    found["brain_choice"] = split(lambda i: i % 5 != 4, lambda i: i % 5 == 4, others)
    found["brain_block"] = split(lambda i: i not in block, lambda i: i in block, brain)
    tiles = sorted((data / "glomeruli_pas").glob("*_image.*"))
    kidney = [(p, labels_of(p)) for p in tiles if "stitched" not in p.name]
    found["glomeruli"] = lambda: Task(
        [p for p in kidney if not any(k in p[0].name for k in GLOMERULI_TEST)],
        [p for p in kidney if any(k in p[0].name for k in GLOMERULI_TEST)],
        (1, 4),
        ["glass", "tissue", "glomerulus"],
    )
    return found


@dataclass(frozen=True)
class Arm:
    """What differs from the preset ``tiny``."""

    model: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    patch: Patch = contextlib.nullcontext
    mae_steps: int = 0
    coarse_labels: bool = False
    """Whether patched decoders want the coarse levels' labels."""


UNETR = {"decoder": "unetr"}
QUERIES = {"decoder": "mask2former"}
ARMS: Mapping[str, Arm] = {
    "base": Arm(),
    "single": Arm({"scale_factors": (1,)}),
    "naive": Arm({"boxes": "naive"}),
    "no_tokens": Arm(patch=without_tokens),
    "two_levels": Arm({"scale_factors": (1, 8)}),
    "wide_levels": Arm({"scale_factors": (1, 8, 32)}),
    "crop_96": Arm({"crop_size": 96}, {"batch_size": 8}),
    "crop_48": Arm({"crop_size": 48}, {"batch_size": 28}),
    "batch_8": Arm(recipe={"batch_size": 8}),
    "single_8": Arm({"scale_factors": (1,)}, {"batch_size": 8}),
    "naive_8": Arm({"boxes": "naive"}, {"batch_size": 8}),
    "batch_32": Arm(recipe={"batch_size": 32}),
    "fast": Arm(recipe={"learning_rate": 4e-3, "encoder_learning_rate": 1e-3}),
    "slow": Arm(recipe={"learning_rate": 1e-3, "encoder_learning_rate": 3e-4}),
    "mirror_8_32": Arm({"scale_factors": (1, 8, 32)}, {"flips": False, "mirror": True}),
    "mirror_fast": Arm(
        recipe={
            "flips": False,
            "mirror": True,
            "learning_rate": 4e-3,
            "encoder_learning_rate": 1.2e-3,
        }
    ),
    "mirror_8": Arm(recipe={"flips": False, "mirror": True, "batch_size": 8}),
    "lean_mirror_8": Arm(
        recipe={"flips": False, "mirror": True, "batch_size": 8}, patch=lean_pyramid
    ),
    "no_flips": Arm(recipe={"flips": False}),
    "mirror": Arm(recipe={"flips": False, "mirror": True}),
    "root_mirror_8": Arm(
        recipe={"flips": False, "mirror": True, "batch_size": 8}, patch=root_of_pixels
    ),
    "turns_8": Arm(
        recipe={
            "flips": False,
            "mirror": True,
            "batch_size": 8,
            "angle": 15.0,
            "zoom": 0.1,
            "intensity_jitter": 0.2,
        }
    ),
    "turns": Arm(recipe={"flips": False, "mirror": True, "angle": 15.0, "zoom": 0.1}),
    "balanced": Arm(recipe={"foreground_share": 0.9}),
    "anywhere": Arm(recipe={"foreground_share": 0.0}),
    "clip_1": Arm(recipe={"clip_norm": 1.0}),
    "unetr": Arm(UNETR),
    "unetr_loud": Arm(UNETR, {"encoder_learning_rate": 2e-3}),
    "unetr_heads": Arm(UNETR, patch=unetr_token_heads, coarse_labels=True),
    "unetr_conv": Arm(UNETR, patch=conv_stem),
    "unetr_mlp_heads": Arm(
        UNETR, patch=together(mlp_stem, unetr_token_heads), coarse_labels=True
    ),
    "unetr_conv_heads": Arm(
        UNETR, patch=together(conv_stem, unetr_token_heads), coarse_labels=True
    ),
    "unetr_conv_heads_loud": Arm(
        UNETR,
        {"encoder_learning_rate": 2e-3},
        together(conv_stem, unetr_token_heads),
        coarse_labels=True,
    ),
    "mask2former": Arm(QUERIES),
    "mask2former_conv_heads": Arm(
        QUERIES, patch=together(conv_stem, mask2former_heads), coarse_labels=True
    ),
    "lean": Arm(patch=lean_pyramid),
    "lean_mirror": Arm(recipe={"flips": False, "mirror": True}, patch=lean_pyramid),
    "contrast": Arm(recipe={"intensity_jitter": 0.3}),
}


def run(
    name: str, arm: Arm, kind: str, task: Task, seed: int, recipe: Recipe,
    work: Path, whole: str | None, points: int,
) -> dict[str, Any]:  # fmt: skip
    """Train one arm; return a row of the results."""
    slides, labels = opened(task.train)
    held, held_labels = opened(task.test)
    changes = {"scale_factors": task.scale_factors, **arm.model}
    config = model_config_for("tiny", slides, labels, classes=task.classes, **changes)
    data = prepare(slides, labels, config, seed)
    test = prepare(held, held_labels, data.config, seed).slides
    recipe = replace(recipe, **arm.recipe)
    torch.manual_seed(seed)
    with arm.patch():
        model = build_model(data.config)
        before = pretrained(model, data, arm.mae_steps, seed)
        folder = work / "models" / f"{kind}_{name}_{seed}"

        def keep(curve: list[dict[str, Any]], average: MuViTSegmenter) -> None:
            save_model(average, folder)
            (folder / "curve.json").write_text(json.dumps(curve))

        done = train(
            model, data.slides, test, data.config, recipe, seed=seed, points=points,
            coarse_labels=arm.coarse_labels, on_score=keep,
        )  # fmt: skip
        row: dict[str, Any] = {
            "task": kind,
            "arm": name,
            "seed": seed,
            "levels": list(data.config.scale_factors),
            "recipe": plain(recipe),
            "steps": done.steps,
            "cpu_seconds": done.cpu_seconds,
            "mae_cpu_seconds": round(before, 1),
            "curve": done.curve,
        }
        if whole in ("last", "both"):
            row["whole"] = pictured(done.model, task, folder / "last")
        if whole in ("ema", "both"):
            row["whole_ema"] = pictured(done.average, task, folder / "ema")
    return row


def pictured(model: MuViTSegmenter, task: Task, folder: Path) -> dict[str, Any]:
    """Score whole images; leave the predictions and a picture of some of them."""
    found = whole_images(model, task.test, keep=folder)
    images = [image for image, _ in task.test]
    outs = [folder / f"{image.stem}.zarr" for image in images]
    draw(images, [p for _, p in task.test], outs, folder.with_suffix(".png"))
    return found


def pretrained(model: MuViTSegmenter, data: Any, steps: int, seed: int) -> float:
    """Masked autoencoding first; return its CPU-seconds."""
    if not steps:
        return 0.0
    unlabelled = [PlainSlide(s.pyramid, s.normalisation) for s in data.slides]
    mae, spent = pretrain_mae(unlabelled, data.config, steps=steps, seed=seed)
    load_encoder_into(model, mae.encoder)
    return spent


def main() -> None:
    """Run what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--arms", required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--cpu", type=float)
    parser.add_argument("--whole", choices=("last", "ema", "both"))
    parser.add_argument("--points", type=int, default=3)
    parser.add_argument("--bfloat16", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = tasks(arguments.work, arguments.data)[arguments.task]()
    budget = {
        "max_steps": arguments.steps,
        "max_cpu": arguments.cpu,
        "bfloat16": arguments.bfloat16,
    }
    for seed in map(int, arguments.seeds.split(",")):
        for name in arguments.arms.split(","):
            key = {"task": arguments.task, "arm": name, "seed": seed, **budget}
            if any(key.items() <= row.items() for row in map(_flat, rows_of(RESULTS))):
                continue
            recipe = Recipe(
                steps=arguments.steps,
                cpu_seconds=arguments.cpu,
                bfloat16=arguments.bfloat16,
            )
            row = run(
                name, ARMS[name], arguments.task, task, seed, recipe, arguments.work,
                arguments.whole, arguments.points,
            )  # fmt: skip
            append(RESULTS, {**row, **budget})


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """What can be compared."""
    return {k: v for k, v in row.items() if not isinstance(v, (dict, list))}


if __name__ == "__main__":
    main()
