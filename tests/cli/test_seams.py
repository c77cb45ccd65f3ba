"""``evaluate --seams``, and ``predict`` with ``--seams`` and ``--preview``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_muvit._commands import predict
from napari_muvit._commands.seams import score_prediction
from napari_muvit.cli import main
from napari_muvit.core import ModelConfig, build_model, save_model
from napari_muvit.core.errors import PyramidError
from napari_muvit.core.prediction.record import read_record


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seams")
    rng = np.random.default_rng(0)
    tifffile.imwrite(folder / "a.tif", rng.integers(0, 255, (150, 170), dtype=np.uint8))
    config = ModelConfig(
        scale_factors=(1, 4, 16), crop_size=32, embed_dim=16, depth=1, num_heads=2,
        decoder="pyramid", attention="coarse_to_fine", pyramid_channels=(8, 8, 8, 8),
    )  # fmt: skip
    save_model(build_model(config), folder / "model")
    return folder


def test_evaluate(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--seams", "--model", str(files / "model"), "--images",
             str(files / "a.tif"), str(files / "a.tif"), "--overlap", "0",
             "--tiles", "2", "--json", str(files / "s.json")]  # fmt: skip
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["slide", "a", "a"]
    found = json.loads((files / "s.json").read_text())
    assert list(found) == ["a", "a (2)"]
    assert found["a"] == found["a (2)"]
    assert found["a"]["near_pixels"] > found["a"]["away_pixels"] > 1000
    assert main([*words, "--dry-run"]) == 0
    assert "Nothing was compared" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seams"], "needs --model and --images"),
        (["--seams", "--plot", "a.png"], "--plot cannot be used"),
        (["--seams", "--tiles", "0"], "tiles is 0"),
        (["--seams", "--region", "1,2"], "region"),
        (["--prediction", "a"], "--labels"),
        (["--prediction", "a", "--labels", "b"], "are for --seams"),
    ],
)
def test_mistakes(
    files: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", str(files / "model"), "--images", str(files / "a.tif")]
    if said in ("needs --model and --images", "--labels"):
        given = []
    assert main(["evaluate", *words, *given]) == 2
    assert said in capsys.readouterr().err


def test_predict_keeps_it_with_the_prediction(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(files / "a.tif"), "--model", str(files / "model"),
             "--out", str(files / "out"), "--overlap", "0", "--seams"]  # fmt: skip
    assert main(words) == 0
    assert "Seams: " in capsys.readouterr().out
    stored = (read_record(files / "out/a.zarr") or {})["seams"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["seams"] == stored
    assert main([
        "evaluate", "--seams", "--model", str(files / "model"), "--images",
        str(files / "a.tif"), "--overlap", "0", "--json", str(files / "e.json"),
    ]) == 0  # fmt: skip
    assert json.loads((files / "e.json").read_text())["a"] == stored
    assert main([*words, "--shard", "0/2"]) == 2
    assert "--seams needs a finished prediction" in capsys.readouterr().err


def test_the_score_of_a_part_is_not_that_of_the_slide(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(files / "w.tif", np.random.default_rng(1).integers(
        0, 255, (150, 1100), dtype=np.uint8))  # fmt: skip
    words = ["predict", str(files / "w.tif"), "--model", str(files / "model"),
             "--out", str(files / "part"), "--overlap", "0"]  # fmt: skip
    assert main([*words, "--seams", "--region", "0,0,100,100"]) == 0
    assert main(words) == 0
    capsys.readouterr()
    found = []
    for more in (["--region", "0,0,100,100"], []):
        assert main([*words, "--seams", "--json", *more]) == 0
        found.append(json.loads(capsys.readouterr().out)[0]["seams"]["tiles"])
    assert found[0] == [[0, 0, 150, 512]]


def test_a_slide_that_cannot_be_scored_does_not_keep_the_others(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_first(result: Any, *rest: Any) -> Any:
        if result.name == "a":
            raise PyramidError("a.tif has gone.")
        return score_prediction(result, *rest)

    monkeypatch.setattr(predict, "score_prediction", fail_first)
    pixels = tifffile.imread(files / "a.tif")
    tifffile.imwrite(files / "b.tif", pixels[::-1].copy())
    assert main([
        "predict", str(files / "a.tif"), str(files / "b.tif"), "--model",
        str(files / "model"), "--out", str(files / "two"), "--overlap", "0",
        "--seams", "--json",
    ]) == 2  # fmt: skip
    said = capsys.readouterr()
    first, second = json.loads(said.out)
    assert first["error"] == "a.tif has gone."
    assert second["seams"]["near_pixels"] > 0
    assert "a: a.tif has gone." in said.err


def test_a_dry_run_names_the_slides_that_cannot_be_read(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    array = zarr.create_array(
        files / "bad.zarr", shape=(150, 170), chunks=(64, 64), dtype="uint8"
    )
    array[:] = 7
    (files / "bad.zarr/c/1/1").write_bytes(b"no chunk")
    assert main([
        "predict", str(files / "bad.zarr"), str(files / "a.tif"), "--model",
        str(files / "model"), "--out", str(files / "dry"), "--tissue", "--dry-run",
        "--json",
    ]) == 2  # fmt: skip
    bad, good = json.loads(capsys.readouterr().out)
    assert "bad cannot be read" in bad["error"]
    assert good["tiles"] == 1


def test_predict_shows_the_whole_slide_first(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(files / "a.tif"), "--model", str(files / "model"),
             "--out", str(files / "looked"), "--preview"]  # fmt: skip
    assert main(words) == 0
    picture = files / "looked/a.preview.png"
    assert f"Preview: {picture}" in capsys.readouterr().err
    with Image.open(picture) as image:
        assert image.size == (11, 10)
    assert main([*words, "--json"]) == 0
    assert "preview" not in json.loads(capsys.readouterr().out)[0]
    assert main([*words, "--json", "--overwrite"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["preview"] == str(picture)
