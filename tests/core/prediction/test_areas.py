"""Areas of classes: exact from the finest level, whatever is finished of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_muvit.core.config import PredictionConfig
from napari_muvit.core.errors import Cancelled, OutputError
from napari_muvit.core.export.config import ExportConfig
from napari_muvit.core.export.run import export_prediction
from napari_muvit.core.prediction import predict
from napari_muvit.core.prediction.areas import (
    class_areas,
    count_labels,
    measure_areas,
)
from napari_muvit.core.progress import Progress

Build = Callable[..., Any]
SHAPE = (300, 410)


@pytest.fixture
def predicted(identity_model: Build, slide: Build, tmp_path: Path) -> Path:
    pyramid = slide(SHAPE, pixel_size=(0.5, 0.25))
    run = predict(
        pyramid, identity_model(), PredictionConfig(tile_size=128, device="cpu"),
        out=tmp_path / "out.zarr",
    )  # fmt: skip
    list(run)
    return tmp_path / "out.zarr"


def test_areas_are_those_of_an_export(predicted: Path, tmp_path: Path) -> None:
    areas = measure_areas(predicted)
    export = export_prediction(predicted, tmp_path / "export", ExportConfig())
    assert [a.pixels for a in areas] == [c.predicted_px for c in export.classes]
    assert [a.share for a in areas] == [c.share for c in export.classes]
    assert [a.um2 for a in areas] == [export.area(a.pixels) for a in areas]
    assert [a.name for a in areas] == [c.name for c in export.classes]
    assert [a.color for a in areas] == [c.color for c in export.classes]
    assert sum(a.pixels for a in areas) == SHAPE[0] * SHAPE[1]


def test_only_finished_tiles_are_read(
    identity_model: Build, slide: Build, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    config = PredictionConfig(
        tile_size=128, device="cpu", region=(0, 0, 10, 10), batch_size=2
    )
    run = predict(slide(SHAPE), identity_model(), config, out=out)
    (tile,) = list(run)
    events: list[Progress] = []
    areas = measure_areas(out, on_progress=events.append)
    assert [a.pixels for a in areas] == count_labels(tile.labels)[1:5].tolist()
    assert [(e.done, e.total) for e in events] == [(1, 1)]
    assert {a.um2 for a in areas} == {None}


def test_a_coarse_level_gives_about_the_same() -> None:
    labels = np.ones((64, 64), np.uint8)
    labels[:32, 16:] = 2
    fine = class_areas(count_labels(labels), "ab", ("#000000", "#ffffff"), (2.0, 3.0))
    coarse = class_areas(
        count_labels(labels[::4, ::4]), "ab", ("#000000", "#ffffff"), (2.0, 3.0), 4
    )
    assert coarse == fine
    assert fine[1].um2 == 32 * 48 * 6
    assert fine[1].share == pytest.approx(32 * 48 / 64**2)


def test_nothing_predicted_is_no_division_by_zero() -> None:
    (area,) = class_areas(count_labels(np.zeros(9, np.uint8)), "a", ["#000000"], None)
    assert (area.pixels, area.um2, area.share) == (0, None, 0)


def test_it_stops_and_says_what_is_missing(predicted: Path, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        measure_areas(predicted, should_stop=lambda: True)
    with pytest.raises(OutputError, match="holds no prediction"):
        measure_areas(tmp_path)
