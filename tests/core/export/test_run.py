"""A whole export: its files agree with the labels and with one another."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from napari_muvit.core.data.geojson import read_geojson
from napari_muvit.core.data.zarr_writer import write_pyramid
from napari_muvit.core.errors import Cancelled, OutputError
from napari_muvit.core.export import ExportConfig, export_prediction
from napari_muvit.core.export.run import FILES
from napari_muvit.core.geometry import Box
from napari_muvit.core.progress import Progress

NAMES = ("background", "round", "other")


def blobs(shape: tuple[int, int] = (131, 97), seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((2, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 3, 3))
    labels = np.ones(shape, dtype=np.uint8)
    labels[smooth[0] > 0.52] = 2
    labels[smooth[1] > 0.54] = 3
    labels[:4] = 0
    return labels


def store(path: Path, labels: np.ndarray, chunk: int = 32) -> Path:
    write_pyramid(
        path, labels, labels=True, chunk=chunk, class_names=NAMES,
        class_colors=("#808080", "#ff0000", "#0000ff"), pixel_size=(0.5, 0.5),
    )  # fmt: skip
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_all_files_agree(tmp_path: Path) -> None:
    labels = blobs()
    path = store(tmp_path / "slide.zarr", labels)
    events: list[Progress] = []
    result = export_prediction(path, on_progress=events.append)
    out = tmp_path / "slide_export"
    assert result.folder == out
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["slide.zarr", "slide_export"]

    found = read_geojson(out / "objects.geojson").annotations(NAMES)
    shown = found.rasterise(Box((0, 0), labels.shape), labels.shape)
    np.testing.assert_array_equal(shown, np.where(labels > 1, labels, 0))

    table = rows(out / "objects.csv")
    features = json.loads((out / "objects.geojson").read_text())["features"]
    assert len(table) == len(features) == result.objects
    for row, feature in zip(table, features, strict=True):
        said = feature["properties"]["measurements"]
        assert said["Object"] == int(row["id"])
        assert said["Area px^2"] == int(row["area_px"])
        assert float(row["area_um2"]) == pytest.approx(int(row["area_px"]) / 4)
        label = labels[int(row["y0"]) : int(row["y1"]), int(row["x0"]) : int(row["x1"])]
        assert int(row["label"]) in label
        assert row["class"] == feature["properties"]["classification"]["name"]
    for label in (2, 3):
        parts = ndimage.label(labels == label)[0]
        sizes = sorted(np.bincount(parts.ravel())[1:].tolist())
        mine = [int(row["area_px"]) for row in table if row["label"] == str(label)]
        assert sorted(mine) == sizes

    classes = rows(out / "classes.csv")
    assert [row["class"] for row in classes] == list(NAMES)
    counts = np.bincount(labels.ravel(), minlength=4)
    assert [int(row["predicted_px"]) for row in classes] == counts[1:].tolist()
    assert sum(float(row["share"]) for row in classes) == pytest.approx(1)
    assert [row["objects"] == "" for row in classes] == [True, False, False]
    assert json.loads((out / "report.json").read_text()) == result.to_dict()
    assert (out / "report.md").read_text() == result.markdown()
    assert "| round |" in result.markdown()
    assert result.table().splitlines()[0].split()[:3] == ["class", "predicted", "µm²"]
    with Image.open(out / "thumbnail.png") as image:
        assert image.size == (97, 131)
    assert {e.stage for e in events} == {"export", "write"}
    for stage in ("export", "write"):
        last = [e for e in events if e.stage == stage][-1]
        assert last.done == last.total > 0


def test_limits_and_tolerance(tmp_path: Path) -> None:
    labels = blobs(seed=1)
    path = store(tmp_path / "slide.zarr", labels)
    config = ExportConfig(
        classes=("other",), min_object=8.0, min_hole=3.0, simplify=0.5
    )
    result = export_prediction(path, tmp_path / "out", config)
    table = rows(tmp_path / "out" / "objects.csv")
    assert (result.min_object_px, result.max_hole_px, result.tolerance_px) == (
        32,
        11,
        1,
    )
    assert {row["class"] for row in table} == {"other"}
    assert min(int(row["area_px"]) for row in table) >= 32
    parts, _ = ndimage.label(labels == 3)
    sizes = np.bincount(parts.ravel())[1:]
    assert result.objects == (sizes >= 32).sum()
    assert result.dropped == (sizes < 32).sum() > 0
    page = result.markdown()
    assert "Objects of fewer than 32 pixels" in page
    assert "within 1 pixels" in page
    exact = export_prediction(path, tmp_path / "exact", ExportConfig(classes=("3",)))
    simple, whole = (
        (tmp_path / name / "objects.geojson").stat().st_size
        for name in ("out", "exact")
    )
    assert simple < whole
    assert exact.objects == len(sizes)


def test_the_blocks_of_a_file_do_not_matter(tmp_path: Path) -> None:
    labels = blobs((70, 83))
    config = ExportConfig(min_object=2.0, min_hole=4.0, simplify=0.4)
    files = []
    for chunk in (16, 33, 100):
        path = store(tmp_path / f"{chunk}" / "slide.zarr", labels, chunk)
        export_prediction(path, tmp_path / f"{chunk}" / "out", config)
        files.append(
            [(tmp_path / f"{chunk}" / "out" / name).read_bytes()
             for name in FILES if not name.startswith("report")]
        )  # fmt: skip
    assert files[0] == files[1] == files[2]


def test_pixels_of_unknown_size(tmp_path: Path) -> None:
    labels = np.zeros((6, 6), dtype=np.uint8)
    labels[1:4, 1:4], labels[5, 5] = 7, 7
    tifffile.imwrite(tmp_path / "a.tif", labels)
    said: list[str] = []
    result = export_prediction(
        tmp_path / "a.tif", config=ExportConfig(min_object=2.0),
        on_progress=lambda event: said.append(event.message),
    )  # fmt: skip
    assert any("areas and limits are in pixels" in text for text in said)
    assert result.objects == 1
    assert result.pixel_area is None
    (row,) = rows(tmp_path / "a_export" / "objects.csv")
    assert (row["class"], row["area_px"], row["area_um2"]) == ("class 7", "9", "")
    assert (row["centroid_x"], row["centroid_y"], row["holes"]) == ("2.50", "2.50", "0")
    assert "unknown size" in result.markdown()
    assert "predicted px" in result.table()


def test_nothing_is_left_of_a_stop(tmp_path: Path) -> None:
    path = store(tmp_path / "slide.zarr", blobs())
    for stage in ("export", "write"):
        stops = []

        def told(event: Progress, stage: str = stage, stops: list[int] = stops) -> None:
            if event.stage == stage:
                stops.append(1)

        with pytest.raises(Cancelled):
            export_prediction(
                path, on_progress=told, should_stop=lambda stops=stops: bool(stops)
            )
        assert [p.name for p in tmp_path.iterdir()] == ["slide.zarr"]


def test_files_that_are_there_stay_unless_asked(tmp_path: Path) -> None:
    path = store(tmp_path / "slide.zarr", blobs())
    export_prediction(path)
    before = (tmp_path / "slide_export" / "objects.csv").read_bytes()
    config = ExportConfig(classes=("round",))
    with pytest.raises(OutputError, match="holds files already"):
        export_prediction(path, config=config)
    assert (tmp_path / "slide_export" / "objects.csv").read_bytes() == before
    export_prediction(path, config=config, overwrite=True)
    assert (tmp_path / "slide_export" / "objects.csv").read_bytes() != before
    # A broken image takes nothing away.
    for chunk in (path / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"broken")
    with pytest.raises(Exception, match="cannot be read"):
        export_prediction(path, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "slide_export").iterdir()) == sorted(
        FILES
    )


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_export_leaves_nothing_half(tmp_path: Path) -> None:
    path = store(tmp_path / "slide.zarr", blobs())
    code = f"""
        import time
        from napari_muvit.core.export import export_prediction
        def told(event):
            if event.stage == "write":
                print("writing", flush=True)
                time.sleep(60)
        export_prediction({str(path)!r}, on_progress=told)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.1)
    assert not (tmp_path / "slide_export").exists()
    result = export_prediction(path)
    assert result.objects > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["slide.zarr", "slide_export"]
