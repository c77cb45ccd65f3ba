"""Outlines of a prediction: the same labels, no more than can be edited."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_muvit._tasks import correcting
from napari_muvit._tasks.correcting import OutlineTask, UncertainTask
from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.errors import AnnotationError
from napari_muvit.core.geometry import Box
from napari_muvit.core.prediction import plan_prediction
from napari_muvit.core.prediction.filled import FilledTile
from napari_muvit.core.prediction.writer import LabelWriter

SHAPE = (600, 800)


def call(task: Any) -> Any:
    return task(
        on_progress=lambda _event: None, should_stop=lambda: False,
        tell=lambda _said: None, commands=queue.SimpleQueue(),
    )  # fmt: skip


def truth() -> np.ndarray:
    labels = np.ones(SHAPE, np.uint8)
    labels[100:200, 100:300] = 2
    labels[120:150, 120:150] = 3
    labels[300:302, 300:302] = 3  # too small to be an outline
    labels[:, 700:] = 0
    return labels


@pytest.fixture
def prediction(tmp_path: Path) -> Path:
    image = open_pyramid(np.zeros(SHAPE, np.uint8))
    model = ModelConfig(crop_size=64, scale_factors=(1,), num_classes=3)
    asked = PredictionConfig(tile_size=128, outputs=("confidence",))
    plan = plan_prediction(image, model, asked)
    record = {"identity": {}, "outputs": ["confidence"]}
    writer = LabelWriter(tmp_path / "p.zarr", image, plan, model, record)
    writer.begin()
    for tile in plan.tiles():
        y0, x0, y1, x1 = tile.box
        sure = np.full((y1 - y0, x1 - x0), 240, np.uint8)
        if (y0, x0) == (256, 384):
            sure[:] = 100
        writer.write(FilledTile(tile, truth()[y0:y1, x0:x1], confidence=sure))
    writer.close()
    return tmp_path / "p.zarr"


def filled(items: Any, box: Box) -> np.ndarray:
    kept = Annotations(items=tuple(items), class_names=("a", "b", "c"))
    return kept.rasterise(box, [round(n) for n in box.shape])


def test_outlines_are_the_labels_of_the_box(prediction: Path) -> None:
    box = Box((90.0, 80.0), (320.0, 330.0))
    found = call(OutlineTask(prediction, box))
    expected = truth()[90:320, 80:330].copy()
    wrong = filled(found, box) != expected
    assert wrong.sum() <= 4  # the dot that is too small
    assert {item.label for item in found} == {1, 2, 3}


def test_parts_lie_on_top_of_each_other_instead_of_in_holes(prediction: Path) -> None:
    found = call(OutlineTask(prediction, Box((0, 0), (600, 700))))
    assert [item.label for item in found] == [1, 2, 3]
    assert not any(item.holes for item in found)
    # What is not predicted is no part of anything.
    box = Box((0, 0), SHAPE)
    found = call(OutlineTask(prediction, box))
    assert not filled(found, box)[:, 700:].any()


def test_a_hole_of_what_is_not_predicted_stays(prediction: Path) -> None:
    import zarr

    zarr.open_array(prediction / "0", mode="r+")[400:440, 400:440] = 0
    box = Box((0, 0), (600, 700))
    found = call(OutlineTask(prediction, box))
    again = filled(found, box)
    assert not again[400:440, 400:440].any()
    assert np.count_nonzero(again == 0) == 40 * 40
    assert [len(item.holes) for item in found] == [1, 0, 0]


def test_only_what_lies_inside_the_shapes(prediction: Path) -> None:
    ring = ((110.0, 110.0), (110.0, 160.0), (160.0, 160.0), (160.0, 110.0))
    found = call(OutlineTask(prediction, Box((110, 110), (160, 160)), ((ring,),)))
    inside = filled(found, Box((0, 0), SHAPE)) > 0
    assert inside.sum() == pytest.approx(50 * 50, rel=0.02)
    assert inside[110:160, 110:160].mean() > 0.98


def test_a_large_area_is_outlined_coarsely(
    prediction: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correcting, "MOST_PIXELS", 150 * 200)
    box = Box((0, 0), SHAPE)
    found = call(OutlineTask(prediction, box))
    right = filled(found, box) == truth()
    assert right.mean() > 0.98


def test_more_than_can_be_edited_is_refused(
    prediction: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correcting, "MOST_PARTS", 2)
    with pytest.raises(AnnotationError, match="3 regions are predicted there; up to 2"):
        call(OutlineTask(prediction, Box((0, 0), (400, 400))))


def test_nothing_there_is_said(prediction: Path) -> None:
    with pytest.raises(AnnotationError, match="Nothing is predicted there"):
        call(OutlineTask(prediction, Box((0, 720), (100, 790))))


def test_places_are_named_inside_tissue(prediction: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 9, SHAPE, dtype=np.uint8)
    task = UncertainTask(prediction, open_pyramid(pixels), 128)
    assert call(task)[0].box == (256, 384, 384, 512)
    # Tissue elsewhere: the dark place is not named.
    pixels[64:200, 64:200] += 150
    task = UncertainTask(prediction, open_pyramid(pixels), 128)
    for place in call(task):
        assert place.box[0] < 256
