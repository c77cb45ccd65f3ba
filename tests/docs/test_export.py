"""The commands of the page on export run, word for word."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from napari_muvit.cli import main
from napari_muvit.core.export.features import MOST_CORNERS
from napari_muvit.core.export.pieces import MOST_PIECES
from napari_muvit.core.export.run import FILES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "howto" / "export.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ ")) for line in lines]
    assert {w[0] for w in words} == {"napari-muvit"}
    return [w[1:] for w in words]


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = commands()
    assert [words[0] for words in found] == ["synthetic", "export", "export"]
    for words in found:
        assert main(words) == 0, words
    whole = json.loads((tmp_path / "slides/000_labels_export/report.json").read_text())
    cells = json.loads((tmp_path / "cells/report.json").read_text())
    assert 0 < cells["objects"] <= whole["objects"]
    assert cells["tolerance_px"] > 0


def test_files_and_limits_are_those_of_the_code() -> None:
    text = PAGE.read_text("utf-8")
    for name in FILES:
        assert f"`{name}`" in text
    assert f"{MOST_CORNERS:,}" in text
    assert f"{MOST_PIECES:,}" in text


def test_figures_are_those_that_were_measured() -> None:
    lines = (ROOT / "benchmarks/results/export_speed.jsonl").read_text().splitlines()
    text = PAGE.read_text("utf-8")
    rows = [json.loads(line) for line in lines]
    assert {row["run"] for row in rows} == {"exact", "simplified", "limits"}
    for row in rows:
        cells = (
            f"{row['objects']:,} | {row['cpu_seconds']:.0f} s | {row['peak_mib']} MiB "
            f"| {row['geojson_mb']:.0f} MB |"
        )
        assert cells in text
