"""The commands of the tutorial run, word for word but for their sizes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from napari_muvit.cli import main
from napari_muvit.core.model.checkpoint import read_header

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "pretrain.md"
SMALL = ["--steps", "2", "--batch", "2", "--set", "validation_crops=2"]


def commands() -> list[list[str]]:
    """Return the arguments of each command, minutes made steps."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.S | re.M)
    lines = [
        line.removeprefix("$ ")
        for block in blocks
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("$ ")
    ]
    found = []
    for line in lines:
        words = shlex.split(re.sub(r"--minutes \d+", shlex.join(SMALL), line))
        assert words[0] == "napari-muvit"
        found.append([{"1024": "256"}.get(word, word) for word in words[1:]])
    return found


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = commands()
    assert [words[0] for words in found[:5]] == [
        "synthetic", "pretrain", "pretrain", "pretrain", "finetune",
    ]  # fmt: skip
    for words in found:
        assert main(words) == 0, words
    assert read_header(tmp_path / "pretrained").kind == "MuViTMAE"
    assert (tmp_path / "pretrained" / "report.html").is_file()
    assert (tmp_path / "model" / "report.html").is_file()
