"""Train, predict and evaluate on labelled slides, by the command alone.

Appends one JSON line a run to ``results/real_slides.jsonl`` and skips what is there,
unless ``--again``. ``DATA`` holds the folders ``brain_sections`` and ``glomeruli_pas``;
the images are not part of this project. Synthetic slides (100 to train on, 10 to test,
512 px) are written to ``--work``, where a picture of each run is left, too.

    python benchmarks/real_slides.py DATA --work WORK [--only brain_fifth,glomeruli]
                                     [--steps N] [--seeds 0,1,2]
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from napari_muvit.core import evaluate, open_pyramid, write_synthetic
from napari_muvit.core.config import default_colors
from napari_muvit.core.evaluation import mean_dice

RESULTS = Path(__file__).parent / "results" / "real_slides.jsonl"
BRAIN_CLASSES = (
    "background,Isocortex,OLF,HPF,CTXsp,STR,PAL,TH,HY,MB,P,MY,CB,fiber tracts,VS"
)
# Tiles of one kidney that touch; all other tiles stand alone.
GLOMERULI_TEST = ("10063", "10064", "10102", "10103")


@dataclass(frozen=True)
class Experiment:
    """Which images train, which test, and how."""

    train: list[Path]
    test: list[Path]
    options: list[str]


def labels_of(image: Path) -> Path:
    """Label file of an image."""
    return image.with_name(image.name.replace("_image.", "_labels."))


def synthetic(folder: Path) -> dict[str, Experiment]:
    """Two classes that only the context tells apart: levels and boxes."""
    pairs = write_synthetic(folder, images=110, size=512, field=256)
    images = [image for image, _ in pairs]
    arms = {
        "": ["--levels", "1,4"], "_1": ["--levels", "1"],
        "_naive": ["--levels", "1,4", "--boxes", "naive"],
    }  # fmt: skip
    options = ["--preset", "tiny", "--classes", "background,outer,inner"]
    return {
        f"synthetic{suffix}": Experiment(
            images[:100], images[100:], [*options, *changes]
        )
        for suffix, changes in arms.items()
    }


def experiments(data: Path, work: Path) -> dict[str, Experiment]:
    """Return the runs for which there are images."""
    brain = sorted((data / "brain_sections").glob("*_image.tif"))
    kidney = sorted((data / "glomeruli_pas").glob("*_image.*"))
    kidney = [p for p in kidney if "stitched" not in p.name]
    brain_options = ["--classes", BRAIN_CLASSES, "--preset", "tiny"]
    block = range(24, 35)
    found = {
        "brain_fifth": Experiment(
            [p for i, p in enumerate(brain) if i % 5 != 2],
            [p for i, p in enumerate(brain) if i % 5 == 2],
            [*brain_options, "--levels", "1,8"],
        ),
        "brain_fifth_wide": Experiment(
            [p for i, p in enumerate(brain) if i % 5 != 2],
            [p for i, p in enumerate(brain) if i % 5 == 2],
            [*brain_options, "--levels", "1,4,16"],
        ),
        "brain_block": Experiment(
            [p for i, p in enumerate(brain) if i not in block],
            [p for i, p in enumerate(brain) if i in block],
            [*brain_options, "--levels", "1,8"],
        ),
        "brain_fifth_alone": Experiment(
            [p for i, p in enumerate(brain) if i % 5 != 2],
            [p for i, p in enumerate(brain) if i % 5 == 2],
            [*brain_options, "--levels", "1"],
        ),
        "glomeruli": Experiment(
            [p for p in kidney if not any(k in p.name for k in GLOMERULI_TEST)],
            [p for p in kidney if any(k in p.name for k in GLOMERULI_TEST)],
            ["--classes", "glass,tissue,glomerulus", "--preset", "tiny",
             "--levels", "1,4"],
        ),
        "glomeruli_1": Experiment(
            [p for p in kidney if not any(k in p.name for k in GLOMERULI_TEST)],
            [p for p in kidney if any(k in p.name for k in GLOMERULI_TEST)],
            ["--classes", "glass,tissue,glomerulus", "--preset", "tiny",
             "--levels", "1"],
        ),
    }  # fmt: skip
    found |= synthetic(work / "synthetic512")
    found |= upright(brain, [*brain_options, "--upright", "--batch", "8"])
    return {name: e for name, e in found.items() if e.train and e.test}


def upright(brain: list[Path], options: list[str]) -> dict[str, Experiment]:
    """Sections mirrored left and right only: levels, boxes, and the harder split."""
    levels = {
        "": "1,4,16", "_1": "1", "_1_8": "1,8", "_1_8_32": "1,8,32",
    }  # fmt: skip
    parts = {
        "fifth": [i % 5 == 2 for i in range(len(brain))],
        "block": [24 <= i < 35 for i in range(len(brain))],
    }
    found = {}
    for split, held in parts.items():
        train = [p for p, out in zip(brain, held, strict=True) if not out]
        test = [p for p, out in zip(brain, held, strict=True) if out]
        for suffix, factors in levels.items():
            found[f"upright_{split}{suffix}"] = Experiment(
                train, test, [*options, "--levels", factors]
            )
        found[f"upright_{split}_naive"] = Experiment(
            train, test, [*options, "--levels", "1,4,16", "--boxes", "naive"]
        )
    return found


def command(*words: object) -> float:
    """Run the command; return its CPU-seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "napari_muvit.cli", *(str(w) for w in words)], check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(
    name: str, experiment: Experiment, work: Path, steps: int, seed: int
) -> dict[str, object]:
    """Train, predict, evaluate; return a row of the results."""
    folder = work / f"{name}_{steps}_{seed}"
    began = time.time()
    train_cpu = command(
        "finetune", "--images", *experiment.train,
        "--labels", *map(labels_of, experiment.train), *experiment.options,
        "--steps", steps, "--seed", seed, "--out", folder / "model", "--overwrite",
    )  # fmt: skip
    trained = time.time()
    predict_cpu = command(
        "predict", *experiment.test, "--model", folder / "model",
        "--out", folder / "predictions", "--overwrite",
    )  # fmt: skip
    predicted = time.time()
    outputs = [folder / "predictions" / f"{p.stem}.zarr" for p in experiment.test]
    truths = [labels_of(p) for p in experiment.test]
    score = evaluate(outputs, truths)
    draw(experiment.test, truths, outputs, folder / f"{name}.png")
    skip = {score.background, 1}
    return {
        "run": name,
        "options": " ".join(experiment.options),
        "train": len(experiment.train),
        "test": len(experiment.test),
        "steps": steps,
        "seed": seed,
        "train_seconds": round(trained - began),
        "train_cpu_seconds": round(train_cpu),
        "predict_seconds": round(predicted - trained),
        "predict_cpu_seconds": round(predict_cpu),
        "curve": curve(folder / "model"),
        "mDSC": round(score.mdice, 4),
        # Without the first class: background or glass.
        "mDSC_without_first": round(
            mean_dice([v for k, v in enumerate(score.dice, 1) if k not in skip]), 4
        ),
        "dice": {
            n: round(d, 4) for n, d in zip(score.class_names, score.dice, strict=True)
        },
    }


def curve(model: Path) -> list[list[float]]:
    """[step, seconds, mDSC] of each validation on what was held out of the labels."""
    with (model / "training" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["mDSC"]]
    return [
        [int(r["step"]), round(float(r["seconds"]), 1), round(float(r["mDSC"]), 4)]
        for r in rows
    ]


def draw(
    images: list[Path], truths: list[Path], outputs: list[Path], path: Path
) -> None:
    """Image, truth and prediction of up to four test images, one below another."""
    rows = []
    count = len(images)
    chosen = sorted({round(i * (count - 1) / 3) for i in range(4)})
    for index in chosen:
        parts = []
        for source in (images[index], truths[index], outputs[index]):
            pyramid = open_pyramid(source)
            pixels = pyramid.levels[0].source.read((0, 0), pyramid.shape)
            parts.append(as_rgb(pixels, labels=source != images[index]))
        rows.append(np.concatenate(parts, axis=1))
    width = min(r.shape[1] for r in rows)
    picture = Image.fromarray(np.concatenate([r[:, :width] for r in rows]))
    picture.thumbnail((1500, 2400))
    ImageDraw.Draw(picture).text((5, 5), "image | truth | prediction", fill="yellow")
    picture.save(path)


def as_rgb(pixels: np.ndarray, *, labels: bool) -> np.ndarray:
    """(C, y, x) pixels or labels as (y, x, 3)."""
    if not labels:
        channels = pixels if len(pixels) == 3 else np.repeat(pixels[:1], 3, axis=0)
        return channels.transpose(1, 2, 0).astype(np.uint8)
    colors = default_colors(int(max(pixels.max(), 2)), background=1)
    table = [(0, 0, 0), *([int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colors)]
    return np.array(table, dtype=np.uint8)[pixels[0]]


def main() -> None:
    """Run what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    done = set()
    if RESULTS.exists():
        rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
        done = {(row["run"], row["steps"], row.get("seed", 0)) for row in rows}
    only = arguments.only and arguments.only.split(",")
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    found = experiments(arguments.data, arguments.work)
    for seed, name in itertools.product(seeds, found):
        known = (name, arguments.steps, seed) in done and not arguments.again
        if known or (only and name not in only):
            continue
        row = run(name, found[name], arguments.work, arguments.steps, seed)
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
