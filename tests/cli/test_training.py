"""The commands that train, as a user types them."""

from __future__ import annotations

import html
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_muvit.cli import main
from napari_muvit.core.model.checkpoint import load_model, read_header, weights_hash
from napari_muvit.core.model.mae import MuViTMAE

SMALL = [
    "--levels", "1,4", "--crop", "16", "--set", "embed_dim=32", "--set", "depth=1",
    "--set", "num_heads=2", "--set", "pyramid_channels=[8, 8, 8, 8]", "--set",
    "mae_dim=16", "--set", "mae_depth=1", "--set", "validation_crops=4",
]  # fmt: skip
STEPS = ["--steps", "6", "--batch", "4", "--epoch-steps", "3", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    assert main(["synthetic", str(folder), "--images", "3", "--size", "128"]) == 0
    return folder


def images(data: Path, *numbers: int) -> list[str]:
    return [str(data / f"{n:03d}_image.zarr") for n in numbers]


def labels(data: Path, *numbers: int) -> list[str]:
    return [str(data / f"{n:03d}_labels.zarr") for n in numbers]


def tune(data: Path, out: Path, *more: str) -> int:
    return main([
        "finetune", "--images", *images(data, 0), "--labels", *labels(data, 0),
        "--out", str(out), *more,
    ])  # fmt: skip


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_pretrained_fine_tuned_and_repeated_from_the_settings(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mae, first, second = (tmp_path / n for n in ("mae", "first", "second"))
    code = main(["pretrain", *images(data, 0, 1, 2), "--out", str(mae), *SMALL, *STEPS])
    assert code == 0
    assert read_header(mae).kind == "MuViTMAE"
    load_model(mae / "last", MuViTMAE)
    capsys.readouterr()
    assert tune(data, first, "--start", str(mae), *STEPS, "--json") == 0
    result = printed(capsys)
    assert result["steps"] == 6
    assert result["config"]["embed_dim"] == 32
    assert set(result["best"]) >= {"mDSC", "val_loss"}
    settings = str(first / "config.yaml")
    assert main(["finetune", "--config", settings, "--out", str(second)]) == 0
    hashes = [weights_hash(load_model(folder)) for folder in (first, second)]
    assert hashes[0] == hashes[1]
    # An option wins over the file.
    third = tmp_path / "third"
    code = main(["finetune", "--config", settings, "--out", str(third), "--seed", "1"])
    assert code == 0
    assert weights_hash(load_model(third)) != hashes[0]


def test_the_record_and_the_report_say_what_was_typed(
    data: Path, tmp_path: Path
) -> None:
    # It was left empty.
    out = tmp_path / "a model"
    words = ["finetune", "--images", *images(data, 0), "--labels", *labels(data, 0),
             "--out", str(out), *SMALL, *STEPS, "--steps", "2"]  # fmt: skip
    assert main(words) == 0
    record = json.loads((out / "training" / "record.json").read_text())
    assert record["command"] == ["napari-muvit", *words]
    report = html.unescape((out / "report.html").read_text())
    _, _, shown = report.partition("The command was:")
    shown = shown[shown.index("<pre>") + 5 : shown.index("</pre>")]
    assert shlex.split(shown.replace("\\\n", "")) == ["napari-muvit", *words]
    mae = tmp_path / "mae"
    words = ["pretrain", *images(data, 0), "--out", str(mae), *SMALL, *STEPS]
    assert main(words) == 0
    record = json.loads((mae / "training" / "record.json").read_text())
    assert record["command"] == ["napari-muvit", *words]


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m"
    options = [*SMALL, *STEPS, "--accumulate", "2", "--dry-run"]
    assert tune(data, out, *options, "--val-images", *images(data, 1),
                "--val-labels", *labels(data, 1)) == 0  # fmt: skip
    said = capsys.readouterr()
    text = said.out
    # Each note once, on one of the two.
    assert said.err.count("Little is annotated") == 1
    assert "Little is annotated" not in text
    for part in ("training 000_image: 128 x 128 px", "validation 001_image",
                 "levels 1, 4", "6 steps of 4 nested crops in 2 passes", "s a step",
                 "Nothing was trained"):  # fmt: skip
        assert part in text
    assert tune(data, out, *options, "--json") == 0
    plan = printed(capsys)
    assert plan["steps"] == 6
    assert plan["passes"] == 2
    assert plan["seconds"] > 0
    assert plan["slides"][0]["annotated"][0] > 0
    assert main(["pretrain", *images(data, 0), "--out", str(out), *options,
                 "--json"]) == 0  # fmt: skip
    assert printed(capsys)["kind"] == "pretrain"
    assert not out.exists()


def test_resume_needs_the_folder_alone(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m"
    assert tune(data, out, *SMALL, *STEPS) == 0
    before = weights_hash(load_model(out))
    assert main(["finetune", "--out", str(out), "--resume"]) == 0
    said = capsys.readouterr().err
    assert "has ended" in said
    assert f"--start {tmp_path}" in said
    assert weights_hash(load_model(out)) == before
    assert main(["pretrain", "--out", str(out), "--resume"]) == 2
    assert tune(data, out, *SMALL, *STEPS) == 2
    assert "--overwrite" in capsys.readouterr().err


ABLATIONS = {
    "naive boxes": ["--boxes", "naive"],
    "one level": ["--levels", "1"],
    "frozen": ["--freeze"],
    "few slides": ["--labelled-slides", "1"],
    "box noise": ["--box-shift", "0.1", "--box-scale", "0.1"],
    "no level loss": ["--no-level-heads"],
    "weak level loss": ["--level-weight", "0.2"],
    "no context skip": ["--no-context-skip"],
    "unetr": ["--decoder", "unetr", "--set", "decoder_dim=16"],
    "unetr with skip": ["--decoder", "unetr", "--set", "decoder_dim=16",
                        "--context-skip", "--level-heads"],
    "mask2former": ["--decoder", "mask2former", "--set", "decoder_dim=16"],
    "joint": ["--attention", "joint"],
    "average": ["--ema", "0.9", "--schedule", "cosine", "--early-stop", "1"],
    "upright": ["--upright"],
    "two rates": ["--learning-rate", "1e-3", "--encoder-learning-rate", "1e-4"],
}  # fmt: skip


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_is_an_option(name: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    options = [*SMALL, *STEPS, *ABLATIONS[name], "--steps", "2", "--epoch-steps", "2"]
    assert tune(data, out, *options) == 0
    stored = json.loads((out / "config.json").read_text())
    wanted = {
        "naive boxes": ("config", "boxes", "naive"),
        "one level": ("config", "scale_factors", [1]),
        "no level loss": ("config", "level_heads", False),
        "no context skip": ("config", "context_skip", False),
        "unetr with skip": ("config", "context_skip", True),
        "mask2former": ("config", "decoder", "mask2former"),
    }.get(name)
    if wanted is not None:
        assert stored[wanted[0]][wanted[1]] == wanted[2]


MISTAKES = {
    "no image": (["finetune", "--labels", "x.tif"], "No image was given"),
    "no labels": (["finetune", "--images", "IMAGE"], "one label file for each image"),
    "no minutes": (["pretrain", "IMAGE", "--minutes", "0"], "minutes is 0"),
    "no such field": (["pretrain", "IMAGE", "--set", "depht=2"], "depht=2"),
    "a typo": (["pretrain", "IMAGE", "--set", "clip_nrom=2"], "Is clip_norm meant?"),
    "nothing": (
        ["pretrain", "IMAGE", "--steps", "1", "--set", "seed=null"], "seed is None"),
    "none": (
        ["pretrain", "IMAGE", "--steps", "1", "--set", "early_stop=None",
         "--set", "seed=x"], "seed is 'x'"),
    "no number": (
        ["pretrain", "IMAGE", "--steps", "1", "--set", "mlp_ratio=two"],
        "mlp_ratio is 'two'"),
    "no GPU": (["pretrain", "IMAGE", "--steps", "1", "--device", "cuda"], "cuda"),
    "too many devices": (
        ["pretrain", "IMAGE", "--steps", "1", "--device", "cpu", "--devices", "512",
         "--batch", "512"], "512 devices"),
    "an uneven batch": (
        ["pretrain", "IMAGE", "--steps", "1", "--batch", "5", "--accumulate", "2"],
        "has to divide"),
    "sharding": (
        ["pretrain", "IMAGE", "--steps", "1", "--strategy", "fsdp"], "begin with ddp"),
    "no logger": (
        ["pretrain", "IMAGE", "--steps", "1", "--logger", "tensorboard"],
        "is not installed"),
    "no such start": (
        ["pretrain", "IMAGE", "--steps", "1", "--start", "nowhere"], "nowhere"),
    "no such settings": (["pretrain", "--config", "nowhere.yaml"], "nowhere.yaml"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, said = MISTAKES[name]
    arguments = [images(data, 0)[0] if a == "IMAGE" else a for a in arguments]
    code = main([*arguments, "--out", str(tmp_path / "m"), *SMALL])
    assert code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("napari-muvit: ")
    assert said in last
    assert not (tmp_path / "m").exists()


def test_the_model_on_disk_survives_a_mistake(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    assert tune(data, out, *SMALL, *STEPS) == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    blank = tmp_path / "blank.tif"
    tifffile.imwrite(blank, np.zeros((128, 128), np.uint8))
    code = main([
        "finetune", "--images", *images(data, 0), "--labels", str(blank), "--out",
        str(out), "--overwrite", *SMALL, *STEPS,
    ])  # fmt: skip
    assert code == 2
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
