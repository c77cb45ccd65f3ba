"""Two processes that train one model on the CPU, over gloo."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.model.checkpoint import load_model
from napari_muvit.core.model.mae import MuViTMAE
from napari_muvit.core.training import finetune, pretrain
from napari_muvit.core.training.run_folder import RunFolder
from napari_muvit.core.training.run_log import read_log
from napari_muvit.core.training.state import read_facts

Slide = tuple[np.ndarray, np.ndarray]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="needs two cores"
)


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "steps": 10, "steps_per_epoch": 4, "batch_size": 4, "validation_crops": 8,
        "device": "cpu", "precision": "32-true", "num_threads": 1, **changes,
    }  # fmt: skip


class Program:
    """The trainings of ddp_target.py, and their processes."""

    def __init__(self, folder: Path, jobs: list[dict[str, Any]]) -> None:
        self.folder = folder
        (folder / "jobs.json").write_text(json.dumps(jobs))
        script = Path(__file__).with_name("ddp_target.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(folder)], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def wait_for_step(self, step: int) -> None:
        file = self.folder / "step"
        deadline = time.monotonic() + 180
        while not (file.exists() and int(file.read_text() or "0") >= step):
            assert self.process.poll() is None, self.end()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    @property
    def pids(self) -> list[int]:
        return [int((self.folder / f"pid{n}").read_text()) for n in range(2)]

    def end(self) -> tuple[int, str]:
        """Exit code, and what was written by both."""
        # Ends only when all that hold the pipe have ended, so both processes.
        said, _ = self.process.communicate(timeout=180)
        return self.process.returncode, said

    def results(self, rank: int = 0) -> list[dict[str, Any]]:
        return list(json.loads((self.folder / f"results{rank}.json").read_text()))

    def kill(self) -> None:
        for pid in (self.folder / f"pid{n}" for n in range(2)):
            if self.process.poll() is None and pid.exists():
                os.kill(int(pid.read_text()), signal.SIGKILL)


Launch = Callable[..., Program]


@pytest.fixture
def launch(tmp_path: Path, slide: Slide, tiny_config: ModelConfig) -> Iterator[Launch]:
    np.savez(tmp_path / "slide.npz", image=slide[0], labels=slide[1])
    model = dataclasses.replace(tiny_config, pyramid_norm="group")
    started: list[Program] = []

    def start(*jobs: dict[str, Any]) -> Program:
        number = len(started)
        folder = tmp_path / f"program{number}"
        folder.mkdir()
        complete = [
            {"data": str(tmp_path / "slide.npz"), "model": model.to_dict(),
             "kind": "finetune", "out": str(tmp_path / "m"), **job}
            for job in jobs
        ]  # fmt: skip
        started.append(Program(folder, complete))
        return started[-1]

    yield start
    for program in started:
        program.kill()


def step_losses(out: Path) -> list[float]:
    return [r["loss"] for r in read_log(RunFolder(out).log) if "loss" in r]


def test_two_processes_train_as_one(
    launch: Launch, tmp_path: Path, slide: Slide, tiny_config: ModelConfig
) -> None:
    # One program that pretrains and then goes on from it, as a user would write it.
    both = settings(devices=2)
    program = launch(
        {"kind": "pretrain", "out": str(tmp_path / "mae2"), "config": both},
        {"out": str(tmp_path / "seg2"), "config": both,
         "options": {"start": str(tmp_path / "mae2")}},
    )  # fmt: skip
    model = dataclasses.replace(tiny_config, pyramid_norm="group")
    alone = TrainingConfig.from_dict(settings())
    pretrain([slide[0]], alone, model=model, out=tmp_path / "mae1")
    tuned = finetune([slide[0]], [slide[1]], alone, model=model, out=tmp_path / "seg1",
                     start=tmp_path / "mae1")  # fmt: skip
    code, said = program.end()
    assert (code, said) == (0, "")
    load_model(tmp_path / "mae2", MuViTMAE)
    load_model(tmp_path / "seg2")
    assert not RunFolder(tmp_path / "seg2").unfinished

    # The error is a mean over equally many pixels in each process.
    one, two = step_losses(tmp_path / "mae1"), step_losses(tmp_path / "mae2")
    assert len(one) == len(two) == 10
    assert two == pytest.approx(one, abs=1e-5)
    # Each process has a Dice and a mean over annotated pixels of its own crops, and of
    # these the mean is taken; so the losses are alike, not the same.
    one, two = step_losses(tmp_path / "seg1"), step_losses(tmp_path / "seg2")
    assert len(one) == len(two) == 10
    assert np.mean(two) == pytest.approx(np.mean(one), abs=0.15)
    # Both processes know the Dice of all crops.
    first, second = program.results(0)[1]["history"], program.results(1)[1]["history"]
    names = ("val_loss", "mDSC", "Dice cell")
    assert [[r[n] for n in names] for r in first] == [
        [r[n] for n in names] for r in second
    ]
    mean = [np.mean([r["mDSC"] for r in h]) for h in (first, tuned.history)]
    assert mean[0] == pytest.approx(mean[1], abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "rank"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGTERM, 1)],
)
def test_a_signal_to_one_process_stops_both(
    launch: Launch, tmp_path: Path, number: signal.Signals, rank: int
) -> None:
    endless = settings(steps=100_000, devices=2)
    program = launch({"config": endless})
    program.wait_for_step(6)
    os.kill(program.pids[rank], number)
    code, said = program.end()
    assert code == 130, said
    assert "Traceback" not in said
    folder = RunFolder(tmp_path / "m")
    assert folder.unfinished
    step = read_facts(folder.state)["step"]
    assert [r["stopped"] for r in program.results()] == ["stopped"]
    more = settings(steps=step + 6, devices=2, steps_per_epoch=4)
    program = launch({"config": more, "options": {"resume": True}})
    code, said = program.end()
    assert (code, said) == (0, "")
    assert program.results()[0]["steps"] == step + 6
    assert len(step_losses(folder.path)) == step + 6


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other_with_one_line(
    launch: Launch, tmp_path: Path, rank: int
) -> None:
    program = launch({"config": settings(steps=100_000, devices=2)})
    program.wait_for_step(6)
    os.kill(program.pids[rank], signal.SIGKILL)
    begun = time.monotonic()
    code, said = program.end()
    assert code in ((2, -signal.SIGKILL) if rank else (-signal.SIGKILL,))
    assert time.monotonic() - begun < 60
    assert len(said.splitlines()) == 1
    assert "Another process of this training has ended" in said
    assert "--resume" in said
    program = launch(
        {"config": settings(steps=20, devices=2), "options": {"resume": True}}
    )
    assert program.end() == (0, "")
    assert program.results()[0]["steps"] == 20


@pytest.mark.slow
def test_a_resumed_run_of_two_ends_as_the_unbroken_one(
    launch: Launch, tmp_path: Path
) -> None:
    config = settings(steps=40, devices=2, freeze_encoder=True)
    whole = launch({"config": config, "out": str(tmp_path / "whole")})
    assert whole.end() == (0, "")
    part = launch({"config": config})
    part.wait_for_step(6)
    part.process.send_signal(signal.SIGINT)
    assert part.end()[0] in (0, 130)
    rest = launch({"config": config, "options": {"resume": True}})
    assert rest.end() == (0, "")
    names = [tmp_path / n for n in ("whole", "m")]
    assert step_losses(names[0]) == step_losses(names[1])
    dice = [
        [r["mDSC"] for r in read_log(RunFolder(n).log) if "mDSC" in r] for n in names
    ]
    assert dice[0] == dice[1]


@pytest.mark.slow
def test_processes_that_would_split_a_step_differently_say_so(launch: Launch) -> None:
    # With another number of passes they took other crops and asked at other times.
    program = launch({"config": settings(devices=2), "uneven": True})
    code, said = program.end()
    assert code == 2
    assert "--accumulate" in said
    assert "Traceback" not in said
    program = launch({"config": settings(devices=2, accumulate=2), "uneven": True})
    assert program.end() == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_minutes_end_both(launch: Launch, workers: int) -> None:
    # With workers the processes asked each other for the time while they read ahead,
    # in threads and not as often as one another.
    config = settings(steps=None, steps_per_epoch=None, minutes=0.2, devices=2,
                      num_workers=workers)  # fmt: skip
    program = launch({"config": config})
    assert program.end() == (0, "")
    found = program.results()[0]
    assert found["stopped"] == "minutes"
    assert found["seconds"] < 12 + 6
