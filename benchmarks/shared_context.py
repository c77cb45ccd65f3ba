"""What shared context saves: time a crop, engine included, by model and arrangement.

Predicts a part of a synthetic slide with untrained models: the fine level alone, all
levels with a coarse crop of its own for each fine crop (joint attention, and
``coarse_to_fine``), and all levels with shared context. Each case in turn, several
rounds; the least CPU time counts. Appends one JSON line a model to
``results/shared_context.jsonl``.

    python benchmarks/shared_context.py --work WORK [--only "tiny;small"]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from napari_muvit.core import (
    ModelConfig,
    PredictionConfig,
    open_pyramid,
    predict,
    write_synthetic,
)
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.presets import PRESETS

RESULTS = Path(__file__).parent / "results" / "shared_context.jsonl"
MODELS: dict[str, dict[str, Any]] = {
    "tiny": {"preset": "tiny", "scale_factors": (1, 4), "edge": 1024},
    "tiny 1,4,16": {"preset": "tiny", "scale_factors": (1, 4, 16), "edge": 1024},
    "small": {"preset": "small", "scale_factors": (1, 8, 32), "edge": 1024},
    "small 256": {"preset": "small", "scale_factors": (1, 8, 32), "crop_size": 256,
                  "edge": 2048},
}  # fmt: skip
ARMS: dict[str, dict[str, Any]] = {
    "alone": {"scale_factors": (1,), "context_skip": False, "level_heads": False},
    "joint": {"attention": "joint"},
    "own": {"attention": "coarse_to_fine"},
    "shared": {"attention": "coarse_to_fine"},
}


def seconds(model: Any, slide: Any, arm: str, edge: int) -> tuple[float, int]:
    """CPU-seconds of a prediction, and its crops."""
    middle = min(slide.shape) / 2
    config = PredictionConfig(
        device="cpu", num_threads=1, context="shared" if arm == "shared" else "own",
        region=(middle, middle, middle + edge, middle + edge),
    )  # fmt: skip
    run = predict(slide, model, config)
    crops = {c for tile in run.plan.tiles() for c in run.plan.crops_of(tile)}
    began = time.process_time()
    for _ in run:
        pass
    return time.process_time() - began, len(crops)


def measure(name: str, slide: Any, rounds: int) -> dict[str, Any]:
    """Milliseconds of CPU a crop of each arm."""
    case = dict(MODELS[name])
    edge, preset = case.pop("edge"), PRESETS[case.pop("preset")]
    least: dict[str, float] = {}
    for _ in range(rounds):
        for arm, changes in ARMS.items():
            torch.manual_seed(0)
            config = ModelConfig(
                **{**preset.model, "num_classes": 3, **case, **changes}
            )
            spent, crops = seconds(build_model(config), slide, arm, edge)
            least[arm] = min(least.get(arm, spent), 1000 * spent / crops)
    return {
        "model": name,
        "crops": crops,
        "ms": {arm: round(value, 2) for arm, value in least.items()},
        "own_by_shared": round(least["own"] / least["shared"], 2),
        "joint_by_shared": round(least["joint"] / least["shared"], 2),
        "shared_by_alone": round(least["shared"] / least["alone"], 3),
    }


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="", help="names between semicolons")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ((image, _),) = write_synthetic(arguments.work / "synthetic", images=1, size=8192)
    slide = open_pyramid(image)
    for name in arguments.only.split(";") if arguments.only else MODELS:
        row = measure(name, slide, arguments.rounds)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
