"""All decoders on the slides of the demo, by the command, with the same steps.

Trains on one Synthetic slide, predicts another one whole and evaluates it, as a user
would: ``finetune``, ``predict``, ``evaluate``. Appends one JSON line a run to
``results/demo_decoders.jsonl`` and skips what is there.

    python benchmarks/demo_decoders.py --work WORK [--steps 240] [--only unetr]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from real_slides import command

from napari_muvit.core import evaluate, write_synthetic

RESULTS = Path(__file__).parent / "results" / "demo_decoders.jsonl"
RUNS = {
    "pyramid": ["--decoder", "pyramid"],
    "pyramid, no context skip": ["--decoder", "pyramid", "--no-context-skip"],
    "pyramid, joint attention": ["--decoder", "pyramid", "--attention", "joint"],
    "pyramid, naive boxes": ["--decoder", "pyramid", "--boxes", "naive"],
    "pyramid, fine level alone": ["--decoder", "pyramid", "--levels", "1"],
    "unetr": ["--decoder", "unetr"],
    "unetr, context skip": ["--decoder", "unetr", "--context-skip"],
    "mask2former": ["--decoder", "mask2former"],
}


def run(name: str, work: Path, steps: int) -> dict[str, object]:
    """Train, predict, evaluate; return a row of the results."""
    (image, labels), (other, truth) = (
        write_synthetic(work / part, images=1, size=size, field=256, seed=seed)[0]
        for part, size, seed in (("train", 4096, 0), ("test", 2048, 1000))
    )
    folder = work / name.replace(", ", "-").replace(" ", "_")
    train_cpu = command(
        "finetune", "--images", image, "--labels", labels, "--preset", "tiny",
        *RUNS[name], "--steps", steps, "--out", folder / "model", "--overwrite",
    )  # fmt: skip
    predict_cpu = command(
        "predict", other, "--model", folder / "model", "--out", folder, "--overwrite"
    )
    score = evaluate(folder / f"{other.stem}.zarr", truth)
    return {
        "run": name,
        "steps": steps,
        "train_cpu_seconds": round(train_cpu),
        "predict_cpu_seconds": round(predict_cpu),
        "mDSC": round(score.mdice, 4),
        "dice": {
            n: round(d, 4) for n, d in zip(score.class_names, score.dice, strict=True)
        },
    }


def main() -> None:
    """Run what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--only", choices=RUNS)
    arguments = parser.parse_args()
    done = set()
    if RESULTS.exists():
        rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
        done = {(row["run"], row["steps"]) for row in rows}
    for name in [arguments.only] if arguments.only else RUNS:
        if (name, arguments.steps) in done:
            continue
        row = run(name, arguments.work, arguments.steps)
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
