"""How long a training takes to end when it is asked to, in every state.

Starts the command, waits until it is in a state, and sends it SIGINT or SIGTERM; takes
the time until the process has ended, and looks at what it has left. Appends one JSON
line a stop to ``results/stop_latency.jsonl``; a case that is there as often as asked
for is skipped.

    python benchmarks/stop_latency.py --work WORK [--times N] [--cases NAME ...]
    python benchmarks/stop_latency.py --table

Criterion: exit code 130 within 2 s, no traceback, and what is left can be loaded. The
load of the machine is kept with each figure: what others compute is waited for too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "stop_latency.jsonl"
LIMIT = 2.0
EDGE = 8192
"""Pixels of the slide, which has no coarse levels."""
SMALL = ("--crop", "32", "--batch", "4", "--epoch-steps", "4")
PAPER = ("--preset", "paper", "--steps", "1000")


@dataclass(frozen=True)
class Case:
    """A command, the state in which it is stopped, and when within that."""

    command: str
    options: tuple[str, ...]
    state: str
    """Stage of the last event before the signal; empty: from the start on."""
    span: float
    """Seconds from then on, at random."""


CASES: dict[str, Case] = {
    "loading libraries": Case("finetune", SMALL, "", 4.0),
    "opening, label index": Case("finetune", SMALL, "prepare", 3.0),
    "coarse levels": Case("finetune", (*SMALL, "--levels", "1,16"), "levels", 1.0),
    "tissue": Case("pretrain", (*SMALL, "--no-cache"), "prepare", 4.0),
    "training": Case("finetune", SMALL, "train", 3.0),
    "pretraining": Case("pretrain", SMALL, "train", 3.0),
    "starting workers": Case(
        "finetune", (*SMALL, "--workers", "2"), "prepare", 12.0
    ),
    "training with workers": Case("finetune", (*SMALL, "--workers", "2"), "train", 3.0),
    "validation": Case(
        "finetune",
        (*SMALL, "--epoch-steps", "1", "--set", "validation_crops=20000"),
        "train",
        8.0,
    ),
    "writing": Case(
        "finetune",
        (*PAPER, "--crop", "32", "--batch", "1", "--set", "checkpoint_minutes=1e-9",
         "--epoch-steps", "2"),
        "train",
        10.0,
    ),
    "step of the paper": Case("finetune", (*PAPER, "--batch", "8"), "prepare", 40.0),
    "step of the paper, Mask2Former": Case(
        "finetune", (*PAPER, "--batch", "8", "--decoder", "mask2former"), "prepare",
        40.0,
    ),
    "step of the paper, pretraining": Case(
        "pretrain", (*PAPER, "--batch", "16"), "prepare", 40.0
    ),
}  # fmt: skip


def make_slide(work: Path) -> tuple[Path, Path]:
    """A large slide without coarse levels, and labels of its size."""
    import numpy as np
    import zarr

    image, labels = work / "slide.zarr", work / "labels.zarr"
    if not labels.exists():
        rng = np.random.default_rng(0)
        tile = rng.integers(0, 200, (512, 512)).astype(np.uint8)
        whole = np.tile(tile, (EDGE // 512, EDGE // 512))
        zarr.create_array(image, data=whole, chunks=(512, 512))
        classes = (1 + (whole > 100)).astype(np.uint8)
        zarr.create_array(labels, data=classes, chunks=(512, 512))
    return image, labels


def child(place: Path, arguments: Sequence[str]) -> int:
    """The command, which writes down the stage of each of its events."""
    from napari_muvit import _console
    from napari_muvit.cli import main

    show = _console.Console.__call__

    seen: list[str] = []

    def note(self: _console.Console, event: Any) -> None:
        if event.stage not in seen[-1:]:
            seen.append(event.stage)
            place.write_text(" ".join(seen))
        show(self, event)

    _console.Console.__call__ = note  # type: ignore[method-assign]
    return main(arguments)


def stages(place: Path) -> list[str]:
    """Stages of the events so far."""
    return place.read_text().split() if place.exists() else []


def stop_once(case: Case, number: int, work: Path) -> dict[str, Any]:
    """Start the command, stop it, and look at what it has left."""
    image, labels = make_slide(work)
    out, place, cache = work / "model", work / "stage", work / "cache"
    for path in (out, cache):
        shutil.rmtree(path, ignore_errors=True)
    place.unlink(missing_ok=True)
    data = ["--images", str(image), "--labels", str(labels)]
    arguments = [case.command, *(data if case.command == "finetune" else data[1:2])]
    arguments += ["--out", str(out), "--device", "cpu", *case.options]
    if "--steps" not in arguments:
        arguments += ["--steps", "100000"]
    draw = random.Random(number)
    wait, kind = draw.uniform(0, case.span), (signal.SIGINT, signal.SIGTERM)[number % 2]
    log = work / "said.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, __file__, "--child", str(place), *arguments],
            stdout=file, stderr=file,
            env={**os.environ, "NAPARI_MUVIT_CACHE": str(cache)},
        )  # fmt: skip
        while case.state and case.state not in stages(place):
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.01)
        time.sleep(wait)
        load = os.getloadavg()[0]
        stage = " ".join(stages(place)[-1:])
        begun = time.monotonic()
        process.send_signal(kind)
        code = process.wait()
        seconds = time.monotonic() - begun
    said = log.read_text()
    return {
        "signal": kind.name, "waited": round(wait, 2), "stage": stage,
        "seconds": round(seconds, 3), "code": code, "load": round(load, 1),
        "cores": os.cpu_count(), "traceback": "Traceback" in said, "left": left(out),
    }  # fmt: skip


def left(out: Path) -> str:
    """What a stopped run has left, all of it loaded."""
    from napari_muvit.core import MuViTMAE, load_model
    from napari_muvit.core.model.checkpoint import is_model_folder, read_header
    from napari_muvit.core.training.run_folder import RunFolder
    from napari_muvit.core.training.state import read_state

    found = []
    for path in (out, out / "last"):
        if is_model_folder(path):
            kind = read_header(path).kind
            load_model(path, MuViTMAE) if kind == "MuViTMAE" else load_model(path)
            found.append("best" if path == out else "last")
    if RunFolder(out).unfinished:
        found.append(f"state at {read_state(RunFolder(out).state).facts['step']}")
    return ", ".join(found) or "nothing"


def measured(name: str) -> list[dict[str, Any]]:
    """Lines of a case."""
    if not RESULTS.exists():
        return []
    lines = (json.loads(line) for line in RESULTS.read_text().splitlines())
    return [line for line in lines if line["case"] == name]


def table() -> str:
    """Return the longest times, as Markdown."""
    rows = ["| stopped while | stops | median | longest | exit 130 | load |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    for name in CASES:
        lines = measured(name)
        if lines:
            times = sorted(line["seconds"] for line in lines)
            good = sum(line["code"] == 130 and not line["traceback"] for line in lines)
            loads = [line["load"] for line in lines]
            rows.append(
                f"| {name} | {len(lines)} | {times[len(times) // 2]:.2f} s | "
                f"{times[-1]:.2f} s | {good} | {min(loads):.0f} to {max(loads):.0f} |"
            )
    return "\n".join(rows)


def main() -> None:
    """Measure what is missing, or print the table."""
    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(Path(sys.argv[2]), sys.argv[3:]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table or arguments.work is None:
        print(table())
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.cases:
        for number in range(len(measured(name)), arguments.times):
            found = stop_once(CASES[name], number, arguments.work)
            line = {"case": name, "number": number, **found}
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
    print(table())


if __name__ == "__main__":
    main()
