from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_muvit.cli import main
from napari_muvit.core.config import ModelConfig
from napari_muvit.core.data import cache_folder, level_cache
from napari_muvit.core.data.annotations import Ellipse, Rectangle
from napari_muvit.core.data.project import Project
from napari_muvit.core.model.segmenter import MuViTSegmenter
from napari_muvit.core.presets import PRESETS
from napari_muvit.core.training.memory import estimate_memory

STEPS = ["--steps", "4", "--batch", "2", "--epoch-steps", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    assert main(["synthetic", str(folder / "s"), "--images", "2", "--size", "256"]) == 0
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (150, 170, 3), dtype=np.uint8)
    labels = (rgb[..., 0] > 128).astype(np.uint8)
    tifffile.imwrite(folder / "rgb.tif", rgb)
    tifffile.imwrite(folder / "rgb_labels.tif", labels)
    return folder


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    out = data / "model"
    code = main([
        "finetune", "--images", str(data / "s/000_image.zarr"),
        "--labels", str(data / "s/000_labels.zarr"), "--out", str(out), *STEPS,
    ])  # fmt: skip
    assert code == 0
    return out


def test_from_slides_to_scores(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, labels = str(data / "s/001_image.zarr"), str(data / "s/001_labels.zarr")
    out = data / "predictions"
    assert main(["predict", image, "--model", str(model), "--out", str(out)]) == 0
    capsys.readouterr()
    # A finished prediction is left as it is.
    assert main(["predict", image, "--model", str(model), "--out", str(out)]) == 0
    assert "Already complete" in capsys.readouterr().out
    scores = data / "scores.json"
    code = main([
        "evaluate", "--prediction", str(out / "001_image.zarr"), "--labels", labels,
        "--json", str(scores),
    ])  # fmt: skip
    assert code == 0
    assert "mDSC" in capsys.readouterr().out
    names = [row["name"] for row in json.loads(scores.read_text())["classes"]]
    assert names == ["background", "outer", "inner"]


def test_rgb_tiff_with_zero_as_background(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([
        "finetune", "--images", str(data / "rgb.tif"),
        "--labels", str(data / "rgb_labels.tif"), "--zero-is-background",
        "--out", str(data / "rgb_model"), "--levels", "1,2", "--crop", "32", *STEPS,
    ])  # fmt: skip
    assert code == 0
    code = main([
        "predict", str(data / "rgb.tif"), "--model", str(data / "rgb_model"),
        "--out", str(data / "rgb_out"), "--region", "0,0,40,40",
    ])  # fmt: skip
    assert code == 0
    capsys.readouterr()
    code = main([
        "evaluate", "--prediction", str(data / "rgb_out/rgb.zarr"),
        "--labels", str(data / "rgb_labels.tif"), "--zero-is-background",
    ])  # fmt: skip
    assert code == 0
    assert "background" in capsys.readouterr().out


def test_info(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json", str(data / "s/000_image.zarr")]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["shape"] == [256, 256]
    assert facts["pixel_size"] == [0.5, 0.5]
    assert main(["info", str(data / "s/000_labels.zarr")]) == 0
    assert "classes: 1 background, 2 outer, 3 inner" in capsys.readouterr().out
    assert main(["info", str(model)]) == 0
    assert "outer, inner" in capsys.readouterr().out
    assert main(["info", "--presets", "--json"]) == 0
    presets = json.loads(capsys.readouterr().out)["presets"]
    assert 34.3e6 < presets["paper"]["parameters"] < 35.7e6
    # That which a dry run says; an older figure was a third too small.
    config = ModelConfig(**PRESETS["paper"].model)
    batch = PRESETS["paper"].training["batch_size"]
    needed = estimate_memory(MuViTSegmenter, config).total(batch)
    assert presets["paper"]["training_memory_gib"] == round(needed / 2**30, 1)
    assert presets["tiny"]["cost_per_pixel_against_the_first"] == 1
    assert main(["info", "--presets", "--parts"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["encoder", "+", "MAE", "decoders", "28,883,744"] in lines


def test_dry_run_changes_nothing(data: Path, model: Path) -> None:
    image, labels = str(data / "s/000_image.zarr"), str(data / "s/000_labels.zarr")
    code = main([
        "finetune", "--images", image, "--labels", labels, "--out", str(data / "none"),
        "--dry-run", "--preset", "small",
    ])  # fmt: skip
    assert code == 0
    assert not (data / "none").exists()
    assert main(["predict", image, "--model", str(model), "--out", str(data / "none2"),
                 "--dry-run"]) == 0  # fmt: skip
    assert not (data / "none2").exists()


def test_config_file_and_start(data: Path, model: Path) -> None:
    file = data / "config.json"
    file.write_text(json.dumps({"model": {}, "training": {"learning_rate": 1e-5}}))
    image, labels = str(data / "s/000_image.zarr"), str(data / "s/000_labels.zarr")
    code = main([
        "finetune", "--images", image, "--labels", labels, "--out", str(data / "next"),
        "--start", str(model), "--config", str(file), "--workers", "1", *STEPS,
    ])  # fmt: skip
    assert code == 0
    stored = json.loads((data / "next/config.json").read_text())
    assert stored["training"]["config"]["learning_rate"] == 1e-5
    assert stored["training"]["config"]["num_workers"] == 1


MISTAKES = {
    "missing image": (["info", "nowhere.zarr"], "nowhere.zarr"),
    "no image": (["info", "{s}/../text.txt"], "text.txt"),
    "missing model": (
        ["predict", "{s}/000_image.zarr", "--model", "nowhere", "--out", "{tmp}/o"],
        "no model folder",
    ),
    "label shape": (
        ["finetune", "--images", "{s}/000_image.zarr",
         "--labels", "{s}/../rgb_labels.tif", "--out", "{tmp}/m"],
        "same shape",
    ),
    "channels": (
        ["predict", "{s}/../rgb.tif", "--model", "{model}", "--out", "{tmp}/o"],
        "channel",
    ),
    "class": (
        ["finetune", "--images", "{s}/000_image.zarr", "--labels",
         "{s}/000_labels.zarr", "--classes", "a,b", "--out", "{tmp}/m"],
        "the class 3",
    ),
    "foreign output": (
        ["finetune", "--images", "{s}/000_image.zarr", "--labels",
         "{s}/000_labels.zarr", "--out", "{s}"],
        "other files",
    ),
    "out is a zarr": (
        ["predict", "{s}/000_image.zarr", "--model", "{model}", "--out",
         "{s}/000_image.zarr"],
        "itself a .zarr",
    ),
    "region": (
        ["predict", "{s}/000_image.zarr", "--model", "{model}", "--out", "{tmp}/o",
         "--region", "9,9,5,5"],
        "region",
    ),
    "levels": (
        ["finetune", "--images", "{s}/000_image.zarr", "--labels",
         "{s}/000_labels.zarr", "--out", "{tmp}/m", "--levels", "1,x"],
        "levels",
    ),
    "out in a zarr": (
        ["predict", "{s}/000_image.zarr", "--model", "{model}", "--out",
         "{s}/001_image.zarr/below"],
        "lies inside one",
    ),
    "pixel size": (
        ["predict", "{s}/000_image.zarr", "--model", "{model}", "--out", "{tmp}/o",
         "--pixel-size", "nan"],
        "pixel size nan",
    ),
    "a name that no disk takes": (["info", "n" * 300], "name"),
    "seed": (
        ["finetune", "--images", "{s}/000_image.zarr", "--labels",
         "{s}/000_labels.zarr", "--out", "{tmp}/m", "--seed", "-1"],
        "seed",
    ),
    "device": (
        ["predict", "{s}/000_image.zarr", "--model", "{model}", "--out", "{tmp}/o",
         "--device", "cuda:9"],
        "cuda:9",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    name: str,
    data: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (data / "text.txt").write_text("no image")
    words, expected = MISTAKES[name]
    fill = {"s": str(data / "s"), "model": str(model), "tmp": str(tmp_path)}
    assert main([word.format(**fill) for word in words]) == 2
    lines = [
        line
        for line in capsys.readouterr().err.replace("\r", "\n").splitlines()
        if line.startswith("napari-muvit:")
    ]
    assert len(lines) == 1
    assert expected in lines[0]


def test_a_read_only_or_full_output(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(data / "s/000_image.zarr")
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "below")
    assert main(["predict", image, "--model", str(model), "--out", out]) == 2
    assert main(["finetune", "--images", image, "--labels",
                 str(data / "s/000_labels.zarr"), "--out", out]) == 2  # fmt: skip
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_keeps_the_model(data: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "napari_muvit.cli", "finetune",
        "--images", str(data / "s/000_image.zarr"),
        "--labels", str(data / "s/000_labels.zarr"),
        "--out", str(tmp_path / "m"), "--steps", "100000", "--epoch-steps", "2",
        "--batch", "2",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "m/config.json").exists():
            assert time.monotonic() < deadline, "no model within two minutes"
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
    from napari_muvit.core import load_model

    load_model(tmp_path / "m")


def test_a_wrong_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    # argparse writes all of the usage, forty lines for finetune.
    with pytest.raises(SystemExit) as stop:
        main(
            ["finetune", "--images", "a", "--labels", "b", "--out", "m", "--crop", "x"]
        )
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--crop" in error


def test_json_of_the_finished_slides_though_a_later_one_fails(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(data / "s/000_image.zarr"), str(data / "rgb.tif")]
    code = main(
        ["predict", *images, "--model", str(model), "--out", str(tmp_path), "--json"]
    )
    said = capsys.readouterr()
    assert code == 2
    assert "napari-muvit: rgb: The model reads 1 channels" in said.err
    assert "1 of 2 slides failed; the others are done." in said.err
    done, failed = json.loads(said.out)
    assert (done["image"], done["tiles"]) == ("000_image", 1)
    assert (failed["image"], failed["tiles"]) == ("rgb", 0)
    assert "channels" in failed["error"]


def test_where_to_predict_by_a_file_and_tissue(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, areas = str(data / "s/000_image.zarr"), tmp_path / "areas.geojson"
    ring = [[10, 20], [60, 20], [60, 50], [10, 20]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    areas.write_text(json.dumps(feature))
    command = ["predict", image, "--model", str(model), "--region", str(areas)]
    assert main([*command, "--out", str(tmp_path), "--tissue"]) == 0
    assert "(1 tiles)" in capsys.readouterr().out
    ring[:] = [[x + 9000, y] for x, y in ring]
    areas.write_text(json.dumps(feature))
    assert main([*command, "--out", str(tmp_path / "other")]) == 2
    assert "None of the 1 outlines lies on 000_image" in capsys.readouterr().err
    command[-1] = str(tmp_path / "missing.geojson")
    assert main([*command, "--out", str(tmp_path / "other")]) == 2
    assert "There is no GeoJSON file" in capsys.readouterr().err
    command[-1] = "1,2,3"
    assert main([*command, "--out", str(tmp_path / "other")]) == 2
    assert "or a GeoJSON file is needed" in capsys.readouterr().err


def test_probabilities_and_confidence_are_written_when_asked_for(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = str(data / "s/000_image.zarr"), tmp_path / "o"
    command = ["predict", image, "--model", str(model), "--out", str(out)]
    asked = ["--confidence", "--probabilities"]
    assert main([*command, *asked]) == 0
    store = out / "000_image.zarr"
    for name in ("probabilities", "confidence"):
        assert (store / name / "zarr.json").is_file()
    capsys.readouterr()
    assert main([*command, *asked]) == 0
    assert "Already complete" in capsys.readouterr().out
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "labels alone were asked for" in error
    assert error.count("napari-muvit:") == 1


def test_dry_runs_print_json_alone(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, labels = str(data / "s/000_image.zarr"), str(data / "s/000_labels.zarr")
    common = ["--out", str(tmp_path / "o"), "--dry-run", "--json"]
    capsys.readouterr()
    assert main(["predict", image, "--model", str(model), *common]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["tiles"] == row["passes"] == 1
    assert row["seconds"] > 0
    assert row["bytes"] > 10**8
    assert row["gpu_bytes"] == 0
    twice = [image, labels, "--channels", "0", "--model", str(model), *common[:3]]
    assert main(["predict", *twice]) == 0
    said = capsys.readouterr().out
    assert said.count("of memory on this machine") == 3
    assert "All 2 slides: about" in said
    assert main(["finetune", "--images", image, "--labels", labels, *common,
                 "--minutes", "1"]) == 0  # fmt: skip
    facts = json.loads(capsys.readouterr().out)
    assert facts["config"]["class_names"] == ["background", "outer", "inner"]


def test_a_dry_run_checks_the_output_and_the_validation(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, labels = str(data / "s/000_image.zarr"), str(data / "s/000_labels.zarr")
    common = ["finetune", "--images", image, "--labels", labels, "--dry-run"]
    assert main([*common, "--out", str(model)]) == 2
    assert "holds a model already" in capsys.readouterr().err
    assert main([*common, "--out", str(tmp_path / "m"), "--val-images", image]) == 2
    assert "for validation" in capsys.readouterr().err


def test_going_on_keeps_the_way_to_read_labels(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without the flag, label 1 was trained as the class "background" of the start.
    image, labels = str(data / "rgb.tif"), str(data / "rgb_labels.tif")
    files = ["finetune", "--images", image, "--labels", labels, "--crop", "32", *STEPS]
    first = str(tmp_path / "a")
    assert main([*files, "--levels", "1", "--zero-is-background", "--out", first]) == 0
    capsys.readouterr()
    again = [*files[:5], "--start", first, "--out", str(tmp_path / "b")]
    assert main([*again, "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["config"]["zero_is_background"] is True
    # Nothing but how is validated: no class is missing.
    assert [n.split(" on ")[0] for n in facts["notes"]] == ["Validation is"]
    # Another number of classes is a wish of the user, not a contradiction.
    assert main([*again, "--dry-run", "--json", "--classes", "a, b,c"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["config"]["class_names"] == ["a", "b", "c"]


def test_the_seed_of_a_config_file_counts(data: Path, tmp_path: Path) -> None:
    # The option's default won over the file.
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"training": {"seed": 7, "device": "cpu"}}))
    code = main([
        "finetune", "--images", str(data / "s/000_image.zarr"),
        "--labels", str(data / "s/000_labels.zarr"), "--out", str(tmp_path / "m"),
        "--config", str(file), "--crop", "32", *STEPS[:-2],
    ])  # fmt: skip
    assert code == 0
    stored = json.loads((tmp_path / "m/config.json").read_text())
    assert stored["training"]["config"]["seed"] == 7


@pytest.mark.parametrize(
    "text", ['{"model": []}', '{"model": {"foo": 1}}', '{"training": null}', "[]"]
)
def test_a_config_file_of_another_form(
    text: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    code = main([
        "finetune", "--images", str(data / "s/000_image.zarr"),
        "--labels", str(data / "s/000_labels.zarr"), "--out", str(tmp_path / "m"),
        "--config", str(file),
    ])  # fmt: skip
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_ctrl_c_outside_of_long_work_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # While torch loads or labels are scanned, nobody catches the signal.
    def interrupted(_arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_muvit._commands.slides.run_info", interrupted)
    assert main(["info", "x"]) == 130
    assert "Stopped" in capsys.readouterr().err


def outlines(path: Path, *classes: str) -> str:
    """A GeoJSON file with a square of each class, side by side."""
    features = []
    for k, name in enumerate(classes):
        x, y = 40 * k, 20
        ring = [[x, y], [x + 40, y], [x + 40, y + 60], [x, y + 60], [x, y]]
        features.append({
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"classification": {"name": name}},
        })  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


def test_geojson_as_labels(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = ["--images", str(data / "rgb.tif"), str(data / "rgb.tif")]
    # Neither file has all classes: they are numbered together.
    labels = [
        "--labels", outlines(tmp_path / "1.geojson", "tumour", "background"),
        outlines(tmp_path / "2.geojson", "stroma", "tumour"),
    ]  # fmt: skip
    words = ["finetune", *images, *labels, "--out", str(tmp_path / "model"), *STEPS]
    assert main([*words, "--dry-run", "--json"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert config["class_names"] == ["background", "tumour", "stroma"]
    assert main([*words, "--dry-run", "--classes", "tumour,stroma"]) == 2
    error = capsys.readouterr().err
    assert "'background'" in error
    assert error.count("\n") == 1
    assert main(words) == 0
    # Going on, the classes are those of the model.
    again = [
        "finetune", *images[:2], *labels[:2], "--out", str(tmp_path / "next"),
        "--start", str(tmp_path / "model"), *STEPS, "--dry-run", "--json",
    ]  # fmt: skip
    capsys.readouterr()
    assert main(again) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert config["class_names"] == ["background", "tumour", "stroma"]


def test_project_files_as_labels(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "1.muvit.jsonl"
    with Project.create(path, class_names=("stroma", "tumour")) as project:
        project.add(Ellipse(1, (30, 30), (20, 20)))
        project.add(Rectangle(2, (60, 0), (30, 30)))
        # While it is being annotated.
        words = [
            "finetune", "--images", str(data / "rgb.tif"), str(data / "rgb.tif"),
            "--labels", str(path), outlines(tmp_path / "2.geojson", "tumour"),
            "--out", str(tmp_path / "model"), *STEPS, "--json",
        ]  # fmt: skip
        assert main(words) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert config["class_names"] == ["stroma", "tumour"]


def test_a_stored_configuration_can_be_given_back(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # zero_is_background in the file was "multiple values for keyword argument".
    file = tmp_path / "c.json"
    words = [
        "finetune", "--images", str(data / "rgb.tif"), "--labels",
        str(data / "rgb_labels.tif"), "--out", str(tmp_path / "m"), *STEPS,
        "--config", str(file), "--dry-run", "--json",
    ]  # fmt: skip
    file.write_text(json.dumps({"model": {"zero_is_background": True}}))
    assert main(words) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert config["class_names"] == ["background", "class 2"]
    assert config["zero_is_background"]
    file.write_text("[" * 100_000)
    assert main(words) == 2
    assert "cannot be read as JSON" in capsys.readouterr().err


def test_convert(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "rgb.zarr")
    assert main(["convert", str(data / "rgb.tif"), out]) == 0
    assert "1 levels (150 x 170)" in capsys.readouterr().out
    assert main(["convert", str(data / "rgb.tif"), out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["blocks"] == 0
    assert main(["convert", str(data / "rgb_labels.tif"), out]) == 2
    assert "something else" in capsys.readouterr().err


def test_coarse_levels_are_kept_described_and_removed(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(level_cache, "DEAR_PIXELS", 1)
    monkeypatch.setenv("NAPARI_MUVIT_CACHE", str(tmp_path / "cache"))
    slide = tmp_path / "flat.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (300, 260), dtype=np.uint8)
    tifffile.imwrite(slide, pixels, tile=(64, 64))
    tifffile.imwrite(tmp_path / "labels.tif", pixels // 128 + 1)
    words = [
        "finetune", "--images", str(slide), "--labels", str(tmp_path / "labels.tif"),
        "--levels", "1,8", "--crop", "32", *STEPS, "--out",
    ]  # fmt: skip
    assert main([*words, str(tmp_path / "dry"), "--dry-run"]) == 0
    assert main([*words, str(tmp_path / "none"), "--no-cache"]) == 0
    assert not (tmp_path / "cache").exists()
    assert main([*words, str(tmp_path / "model")]) == 0
    assert "averaged once" in capsys.readouterr().err
    assert main(["info", str(slide), "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)["kept_levels"]
    assert kept["scale_factors"] == [8.0]
    assert main(["info", str(slide)]) == 0
    assert "kept levels: 1/8 (0.0 MB in the cache)" in capsys.readouterr().out
    assert main(["cache", "info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["slides"], facts["unfinished"]) == (1, 0)
    assert facts["limit_megabytes"] == 20_000
    # This process reads them still.
    assert main(["cache", "clear"]) == 0
    assert "in use and stay" in capsys.readouterr().out
    command = [sys.executable, "-m", "napari_muvit.cli", "cache", "clear", "--json"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(found) == {"removed_bytes": 0, "left_bytes": kept["bytes"]}
    # As if the process that read them had ended.
    for mark in cache_folder._marks.values():
        mark._lock.release()
    monkeypatch.setattr(cache_folder, "_marks", {})
    assert main(["cache", "clear", "--json"]) == 0
    found = capsys.readouterr().out
    assert json.loads(found) == {"removed_bytes": kept["bytes"], "left_bytes": 0}
