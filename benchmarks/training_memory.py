"""Measure the memory of training steps, and compare it with what is estimated.

Each case in a fresh process: a few real steps (loss, backward pass, clipping, AdamW) of
the training modules on random pixels; the peak of its memory above what it had before
the network was built. Linux.

    python benchmarks/training_memory.py [--again] [--only NAME ...]

Appends one JSON line a case to ``benchmarks/results/training_memory.jsonl``; a case
that is there already is skipped unless ``--again``. Writes the table into
``benchmarks/README.md``, and returns 1 if an estimate lies more than 10 % below or 40 %
above what was measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "training_memory.jsonl"
README = Path(__file__).parent / "README.md"
MARKS = "<!-- training memory: begin -->", "<!-- training memory: end -->"
LEAST, MOST = 0.9, 1.4
"""Criterion: estimate over measurement."""

HALF = {"crop_size": 128, "embed_dim": 256, "depth": 6, "scale_factors": (1, 8)}
"""Half of the paper's widths, depth and crop, and two levels."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained."""

    name: str
    preset: str
    kind: str = "segmenter"
    batch: int
    changes: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    steps: int = 3


def _cases() -> list[Case]:
    bf16, frozen = {"precision": "bf16-mixed"}, {"freeze_encoder": True}
    unetr, m2f = {"decoder": "unetr"}, {"decoder": "mask2former"}
    plain = {"context_skip": None, "level_heads": None}
    volume = {
        "ndim": 3, "crop_size": 32, "scale_factors": (1, 2), "decoder": "pyramid",
        "in_channels": 2,
    }  # fmt: skip
    segment = [
        Case(name="tiny", preset="tiny", batch=4),
        Case(name="tiny", preset="tiny", batch=16),
        Case(name="tiny, 30 steps", preset="tiny", batch=16, steps=30),
        Case(name="tiny", preset="tiny", batch=64),
        Case(name="tiny, average", preset="tiny", batch=16, training={"ema": 0.99}),
        Case(name="tiny, UNETR", preset="tiny", batch=16, changes=unetr | plain),
        Case(name="tiny, Mask2Former", preset="tiny", batch=16, changes=m2f | plain),
        Case(name="tiny, 3D", preset="tiny", batch=4, changes=volume),
        Case(name="small", preset="small", batch=12),
        Case(name="small, bf16", preset="small", batch=12, training=bf16),
        Case(name="small, frozen", preset="small", batch=12, training=frozen),
        Case(name="half paper, UNETR", preset="paper", batch=2, changes=HALF),
        Case(name="half paper, UNETR", preset="paper", batch=8, changes=HALF),
        Case(name="half paper, UNETR, bf16", preset="paper", batch=4, changes=HALF,
             training=bf16),
        Case(name="half paper, Mask2Former", preset="paper", batch=4,
             changes=HALF | m2f),
        Case(name="half paper, Mask2Former, frozen", preset="paper", batch=4,
             changes=HALF | m2f, training=frozen),
        Case(name="paper, UNETR", preset="paper", batch=1, steps=2),
        Case(name="paper, Mask2Former", preset="paper", batch=1, changes=m2f, steps=2),
    ]  # fmt: skip
    mae = [
        Case(name="tiny", preset="tiny", batch=16),
        Case(name="tiny", preset="tiny", batch=128),
        Case(name="small", preset="small", batch=64),
        Case(name="half paper", preset="paper", batch=8, changes=HALF),
        Case(name="half paper, bf16", preset="paper", batch=8, changes=HALF,
             training=bf16),
        Case(name="paper", preset="paper", batch=2, steps=2),
    ]  # fmt: skip
    return segment + [dataclasses.replace(case, kind="mae") for case in mae]


def resident_bytes(name: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"Linux says no {name} of this process.")


def train(case: Case, steps: int) -> tuple[Any, Any]:
    """Train for some steps and return the network and how it was trained."""
    import torch

    from napari_muvit.core.config import ModelConfig, TrainingConfig
    from napari_muvit.core.model.mae import MuViTMAE
    from napari_muvit.core.model.segmenter import MuViTSegmenter
    from napari_muvit.core.presets import preset
    from napari_muvit.core.training.ema import WeightAverage
    from napari_muvit.core.training.mae_module import PretrainModule
    from napari_muvit.core.training.modules import FineTuneModule

    model = ModelConfig(**{**preset(case.preset).model, **case.changes})
    values = {"steps": steps, "batch_size": case.batch, **case.training}
    training = TrainingConfig(**values)
    if case.kind == "mae":
        module: Any = PretrainModule(MuViTMAE(model), training)
    else:
        module = FineTuneModule(MuViTSegmenter(model), training)
        module.network.encoder.requires_grad_(not training.freeze_encoder)
    optimiser = module.configure_optimizers()
    average = WeightAverage(module.network, training.ema) if training.ema else None
    for step in range(steps):
        batch = random_batch(model, case)
        mixed = training.precision == "bf16-mixed"
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss, _ = module.losses(batch, step)
        # As Lightning does: the last gradients are there in the forward pass.
        optimiser.zero_grad()
        loss.backward()
        module.configure_gradient_clipping(optimiser)
        optimiser.step()
        if average is not None:
            average.update()
    return module.network, training


def random_batch(model: Any, case: Case) -> Any:
    """Nested crops of noise, every pixel labelled."""
    import torch

    from napari_muvit.core.data.datasets import CropBatch, PixelBatch

    levels, spatial = len(model.scale_factors), (model.crop_size,) * model.ndim
    pixels = torch.rand(case.batch, levels, model.in_channels, *spatial)
    upper = torch.tensor(model.scale_factors) * float(model.crop_size)
    boxes = torch.stack([torch.zeros(levels), upper], dim=1)[None, :, :, None]
    boxes = boxes.repeat(case.batch, 1, 1, model.ndim)
    if case.kind == "mae":
        return PixelBatch(pixels, boxes)
    labels = torch.randint(1, model.num_classes + 1, (case.batch, *spatial))
    coarse = levels - 1 if model.level_heads else 0
    shares = torch.rand(case.batch, coarse, model.num_classes, *spatial)
    return CropBatch(pixels, boxes, labels.to(torch.uint8), shares)


def measure(case: Case) -> dict[str, Any]:
    """Train in this process and return the numbers."""
    import torch

    from napari_muvit.core.training.memory import estimate_memory

    small = {
        "crop_size": 32,
        "embed_dim": 32,
        "depth": 1,
        "num_heads": 2,
        "mae_dim": 32,
    }
    for kind in ("segmenter", "mae"):
        # Once through everything, so that libraries count as idle.
        warm = Case(name="", preset="tiny", kind=kind, batch=1, changes=small)
        train(warm, 1)
    gc.collect()
    idle, started = resident_bytes("VmRSS"), time.monotonic()
    Path("/proc/self/clear_refs").write_text("5")
    network, training = train(case, case.steps)
    peak, seconds = resident_bytes("VmHWM") - idle, time.monotonic() - started
    started = time.monotonic()
    estimate = estimate_memory(
        network, precision=training.precision, freeze_encoder=training.freeze_encoder,
        ema=training.ema > 0,
    )  # fmt: skip
    estimated = estimate.total(case.batch)
    return {
        **dataclasses.asdict(case),
        "measured_mib": round(peak / 2**20),
        "estimated_mib": round(estimated / 2**20),
        "ratio": round(estimated / peak, 3),
        "estimate": dataclasses.asdict(estimate),
        "estimate_s": round(time.monotonic() - started, 2),
        "train_s": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "system": platform.platform(terse=True),
    }


def run_case(case: Case) -> dict[str, Any]:
    """Measure in a fresh process."""
    command = [
        sys.executable,
        __file__,
        "--measure",
        json.dumps(dataclasses.asdict(case)),
    ]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def key_of(row: dict[str, Any]) -> tuple[str, str, int]:
    """What names a case."""
    return row["kind"], row["name"], row["batch"]


def read_rows() -> dict[tuple[str, str, int], dict[str, Any]]:
    """Last row of each case."""
    if not RESULTS.exists():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return {key_of(row): row for row in rows}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown table of all cases."""
    lines = [
        "| network | batch | estimated | measured | ratio | estimate took |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = ("MAE " if row["kind"] == "mae" else "") + row["name"]
        lines.append(
            f"| {name} | {row['batch']} | {row['estimated_mib']:,} MiB | "
            f"{row['measured_mib']:,} MiB | {row['ratio']:.2f} | "
            f"{row['estimate_s']:.1f} s |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, write the table, and return 1 if the criterion fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="measure done cases too")
    parser.add_argument("--only", nargs="+", default=[], help="names of cases")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(Case(**json.loads(options.measure)))))
        return 0
    latest = read_rows()
    cases = [dataclasses.asdict(case) for case in _cases()]
    for case in cases:
        wanted = not options.only or case["name"] in options.only
        if not wanted or (key_of(case) in latest and not options.again):
            continue
        row = latest[key_of(case)] = run_case(Case(**case))
        print(table([row]).splitlines()[-1], flush=True)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    rows = [latest[key_of(case)] for case in cases if key_of(case) in latest]
    before, found, rest = README.read_text().partition(MARKS[0])
    if found:
        after = rest.partition(MARKS[1])[2]
        README.write_text(f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{after}")
    ratios = [row["ratio"] for row in rows]
    passed = all(LEAST <= ratio <= MOST for ratio in ratios)
    print("passed" if passed else "FAILED", min(ratios), "to", max(ratios))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
