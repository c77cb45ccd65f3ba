"""The ``probe`` command: three probes, their files, and what goes wrong."""

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
import torch
from PIL import Image

from napari_muvit.cli import main
from napari_muvit.core import (
    ModelConfig,
    MuViTMAE,
    MuViTSegmenter,
    probe_boxes,
    probe_linear,
    probe_mae,
    save_model,
)

CONFIG = ModelConfig(
    scale_factors=(1, 2), crop_size=16, embed_dim=16, depth=1, num_heads=2, mae_dim=16,
    mae_depth=1, decoder_dim=16, normalisation="percentile", background_value=(0.0,),
    class_names=("dark", "bright"),
)  # fmt: skip
FAST = ["--device", "cpu", "--batch", "8", "--no-cache"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    for k in range(4):
        image = np.random.default_rng(k).integers(0, 100, (80, 64)).astype(np.uint8)
        labels = np.ones((80, 64), np.uint8)
        image[:40] += 120
        labels[:40] = 2
        tifffile.imwrite(folder / f"{k}.tif", image)
        tifffile.imwrite(folder / f"{k}_labels.tif", labels)
    torch.manual_seed(0)
    save_model(MuViTMAE(CONFIG), folder / "mae")
    save_model(MuViTSegmenter(CONFIG), folder / "segmenter")
    return folder


def files(data: Path, numbers: range, labels: bool = False) -> list[str]:
    return [str(data / f"{k}{'_labels' * labels}.tif") for k in numbers]


def run(words: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a probe into a folder; check its files, return what it printed."""
    capsys.readouterr()
    assert main(["probe", *words, *FAST, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    names = sorted(path.name for path in out.iterdir())
    assert names == ["probe.json", "probe.md", "probe.png"]
    with Image.open(out / "probe.png") as image:
        assert image.width > 500
    return said


def test_linear(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = range(2), range(2, 4)
    words = [
        "linear", "--model", str(data / "mae"), "--images", *files(data, train),
        "--labels", *files(data, train, True), "--test-images", *files(data, test),
        "--test-labels", *files(data, test, True), "--classes", "dark,bright",
        "--crops", "12", "--test-crops", "10", "--seed", "3",
    ]  # fmt: skip
    said = run(words, tmp_path / "a", capsys)
    found = probe_linear(
        data / "mae", files(data, train), files(data, train, True),
        test_images=files(data, test), test_labels=files(data, test, True),
        classes=("dark", "bright"), crops=12, test_crops=10, seed=3, device="cpu",
        batch_size=8,
    )  # fmt: skip
    assert said.startswith(found.table())
    assert found.rows[0].auc > 0.9
    stored = json.loads((tmp_path / "a/probe.json").read_text())
    assert stored == json.loads(json.dumps(found.to_dict()))
    assert (tmp_path / "a/probe.md").read_text() == found.markdown()


def test_linear_by_groups_as_json(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "linear", "--model", str(data / "segmenter"), "--images",
        *files(data, range(4)), "--groups", "a, b,a,b", "--untrained", "--json",
    ]  # fmt: skip
    said = json.loads(run(words, tmp_path / "a", capsys))
    assert said == json.loads((tmp_path / "a/probe.json").read_text())
    assert said["kind"] == "MuViTSegmenter"
    assert said["train"]["crops"] == {"a": 5, "b": 5}
    assert said["test"]["crops"] == {"a": 10, "b": 10}
    assert [row["untrained"] for row in said["levels"]] == [False] * 3 + [True] * 3


def test_mae(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["mae", *files(data, range(2)), "--model", str(data / "mae"),
             "--naive-model", str(data / "mae"), "--crops", "4"]  # fmt: skip
    said = run(words, tmp_path / "a", capsys)
    found = probe_mae(data / "mae", files(data, range(2)), crops=4, device="cpu",
                      naive_model=data / "mae", batch_size=8)  # fmt: skip
    assert said.startswith(found.table())
    assert (tmp_path / "a/probe.md").read_text() == found.markdown()


def test_boxes(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = files(data, range(2)), files(data, range(2), True)
    words = ["boxes", "--model", str(data / "segmenter"), "--images", *images,
             "--labels", *labels, "--crops", "4", "--sigmas", "0,4.5"]  # fmt: skip
    said = run(words, tmp_path / "a", capsys)
    found = probe_boxes(data / "segmenter", images, labels, sigmas=(0, 4.5), crops=4,
                        device="cpu", batch_size=8)  # fmt: skip
    assert said.startswith(found.table())
    assert [row.sigma for row in found.rows] == [0, 4.5]


def test_without_a_folder_nothing_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, image = str(data / "mae"), files(data, range(1))
    assert main(["probe", "mae", *image, "--model", model, "--crops", "2", *FAST]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_refused_before_the_work(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    # The images are not there: the folder is looked at first.
    words = ["probe", "mae", "nowhere.tif", "--model", str(data / "mae"), "--crops",
             "2", "--out", str(tmp_path)]  # fmt: skip
    assert main(words) == 2
    assert "holds files already" in capsys.readouterr().err
    words[2] = files(data, range(1))[0]
    assert main([*words, *FAST, "--overwrite"]) == 0
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "probe.png").is_file()


def test_a_plane_and_a_channel(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tifffile.imread(data / "0.tif")
    stack = np.zeros((3, 2, 80, 64), np.uint8)
    stack[2, 1] = flat
    tifffile.imwrite(tmp_path / "s.ome.tif", stack, metadata={"axes": "ZCYX"})
    results = []
    for words in (
        [str(data / "0.tif")],
        [str(tmp_path / "s.ome.tif"), "--plane", "z=2", "--channels", "1"],
    ):
        capsys.readouterr()
        model = ["--model", str(data / "mae"), "--crops", "3", "--json"]
        assert main(["probe", "mae", *words, *model, *FAST]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0]["rows"] == results[1]["rows"]


MISTAKES = {
    "no probe": ([], "PROBE"),
    "kind": (["mae", "{d}/0.tif", "--model", "{d}/segmenter"], "autoencoder is needed"),
    "image": (["mae", "nowhere.tif", "--model", "{d}/mae"], "no image at nowhere.tif"),
    "model": (["mae", "{d}/0.tif", "--model", "nowhere"], "no model folder"),
    "device": (
        ["mae", "{d}/0.tif", "--model", "{d}/mae", "--device", "cuda:9"], "cuda:9",
    ),
    "batch": (["mae", "{d}/0.tif", "--model", "{d}/mae", "--batch", "0"], "batch_size"),
    "sigmas": (
        ["boxes", "--model", "{d}/segmenter", "--images", "{d}/0.tif", "--labels",
         "{d}/0_labels.tif", "--sigmas", "1,x"],
        "--sigmas is '1,x'",
    ),
    "labels": (
        ["linear", "--model", "{d}/mae", "--images", "{d}/0.tif"],
        "Neither labels nor groups",
    ),
    "one image": (
        ["linear", "--model", "{d}/mae", "--images", "{d}/0.tif", "--labels",
         "{d}/0_labels.tif"],
        "give more images, or test images",
    ),
    "out": (
        ["mae", "{d}/0.tif", "--model", "{d}/mae", "--out", "{d}/0.tif/x"], "is a file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(
    name: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, expected = MISTAKES[name]
    try:
        code = main(["probe", *(word.format(d=data) for word in words)])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    (line,) = [line for line in lines if line.startswith("napari-muvit")]
    assert expected in line


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_leaves_nothing(data: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_muvit.cli", "probe", "mae",
         *files(data, range(1)), "--model", str(data / "mae"), "--crops", "1000000",
         "--out", str(tmp_path / "out"), *FAST],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = b""
        deadline = time.monotonic() + 120
        while b"%|" not in said:
            assert time.monotonic() < deadline, "no progress within two minutes"
            said += os.read(process.stderr.fileno(), 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
        process.communicate()
    assert not (tmp_path / "out").exists()
