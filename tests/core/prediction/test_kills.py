"""The command, killed and interrupted: run again, it ends as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from napari_muvit.core.data.ome_zarr import write_pyramid

Build = Callable[..., Any]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="signals of Unix"),
]

FORKS = """
import json, os, sys
import napari_muvit.core.prediction.run, napari_muvit.core.model.checkpoint
from napari_muvit._commands import predict
from napari_muvit.cli import main
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        os._exit(main(json.loads(line)))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""
"""Runs the command as often as it is asked to, without loading torch each time."""


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 255, (1100, 1300), dtype=np.uint8)
    write_pyramid(tmp_path / "slide.zarr", values, pixel_size=0.5)
    return tmp_path / "slide.zarr"


@pytest.fixture
def words(slide: Path, tiny_model: Build, temporary: Path) -> list[str]:
    model = tiny_model(crop_size=128)
    return ["predict", str(slide), "--model", str(model), "--device", "cpu"]


@pytest.fixture
def forks(temporary: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    # To its end, so that a failure shows what was said.
    with (tmp_path / "said.txt").open("w") as said, subprocess.Popen(
        [sys.executable, "-c", FORKS], text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=said,
    ) as process:  # fmt: skip
        assert read_line(process) == "ready"
        yield process
        assert process.stdin is not None
        process.stdin.close()


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line that is not for the user."""
    assert process.stdout is not None
    while (line := process.stdout.readline()).startswith(("Written", "Already")):
        pass
    return line.strip()


def run(
    process: subprocess.Popen[str], words: list[str], after: float | None = None
) -> bool:
    """Run the command, and kill it so many seconds later; whether it was killed."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(words) + "\n")
    process.stdin.flush()
    child = int(read_line(process))
    if after is not None:
        time.sleep(after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    status = int(read_line(process))
    assert status in (0, signal.SIGKILL)
    return status != 0


def start(words: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start the command by itself, as a shell does: a group of its own."""
    # Ignored where the tests run in the background of a shell.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from napari_muvit.cli import main; sys.exit(main())"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *words], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def marks(out: Path) -> int:
    """Tiles that are marked; also while the store is being made."""
    path = out / ".muvit" / "done"
    return sum(byte > 0 for byte in path.read_bytes()) if path.exists() else 0


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it has not come"
        time.sleep(0.01)


@pytest.mark.parametrize("context", ["own", "shared"])
def test_twenty_kills_at_random_moments(
    words: list[str], forks: Any, tmp_path: Path, check_same: Build, context: str
) -> None:
    words = [*words, "--context", context, "--out"]
    whole, part = tmp_path / "whole", tmp_path / "part"
    begun = time.monotonic()
    assert not run(forks, [*words, str(whole)])
    seconds = time.monotonic() - begun
    chance = random.Random(0)
    kills, seen = 0, set()
    while kills < 20:
        if run(forks, [*words, str(part)], chance.uniform(0, seconds)):
            kills += 1
            seen.add(marks(part / "slide.zarr"))
        else:
            # Complete already: once more from the beginning.
            check_same(part / "slide.zarr", whole / "slide.zarr")
            shutil.rmtree(part)
    assert len(seen) >= 3
    run(forks, [*words, str(part)])
    assert marks(part / "slide.zarr") == 9
    check_same(part / "slide.zarr", whole / "slide.zarr")


def test_workers_end_with_the_command_that_was_killed(
    words: list[str], forks: Any, tmp_path: Path, check_same: Build
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(forks, [*words, "--out", str(whole)])
    with start([*words, "--workers", "2", "--out", str(out)]) as process:
        wait_for(lambda: any((out / "slide.zarr" / "0").rglob("c/*/*")))
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3  # what looks after them, too
        process.kill()
        # Before, they worked on, and never ended.
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
    assert (out / "slide.zarr" / ".muvit" / "lock").exists()
    run(forks, [*words, "--out", str(out)])
    check_same(out / "slide.zarr", whole / "slide.zarr")


@pytest.mark.parametrize("more", [[], ["--workers", "2"], ["--shard", "0/1"]])
def test_ctrl_c_keeps_what_is_finished(
    words: list[str], forks: Any, tmp_path: Path, check_same: Build, more: list[str]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(forks, [*words, "--out", str(whole)])
    with start([*words, *more, "--out", str(out)]) as process:
        wait_for(lambda: any((out / "slide.zarr" / "0").rglob("c/*/*")))
        # A terminal sends it to all of them.
        os.killpg(process.pid, signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped; run again to continue" in said
    assert "Traceback" not in errors
    names = {path.name for path in (out / "slide.zarr" / ".muvit").iterdir()}
    assert names - {"done-0-of-1"} == {"done", "run.json"}
    run(forks, [*words, "--out", str(out)])
    check_same(out / "slide.zarr", whole / "slide.zarr")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([], []),
        ([], ["--shard", "0/2"]),
        (["--shard", "1/2"], ["--shard", "1/2"]),
        (["--shard", "0/2"], ["--shard", "1/2"]),
        (["--overwrite"], ["--overwrite"]),
    ],
)
def test_two_at_once_on_one_output(
    words: list[str],
    tmp_path: Path,
    check_same: Build,
    one: list[str],
    other: list[str],
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    programs = [one, other, []]
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", FORKS], text=True, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )
            )
            for _ in programs
        ]  # fmt: skip
        for process in runs:
            stack.callback(process.kill)
            assert read_line(process) == "ready"
        first, second, alone = runs
        run(alone, [*words, "--out", str(whole)])
        for delay in (0.0, 0.0, 0.02, 0.3):
            shutil.rmtree(out, ignore_errors=True)
            for process, more in zip((first, second), (one, other), strict=True):
                line = json.dumps([*words, *more, "--out", str(out)])
                print(line, file=process.stdin, flush=True)
                time.sleep(delay)
            codes = []
            for process in (first, second):
                read_line(process)
                codes.append(os.waitstatus_to_exitcode(int(read_line(process))))
            # Both are done, or one was refused; never a traceback.
            assert set(codes) <= {0, 2}
            run(alone, [*words, "--out", str(out)])
            check_same(out / "slide.zarr", whole / "slide.zarr")
        for process in (first, second):
            process.kill()
            errors = process.communicate()[1].replace("\r", "\n").splitlines()
            said = [line for line in errors if line.startswith("napari-muvit:")]
            assert "Traceback" not in "".join(errors)
            assert all("is being written" in s or "meanwhile" in s for s in said), said
