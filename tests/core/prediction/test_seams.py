"""Seam score: seams that are there by construction are found, others are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.arrays import ArraySource
from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel
from napari_muvit.core.data.tissue import TissueMask
from napari_muvit.core.errors import Cancelled, PyramidError
from napari_muvit.core.prediction import predict, selection
from napari_muvit.core.prediction.grid import Axis, core_size
from napari_muvit.core.prediction.plan import plan_prediction
from napari_muvit.core.prediction.seam_result import seam_line, seam_table
from napari_muvit.core.prediction.seam_zones import SeamZones, count_pairs
from napari_muvit.core.prediction.seams import seam_score
from napari_muvit.core.progress import Progress

Build = Callable[..., Any]
CROP = 32


class BorderModel(nn.Module):
    """Sees class 2 where the border of its crop is near, class 1 elsewhere."""

    def __init__(self, config: ModelConfig, width: int = 2) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, bboxes: Tensor) -> Tensor:
        edge = x.shape[-1]
        place = torch.arange(edge)
        near = torch.minimum(place, edge - 1 - place) < self.width
        border = (near[:, None] | near).float().expand(len(x), edge, edge)
        classes = torch.stack([0.5 * torch.ones_like(border), border], dim=1)
        return classes * self.gain


def cpu(**changes: Any) -> PredictionConfig:
    values = {"tile_size": 64, "batch_size": 8, "device": "cpu", "num_threads": 1}
    return PredictionConfig(**(values | changes))


@pytest.fixture
def border_model() -> BorderModel:
    config = ModelConfig(
        scale_factors=(1, 4), num_classes=2, crop_size=CROP, embed_dim=16, num_heads=2,
        normalisation="none", class_names=("glass", "tissue"),
    )  # fmt: skip
    return BorderModel(config)


def test_seams_by_construction_are_found(
    slide: Build, border_model: BorderModel
) -> None:
    score = seam_score(slide((288, 320)), border_model, cpu(overlap=0.0))
    # Cores are crops: 2 pixels on each side of a seam of one grid are class 2 in it,
    # and class 1 in the other one, but where seams of both cross.
    assert score.away == 0
    assert 0.8 < score.near <= 1
    assert score.difference == score.near
    assert score.ratio == np.inf
    assert score.to_dict()["ratio"] is None
    assert score.away_dice == pytest.approx([1, np.nan], nan_ok=True)
    assert score.near_dice[1] < 0.2
    assert "0.000% away" in seam_line(score.to_dict())
    assert len(score.tiles) == 16


def test_overlap_hides_them(slide: Build, border_model: BorderModel) -> None:
    score = seam_score(slide((288, 320)), border_model, cpu(overlap=0.5))
    assert score.near == score.away == 0
    assert score.ratio == 1


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_a_pixelwise_model_has_none(
    slide: Build, identity_model: Build, overlap: float
) -> None:
    score = seam_score(
        slide((300, 310)), identity_model(crop_size=CROP), cpu(overlap=overlap)
    )
    assert (score.near, score.away, score.difference, score.ratio) == (0, 0, 0, 1)
    assert score.near_dice == (1,) * 4
    assert score.near_confusion.sum() > score.away_confusion.sum() > 5000


def test_labels_that_are_there_need_no_second_prediction(
    slide: Build, border_model: BorderModel
) -> None:
    pyramid, config = slide((288, 320)), cpu(overlap=0.0)
    expected = seam_score(pyramid, border_model, config)
    labels = np.zeros(pyramid.shape, np.uint8)
    for tile in predict(pyramid, border_model, config):
        y0, x0, y1, x1 = tile.box
        labels[y0:y1, x0:x1] = tile.labels
    found = seam_score(pyramid, border_model, config, labels=labels)
    assert found.to_dict() == expected.to_dict()


def test_what_was_not_predicted_is_not_compared(
    slide: Build, border_model: BorderModel
) -> None:
    # Tiles to compare are of two crops at least, so of four of those predicted here.
    pyramid, config = slide((256, 320)), cpu(overlap=0.25, tile_size=64)
    wide = dataclasses.replace(border_model.config, crop_size=64)
    model = BorderModel(wide)
    some = dataclasses.replace(config, region=(64, 64, 128, 256))
    labels = np.zeros(pyramid.shape, np.uint8)
    for tile in predict(pyramid, model, some):
        y0, x0, y1, x1 = tile.box
        labels[y0:y1, x0:x1] = tile.labels
    score = seam_score(pyramid, model, some, labels=labels)
    assert (score.tiles[0][2], score.tiles[0][3]) == (128, 128)
    assert score.near_confusion[0].sum() == score.away_confusion[0].sum() == 0
    assert score.near_confusion.sum() > 1000
    assert score.away == 0
    assert seam_score(pyramid, model, some).away == 0


def test_one_look_for_tissue_is_enough(
    monkeypatch: pytest.MonkeyPatch, slide: Build, border_model: BorderModel
) -> None:
    seen: list[Any] = []

    def look(pyramid: Pyramid, **_rest: Any) -> TissueMask:
        seen.append(pyramid)
        mask = np.zeros((4, 4), dtype=bool)
        mask[0, 0] = True
        return TissueMask(mask, pyramid.extent, "bright")

    monkeypatch.setattr(selection, "find_tissue", look)
    score = seam_score(slide((512, 512)), border_model, cpu(tissue=True))
    assert len(seen) == 1
    assert all(max(box[:2]) < 256 for box in score.tiles)


def test_tiles_with_a_border_of_classes_come_first(identity_model: Build) -> None:
    pixels = np.zeros((64 * 8, 64 * 8), np.uint8)
    pixels[130:150, 130:150] = 1
    pixels[450:460, 400:440] = 2
    level = PyramidLevel(ArraySource(pixels, axes="yx"), (1.0, 1.0), (0.0, 0.0))
    model = identity_model(crop_size=CROP)
    score = seam_score(Pyramid((level,)), model, cpu(), most_tiles=16)
    assert (128, 128, 192, 192) in score.tiles
    assert (448, 384, 512, 448) in score.tiles
    assert len(score.tiles) == 16
    few = seam_score(Pyramid((level,)), model, cpu(region=(0, 0, 60, 60)))
    assert few.tiles == ((0, 0, 64, 64),)


def test_where_one_crop_sees_all_there_is_no_seam(
    slide: Build, border_model: BorderModel
) -> None:
    score = seam_score(slide((24, 20)), border_model, cpu())
    assert np.isnan(score.near)
    assert score.away == 0
    assert "there are none" in seam_line(score.to_dict())
    assert score.to_dict()["near"] is None


def test_tables_name_the_slides(slide: Build, border_model: BorderModel) -> None:
    score = seam_score(slide((288, 320)), border_model, cpu(overlap=0.0))
    lines = seam_table({"one": score, "two": score}).splitlines()
    assert [line.split()[0] for line in lines] == ["slide", "one", "two"]
    assert "0.000 %" in lines[1]


def test_progress_and_stopping(slide: Build, border_model: BorderModel) -> None:
    events: list[Progress] = []
    seam_score(slide((288, 320)), border_model, cpu(), on_progress=events.append)
    assert [e.stage for e in events] == ["evaluate"] * len(events)
    done = [e.done for e in events]
    assert (done[0], done[-1]) == (0, events[-1].total)
    assert done == sorted(done)
    with pytest.raises(Cancelled):
        seam_score(
            slide((288, 320)), border_model, cpu(), should_stop=lambda: len(events) > 0
        )


def test_a_slide_that_cannot_be_read(
    zarr_slide: Build, border_model: BorderModel
) -> None:
    pyramid = zarr_slide((128, 128))
    for chunk in Path(pyramid.path).glob("c/*/*"):
        chunk.write_bytes(b"no zarr")
    with pytest.raises(PyramidError, match="can be read; repair"):
        seam_score(pyramid, border_model, cpu())


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(40, 500), st.integers(40, 500)),
    overlap=st.floats(0, 0.8),
    zoom=st.sampled_from([1.0, 0.37, 2.3]),
)
def test_zones_are_what_their_names_say(
    shape: tuple[int, int], overlap: float, zoom: float
) -> None:
    level = PyramidLevel(
        ArraySource(np.broadcast_to(np.zeros((), np.uint8), shape), axes="yx"),
        (zoom, zoom), (0.0, 0.0),
    )  # fmt: skip
    config = ModelConfig(scale_factors=(1, 4), crop_size=CROP, patch_size=8)
    if min(shape) * zoom < 9:
        return
    plan, shifted = (
        plan_prediction(
            Pyramid((level,)), config, PredictionConfig(overlap=overlap), shifted=s
        )
        for s in (False, True)
    )
    tile = plan.tile(0)
    near, away = SeamZones(plan.axes, shifted.axes).of(tile)
    assert near.shape == away.shape == (tile.box[2], tile.box[3])
    assert not (near & away).any()
    for row, column in [
        (0, 0),
        (17, 23),
        (39, 39),
        (tile.box[2] - 1, tile.box[3] // 2),
    ]:
        checked = [
            classify(a, b, (pixel + 0.5) * zoom)
            for a, b, pixel in zip(plan.axes, shifted.axes, (row, column), strict=True)
        ]
        counted = all(c[2] for c in checked)
        assert near[row, column] == (counted and any(c[0] for c in checked))
        assert away[row, column] == (counted and all(c[1] for c in checked))


def classify(usual: Axis, shifted: Axis, place: float) -> tuple[bool, bool, bool]:
    seams = [usual.edge(i) for i in range(1, usual.count)]
    seams += [shifted.edge(i) for i in range(1, shifted.count)]
    core = (usual.last - usual.first) / usual.count
    distance = min((abs(place - s) for s in seams), default=np.inf)
    near = max(core / 16, 2)
    border = min(place - usual.first, usual.last - place)
    counted = usual.count == 1 or border >= core / 2
    return distance < near, distance >= max(core / 8, near), counted


def test_zones_have_the_same_shares_whatever_the_overlap() -> None:
    for overlap in (0.0, 0.25, 0.5):
        axis = Axis(0, 6400, 128, core_size(128, overlap))
        zones = SeamZones((axis, axis), (axis.shifted(), axis.shifted()))
        level = PyramidLevel(
            ArraySource(np.broadcast_to(np.zeros((), np.uint8), (6400, 6400)), "yx"),
            (1.0, 1.0), (0.0, 0.0),
        )  # fmt: skip
        plan = plan_prediction(
            Pyramid((level,)), ModelConfig(crop_size=128),
            PredictionConfig(tile_size=2048),
        )  # fmt: skip
        near, away = zones.of(plan.tile(5))
        assert near.mean() == pytest.approx(0.4375, abs=0.06)
        assert away.mean() == pytest.approx(0.25, abs=0.03)


def test_pairs_are_counted() -> None:
    first = np.array([[1, 2], [0, 2]], np.uint8)
    second = np.array([[1, 1], [2, 2]], np.uint8)
    expected = np.zeros((3, 3), int)
    expected[1, 1] = expected[2, 1] = expected[0, 2] = expected[2, 2] = 1
    assert (count_pairs(first, second, 2) == expected).all()
