"""Ctrl-C while libraries are loaded: one line, at every moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of Unix")

PROGRAM = """
import os, signal, sys
# Ignored where the tests run in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)
from napari_muvit.cli import main
count, wanted = 0, {wanted}

def hook(event, _arguments):
    global count
    if event == "import":
        count += 1
        if count == wanted:
            os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(hook)
sys.argv = ["napari-muvit", *{words}]
code = main()
if not wanted:
    sys.stdout.write(str(count))
sys.exit(code)
"""


def run(wanted: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a Ctrl-C at that import, counted from 1; 0: without."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(wanted=wanted, words=words)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def check_stopped(found: subprocess.CompletedProcess[str]) -> None:
    assert found.returncode == 130, found.stderr
    assert found.stderr.strip() == "Stopped."
    assert found.stdout == ""


@pytest.mark.parametrize("wanted", [1, 10, 100])
def test_before_anything_is_done_it_is_one_line(wanted: int) -> None:
    # The subcommands were loaded before anybody listened: a traceback.
    check_stopped(run(wanted, "info", "--presets"))


@pytest.mark.slow
def test_while_torch_and_lightning_load_it_is_one_line(tmp_path: Path) -> None:
    words = ("finetune", "--images", "nowhere.tif", "--labels", "nowhere.tif",
             "--out", str(tmp_path / "m"), "--steps", "1")  # fmt: skip
    whole = run(0, *words)
    assert whole.returncode == 2
    total = int(whole.stdout)
    assert total > 1000
    for share in (2, 5, 8, 11):
        check_stopped(run(total * share // 12, *words))
    assert not (tmp_path / "m").exists()
