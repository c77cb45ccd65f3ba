"""The ``export`` command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_muvit.cli import main
from napari_muvit.core.data.zarr_writer import write_pyramid


@pytest.fixture
def prediction(tmp_path: Path) -> Path:
    labels = np.ones((40, 50), dtype=np.uint8)
    labels[5:20, 5:20] = 2
    labels[9:11, 9:11] = 1
    labels[30, 30] = 2
    path = tmp_path / "p.zarr"
    write_pyramid(path, labels, labels=True, pixel_size=(0.5, 0.5),
                  class_names=["background", "gland"])  # fmt: skip
    return path


def test_a_table_and_files(prediction: Path, capsys, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    assert main(["export", str(prediction), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[2].split() == [
        "gland", "55.5", "11.10%", "2", "55.5",
    ]  # fmt: skip
    assert said.rstrip().endswith(f"Written: {out}")
    assert (out / "objects.geojson").is_file()


def test_limits_and_json(prediction: Path, capsys, tmp_path: Path) -> None:
    words = ["export", str(prediction), "--min-object", "1", "--min-hole", "1.5",
             "--simplify", "1", "--classes", "Gland", "--json"]  # fmt: skip
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "p_export" / "report.json").read_text())
    assert (found["objects"], found["dropped"], found["filled_holes"]) == (1, 1, 1)
    assert found["tolerance_px"] == 2
    assert found["classes"][1]["objects_px"] == 225
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--pixel-size", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == 2


def test_mistakes_are_one_line(prediction: Path, capsys, tmp_path: Path) -> None:
    for words, why in [
        ([str(tmp_path / "none.zarr")], "There is no image"),
        ([str(prediction), "--classes", "liver"], "choose from background, gland"),
        ([str(prediction), "--min-object", "-1"], "0 or more"),
        ([str(prediction), "--out", str(prediction / "out")], "a .zarr"),
        ([str(prediction), "--plane", "q"], "--plane"),
    ]:
        assert main(["export", *words]) == 2
        error = capsys.readouterr().err
        assert why in error
        assert len(error.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.zarr"]
