"""Predictions against outlines: classes by name, unmarked tissue left out."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_muvit.cli import main
from napari_muvit.core.data.annotations import Annotations, Polygon
from napari_muvit.core.data.geojson import write_geojson
from napari_muvit.core.data.ome_zarr import write_pyramid
from napari_muvit.core.data.project import Project
from napari_muvit.core.errors import AnnotationError
from napari_muvit.core.evaluation import evaluate
from napari_muvit.core.geometry import Box
from napari_muvit.core.progress import Progress

NAMES = ("background", "gland", "rare")
LEFT = np.array([(2, 2), (2, 20.5), (30, 20.5), (30, 2)])
RIGHT = np.array([(5, 25), (5, 44), (28, 35)])
HOLE = np.array([(10, 8), (10, 12), (14, 12), (14, 8)])


@pytest.fixture
def prediction(tmp_path: Path) -> Path:
    labels = np.random.default_rng(0).integers(0, 4, (41, 47)).astype(np.uint8)
    path = tmp_path / "p.zarr"
    write_pyramid(path, labels, labels=True, class_names=list(NAMES),
                  class_colors=["#999999", "#ff0000", "#00ff00"])  # fmt: skip
    return path


@pytest.fixture
def outlines(tmp_path: Path) -> Path:
    """Numbered otherwise than in the prediction."""
    path = tmp_path / "a.geojson"
    items = (Polygon(1, LEFT, (HOLE,)), Polygon(2, RIGHT))
    write_geojson(Annotations(items, ("Gland", "background")), path)
    return path


def wanted(prediction: Path) -> np.ndarray:
    truth = Annotations((Polygon(2, LEFT, (HOLE,)), Polygon(1, RIGHT)))
    dense = truth.rasterise(Box.from_shape((41, 47)), (41, 47))
    assert dense[12, 10] == 0
    return evaluate(prediction, dense).confusion


@pytest.mark.parametrize("block", [50, 2**22])
@pytest.mark.parametrize("zero", [False, True])
def test_classes_are_found_by_name(
    prediction: Path, outlines: Path, block: int, zero: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    expected = wanted(prediction)
    monkeypatch.setattr("napari_muvit.core.evaluation.dice.BLOCK_PIXELS", block)
    # What 0 means in label images does not touch outlines.
    found = evaluate(prediction, outlines, zero_is_background=zero)
    np.testing.assert_array_equal(found.confusion, expected)
    assert found.class_names == NAMES
    assert found.background == 1


def test_annotations_and_mixed_pairs(prediction: Path, outlines: Path) -> None:
    marks = Annotations((Polygon(2, LEFT, (HOLE,)), Polygon(1, RIGHT)), NAMES)
    dense = np.full((41, 47), 3, np.uint8)
    found = evaluate([prediction] * 3, [outlines, dense, marks])
    expected = 2 * wanted(prediction) + evaluate(prediction, dense).confusion
    np.testing.assert_array_equal(found.confusion, expected)


def test_what_was_left_out_is_said_once(prediction: Path, outlines: Path) -> None:
    content = json.loads(outlines.read_text())
    content["features"][1]["properties"] = {}
    outlines.write_text(json.dumps(content))
    events: list[Progress] = []
    evaluate(prediction, outlines, on_progress=events.append)
    said = [event.message for event in events if event.message]
    assert said == ["a.geojson: left out: 1 features without a class"]


def test_no_array_of_the_slide_is_made(
    tmp_path: Path, outlines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_muvit.core.evaluation.dice.BLOCK_PIXELS", 2**18)
    path = tmp_path / "large.zarr"
    zarr.create_array(path, shape=(6_000, 6_000), chunks=(512, 512), dtype="uint8")
    content = json.loads(outlines.read_text())
    content["features"] = content["features"][:1]
    outlines.write_text(json.dumps(content))
    tracemalloc.start()
    found = evaluate(path, outlines, class_names=NAMES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.confusion.sum() == 6_000**2
    assert found.confusion[2, 0] == 28 * 18 - 16
    assert peak < 6_000**2 / 2


def test_what_cannot_be_compared(prediction: Path, outlines: Path) -> None:
    with pytest.raises(AnnotationError, match=r"a\.geojson holds the class 'Gland'"):
        evaluate(prediction, outlines, class_names=("background", "tumour"))
    plain = np.ones((41, 47), np.uint8)
    with pytest.raises(AnnotationError, match=r"does not name its classes.*--classes"):
        evaluate(plain, outlines)
    with pytest.raises(AnnotationError, match="3 spatial axes"):
        evaluate(np.ones((4, 5, 6), np.uint8), outlines, class_names=NAMES)


def test_annotations_of_a_volume_are_refused(prediction: Path) -> None:
    volume = Annotations.from_labels(np.ones((3, 41, 47), np.uint8), ndim=3)
    with pytest.raises(AnnotationError, match="of a volume"):
        evaluate(prediction, volume)


def test_predictions_with_other_classes_are_not_pooled(
    tmp_path: Path, prediction: Path, outlines: Path
) -> None:
    other = tmp_path / "q.zarr"
    write_pyramid(other, np.ones((41, 47), np.uint8), labels=True,
                  class_names=["gland", "background"])  # fmt: skip
    with pytest.raises(AnnotationError, match="different classes: background, gland"):
        evaluate([prediction, other], [outlines, outlines])


def test_the_command(
    prediction: Path, outlines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--prediction", str(prediction), "--labels", str(outlines)]
    assert main(["evaluate", *arguments]) == 0
    table = capsys.readouterr().out
    dice = evaluate(prediction, outlines).dice
    assert f"{dice[1]:.4f}" in table.splitlines()[2]
    assert main(["evaluate", *arguments, "--classes", "background,tumour"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "holds the class 'Gland', which is not among the classes" in error


def test_project_files_by_name_and_by_number(tmp_path: Path, prediction: Path) -> None:
    areas = (Polygon(1, LEFT, (HOLE,)), Polygon(2, RIGHT))
    named, numbered = tmp_path / "a.muvit.jsonl", tmp_path / "b.muvit.jsonl"
    with Project.create(named, class_names=("Gland", "background")) as project:
        for area in areas:
            project.add(area)
    with Project.create(numbered) as project:
        for area in areas:
            project.add(area)
    found = evaluate(prediction, named)
    np.testing.assert_array_equal(found.confusion, wanted(prediction))
    dense = Annotations(areas).rasterise(Box.from_shape((41, 47)), (41, 47))
    np.testing.assert_array_equal(
        evaluate(prediction, numbered).confusion, evaluate(prediction, dense).confusion
    )
