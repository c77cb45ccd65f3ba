"""kill -9 while the user draws: nothing that was finished is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napari_muvit.core.data.brush_mask import BrushMask
from napari_muvit.core.data.named_labels import read_project
from napari_muvit.core.data.project import Project

CHILD = Path(__file__).with_name("drawing_child.py")


def killed(folder: Path, hand: str, after: int, seconds: float) -> int:
    """Draw, kill some time after so many outlines; return how many were finished."""
    platform = {} if hand == "mouse" else {"QT_QPA_PLATFORM": "offscreen"}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(CHILD), str(folder), hand],
        stdout=subprocess.PIPE, text=True, env={**os.environ, **platform},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        finished = 0
        for line in child.stdout:
            finished = int(line)
            if finished >= after:
                break
        time.sleep(seconds)
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read().splitlines(keepends=True)
    whole = [int(line) for line in rest if line.endswith("\n")]
    return max([finished, *whole])


def check(folder: Path, finished: int) -> None:
    (path,) = (folder / "napari-muvit").glob("*.muvit.jsonl")
    found = read_project(path)
    outlines = [item for item in found.items if not isinstance(item, BrushMask)]
    # The one that was in the making may have been finished since the last word.
    assert finished <= len(outlines) <= finished + 1
    # The lock of a process that is gone holds nobody up, and the file can be written.
    with Project.open(path) as project:
        assert project.annotations().items
        project.remove(next(iter(project.items)))


@pytest.mark.slow
def test_kills_while_drawing_and_painting(tmp_path: Path) -> None:
    rng = random.Random(7)
    for number in range(2):
        folder = tmp_path / str(number)
        finished = killed(folder, "offscreen", 3 + 20 * number, rng.uniform(0, 0.2))
        assert finished >= 3
        check(folder, finished)


@pytest.mark.slow
@pytest.mark.gui
def test_a_kill_while_drawing_by_mouse(tmp_path: Path) -> None:
    finished = killed(tmp_path, "mouse", 6, 0.11)
    assert finished >= 6
    check(tmp_path, finished)
