"""Averaged predictions by the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_muvit.cli import main
from napari_muvit.core.config import ModelConfig
from napari_muvit.core.model.checkpoint import save_model
from napari_muvit.core.model.segmenter import build_model


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A slide, and the models ``a``, ``b`` and the odd ``c``."""
    for name, crop in (("a", 32), ("b", 32), ("c", 64)):
        config = ModelConfig(
            decoder="pyramid", attention="coarse_to_fine", scale_factors=(1, 4),
            crop_size=crop, embed_dim=16, depth=1, num_heads=2,
        )  # fmt: skip
        save_model(build_model(config), tmp_path / name)
    rng = np.random.default_rng(0)
    image = tmp_path / "slide.tif"
    tifffile.imwrite(image, rng.integers(0, 255, (64, 70), dtype=np.uint8))
    model, out = str(tmp_path / "a"), str(tmp_path / "out")
    return ["predict", str(image), "--model", model, "--out", out, "--device", "cpu"]


def test_a_dry_run_counts_passes_and_the_run_takes_them(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words += ["--model", str(tmp_path / "b"), "--average", "flips"]
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "Each crop takes 8 passes (2 models x 4 mirrored or turned views)" in said
    assert main([*words, "--placement", "averaged", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[0]
    assert (found["passes"], found["contexts"]) == (40, 0)
    assert main(words) == 0
    record = json.loads((tmp_path / "out/slide.zarr/.muvit/run.json").read_text())
    assert record["identity"]["model"].count("+") == 1
    assert record["settings"]["average"] == "flips"
    capsys.readouterr()
    # Another average is another prediction.
    assert main([*words, "--average", "all"]) == 2
    assert "with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model", "{tmp}/c"], "Models 1 and 2 differ in crop_size (32 and 64)"),
        (["--context", "shared", "--placement", "centred"], "choose context own"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    words: list[str],
    more: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*words, *(word.format(tmp=tmp_path) for word in more)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
