"""What shared context saves: time a crop, by model and arrangement.

Three kinds of cases, each arm in turn, several rounds; the least CPU time of an arm
counts, and the median of the ratios within a round. Appends one JSON line a case to
``results/shared_context.jsonl``.

- *Slides*: predicts a square synthetic slide whole with untrained models, engine
  included: the fine level alone, all levels with a coarse crop of its own for each fine
  crop (joint attention, and ``coarse_to_fine``), and all levels with shared context.
- *Paper*: passes of the paper's model, 25 M parameters in the encoder, crops of 256 px:
  the encoder and the whole UNETR segmenter, joint and with shared context. What a
  context costs is added, shared by the crops that lie in it.
- *Keys*: a pass of ``small`` at 256 px whose fine tokens attend to fewer coarse tokens
  than there are: what pooled or nearby ones could save at most.

    python benchmarks/shared_context.py --work WORK [--only "tiny;small"] [--rounds 3]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from napari_muvit.core import (
    Box,
    ModelConfig,
    PredictionConfig,
    open_pyramid,
    predict,
    write_synthetic,
)
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.model.shared_context import compute_context, segment_within
from napari_muvit.core.prediction.contexts import ContextGrid
from napari_muvit.core.presets import PRESETS

RESULTS = Path(__file__).parent / "results" / "shared_context.jsonl"
MODELS: dict[str, dict[str, Any]] = {
    "tiny": {"preset": "tiny", "scale_factors": (1, 4), "edge": 1024},
    "tiny 1,4,16": {"preset": "tiny", "scale_factors": (1, 4, 16), "edge": 1024},
    "small": {"preset": "small", "scale_factors": (1, 8, 32), "edge": 1024},
    "small, larger slide": {"preset": "small", "scale_factors": (1, 8, 32),
                            "edge": 2048, "arms": ("alone", "shared")},
    "small 256": {"preset": "small", "scale_factors": (1, 8, 32), "crop_size": 256,
                  "edge": 2048},
}  # fmt: skip
ARMS: dict[str, dict[str, Any]] = {
    "alone": {"scale_factors": (1,), "context_skip": False, "level_heads": False},
    "joint": {"attention": "joint"},
    "own": {"attention": "coarse_to_fine"},
    "shared": {"attention": "coarse_to_fine"},
}


BATCH = 8


def slides(name: str, work: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds of CPU a crop of each arm, engine included."""
    case = dict(MODELS[name])
    edge, preset = case.pop("edge"), PRESETS[case.pop("preset")]
    chosen = case.pop("arms", tuple(ARMS))
    ((image, _),) = write_synthetic(work / f"synthetic{edge}", images=1, size=edge)
    slide, found = open_pyramid(image), {}
    arms: dict[str, Callable[[], None]] = {}
    for arm in chosen:
        changes = ARMS[arm]
        torch.manual_seed(0)
        config = ModelConfig(**{**preset.model, "num_classes": 3, **case, **changes})
        model = build_model(config)
        prediction = PredictionConfig(
            device="cpu", num_threads=1, context="shared" if arm == "shared" else "own"
        )

        def whole(model: Any = model, prediction: Any = prediction) -> None:
            run = predict(slide, model, prediction)
            found["plan"] = run.plan
            for _ in run:
                pass

        arms[arm] = whole
    least, ratio = in_turn(arms, rounds)
    plan = found["plan"]
    return {
        "case": name,
        "crops": plan.num_crops,
        "contexts": plan.contexts.count,
        "ms": {arm: round(1000 * s / plan.num_crops, 2) for arm, s in least.items()},
        "joint_by_shared": ratio("joint", "shared") if "joint" in chosen else None,
        "shared_by_alone": ratio("shared", "alone"),
    }


def paper(_name: str, _work: Path, rounds: int) -> dict[str, Any]:
    """Seconds of CPU a crop of the paper's model."""
    values = {**PRESETS["paper"].model, "num_classes": 3}
    joint, model = (
        build_model(ModelConfig(**values, attention=attention)).eval()  # type: ignore[arg-type]
        for attention in ("joint", "coarse_to_fine")
    )
    x, boxes = nested(model.config, 1)
    context = compute_context(model, x[:, 1:], boxes[:, 1:])

    def shared_encoder() -> None:
        # All of it but the decoder.
        real = model.decoder.finest
        model.decoder.finest = lambda _x, maps, _coarser: maps[-1]
        segment_within(model, x[:, 0], boxes[:, 0], [context])
        model.decoder.finest = real

    least, ratio = in_turn(
        {
            "joint encoder": lambda: joint.encoder(x, boxes),
            "shared encoder": shared_encoder,
            "joint": lambda: joint(x, boxes),
            "shared": lambda: segment_within(model, x[:, 0], boxes[:, 0], [context]),
            "context": lambda: compute_context(model, x[:, 1:], boxes[:, 1:]),
        },
        rounds,
    )
    config = model.config
    grid = ContextGrid(
        config.crop_size, config.scale_factors, Box((0, 0), (65536, 65536))
    )
    crops = round((grid.stride / (0.75 * config.crop_size)) ** 2)
    whole = least["shared"] + least["context"] / crops
    return {
        "case": "paper, UNETR",
        "seconds": {arm: round(spent, 2) for arm, spent in least.items()},
        "crops_a_context": crops,
        "encoder_joint_by_shared": ratio("joint encoder", "shared encoder"),
        "joint_by_shared": ratio("joint", "shared"),
        "joint_by_shared_with_context": round(least["joint"] / whole, 2),
    }


def keys(_name: str, _work: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds of CPU a crop by the coarse tokens that it attends to."""
    values = {**PRESETS["small"].model, "num_classes": 3, "crop_size": 256}
    model = build_model(ModelConfig(**{**values, "scale_factors": (1, 8, 32)})).eval()
    alone = build_model(ModelConfig(**{**values, **ARMS["alone"]})).eval()
    x, boxes = nested(model.config, BATCH)
    context = compute_context(model, x[:1, 1:], boxes[:1, 1:])
    arms: dict[str, Callable[[], Any]] = {
        "alone": lambda: alone(x[:, :1], boxes[:, :1])
    }
    for count in (0, 128, 512, 1024, 2048):
        less = dataclasses.replace(
            context,
            keys=tuple(k[:, :count] for k in context.keys),
            values=tuple(v[:, :count] for v in context.values),
        )
        arms[str(count)] = lambda less=less: segment_within(  # type: ignore[misc]
            model, x[:, 0], boxes[:, 0], [less] * BATCH
        )
    least, ratio = in_turn(arms, rounds)
    return {
        "case": "small 256, keys",
        "ms": {arm: round(1000 * spent / BATCH, 1) for arm, spent in least.items()},
        "by_alone": {arm: ratio(arm, "alone") for arm in arms},
    }


def nested(config: ModelConfig, crops: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fine crops in the same coarse crops: pixels and boxes."""
    factors, edge = config.scale_factors, config.crop_size
    x = torch.rand(crops, len(factors), config.in_channels, edge, edge)
    boxes = torch.zeros(crops, len(factors), 2, 2)
    for level, factor in enumerate(factors):
        boxes[:, level, 0] = edge * (factors[-1] - factor) / 2
        boxes[:, level, 1] = boxes[:, level, 0] + edge * factor
    boxes[:, 0] += torch.arange(crops)[:, None, None] * 8
    return x, boxes


def in_turn(
    arms: Mapping[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, float], Callable[[str, str], float]]:
    """Least CPU-seconds of each arm, and the median ratio of two within a round."""
    spent: dict[str, list[float]] = {arm: [] for arm in arms}
    with torch.inference_mode():
        for _ in range(rounds):
            for arm, work in arms.items():
                began = time.process_time()
                work()
                spent[arm].append(time.process_time() - began)

    def ratio(one: str, other: str) -> float:
        pairs = zip(spent[one], spent[other], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    return {arm: min(times) for arm, times in spent.items()}, ratio


CASES: Mapping[str, Callable[[str, Path, int], dict[str, Any]]] = {
    **dict.fromkeys(MODELS, slides),
    "paper": paper,
    "keys": keys,
}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="", help="names between semicolons")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only.split(";") if arguments.only else CASES:
        row = CASES[name](name, arguments.work, arguments.rounds)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
