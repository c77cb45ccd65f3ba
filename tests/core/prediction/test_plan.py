"""The plan: cores partition the slide, windows stay inside, order follows the focus."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.arrays import ArraySource
from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.geometry import Box
from napari_muvit.core.prediction import PredictionPlan, plan_prediction
from napari_muvit.core.prediction.tiles import Crop


def make_config(**changes: Any) -> ModelConfig:
    values = {"scale_factors": (1, 4), "crop_size": 64, "patch_size": 8}
    return ModelConfig(**(values | changes))


def make_pyramid(
    shape: tuple[int, int], pixel_size: float | None = None, **changes: Any
) -> Pyramid:
    array = np.broadcast_to(np.zeros((), np.uint8), shape)
    level = PyramidLevel(ArraySource(array, axes="yx"), (1.0, 1.0), (0.0, 0.0))
    size = None if pixel_size is None else (pixel_size, pixel_size)
    return Pyramid((level,), pixel_size=size, **changes)


sizes = st.integers(8, 700)


@settings(max_examples=40, deadline=None)
@given(
    height=sizes,
    width=sizes,
    crop=st.sampled_from([16, 64, 96, 128]),
    overlap=st.floats(0, 0.9),
    tile=st.sampled_from([64, 128, 256]),
    ratio=st.sampled_from([None, 1.0, 0.5, 0.3337, 1.37]),
)
def test_tiles_partition_the_slide_and_crops_fill_each_tile(
    height: int, width: int, crop: int, overlap: float, tile: int, ratio: float | None
) -> None:
    pyramid = make_pyramid((height, width), ratio)
    model = make_config(crop_size=crop, pixel_size=1.0)
    view = pyramid.viewed_at(1.0)
    if min(view.extent.shape) < 9:
        return
    plan = plan_prediction(
        pyramid, model, PredictionConfig(overlap=overlap, tile_size=tile)
    )
    written = np.zeros((height, width), np.uint8)
    for one in list(plan.tiles())[:2] + list(plan.tiles())[-1:]:
        written[one.box[0] : one.box[2], one.box[1] : one.box[3]] += 1
        shares = np.zeros(one.world_shape)
        for index in plan.crops_of(one):
            found = plan.crop(index)
            check_crop(plan, found, view.extent)
            assert one.index in plan.tiles_of(found)
            part = found.part(one.world)
            assert part is not None
            rows, columns = weights_of(plan, index)
            shares[part.tile] += np.outer(rows, columns)[part.window]
        np.testing.assert_allclose(shares, 1, atol=1e-5)
        labels = np.zeros(one.world_shape, np.uint8)
        y0, x0, y1, x1 = one.box
        assert one.to_output(labels).shape == (y1 - y0, x1 - x0)
    assert written.max() <= 2  # the first and last tiles of the list may be the same


def weights_of(plan: PredictionPlan, index: int) -> tuple[np.ndarray, np.ndarray]:
    row, column = divmod(index, plan.axes[1].count)
    return plan.axes[0].weights(row), plan.axes[1].weights(column)


def check_crop(plan: PredictionPlan, crop: Crop, extent: Box) -> None:
    fine = crop.padded.boxes[0]
    (y0, y1), (x0, x1) = crop.window
    assert fine.contains(Box((y0, x0), (y1, x1)), tolerance=0)
    assert all(float(v).is_integer() for v in fine.lower)
    for axis in range(2):
        if extent.shape[axis] >= plan.crop_size + 1:
            assert fine.lower[axis] >= 0
            assert fine.upper[axis] <= extent.upper[axis] + 1e-3


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(sizes, sizes),
    corner=st.tuples(st.floats(-50, 600), st.floats(-50, 600)),
    size=st.tuples(st.floats(0.1, 300), st.floats(0.1, 300)),
)
def test_a_region_selects_the_tiles_that_it_touches_and_moves_no_crop(
    shape: tuple[int, int], corner: tuple[float, float], size: tuple[float, float]
) -> None:
    pyramid, model = make_pyramid(shape), make_config()
    region = (*corner, corner[0] + size[0], corner[1] + size[1])
    box, extent = Box(corner, region[2:]), Box((0, 0), shape)
    config = PredictionConfig(tile_size=64, region=region)
    if box.intersection(extent) is None:
        with pytest.raises(ConfigError, match="outside"):
            plan_prediction(pyramid, model, config)
        return
    whole = plan_prediction(pyramid, model, PredictionConfig(tile_size=64))
    part = plan_prediction(pyramid, model, config)
    chosen = set(part.indices().tolist())
    assert len(part) == len(chosen)
    assert part.batch_size == whole.batch_size
    for tile in whole.tiles():
        y0, x0, y1, x1 = tile.box
        touched = Box((y0, x0), (y1, x1)).intersection(box) is not None
        assert (tile.index in chosen) == touched
    index = next(iter(chosen))
    crops = part.crops_of(part.tile(index))
    assert crops == whole.crops_of(whole.tile(index))
    assert [part.crop(c) for c in crops] == [whole.crop(c) for c in crops]


def test_without_overlap_windows_are_whole_crops() -> None:
    plan = plan_prediction(
        make_pyramid((256, 256)), make_config(), PredictionConfig(overlap=0)
    )
    crops = [plan.crop(i) for i in range(plan.num_crops)]
    assert len(crops) == 16
    assert all(c.inside == (slice(0, 64), slice(0, 64)) for c in crops)


def test_the_tiles_of_a_crop_are_all_that_it_touches() -> None:
    plan = plan_prediction(
        make_pyramid((150, 230), 0.37),
        make_config(pixel_size=1.0, crop_size=16),
        PredictionConfig(tile_size=64),
    )
    tiles = list(plan.tiles())
    for index in range(plan.num_crops):
        crop = plan.crop(index)
        named = plan.tiles_of(crop)
        touched = [t.index for t in tiles if crop.part(t.world) is not None]
        assert set(touched) <= set(named)
        assert [t.index for t in tiles if index in plan.crops_of(t)] == touched


def test_every_tile_of_the_slide_is_written_once() -> None:
    plan = plan_prediction(
        make_pyramid((517, 1030)), make_config(), PredictionConfig(tile_size=128)
    )
    count = np.zeros(plan.shape, np.uint8)
    for tile in plan.tiles():
        y0, x0, y1, x1 = tile.box
        count[y0:y1, x0:x1] += 1
    assert (count == 1).all()
    assert len(plan) == plan.num_tiles == 5 * 9


def test_order_starts_in_the_focus_and_grows_outwards() -> None:
    plan = plan_prediction(
        make_pyramid((1024, 1024)), make_config(), PredictionConfig(tile_size=64)
    )
    order = plan.order(focus=(500, 300, 640, 460))
    boxes = np.array([plan.tile(int(i)).box for i in order])
    hit = (
        (boxes[:, 0] < 640)
        & (boxes[:, 2] > 500)
        & (boxes[:, 1] < 460)
        & (boxes[:, 3] > 300)
    )
    assert hit[: hit.sum()].all()
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = np.hypot(*(centres - (570, 380)).T)
    assert (np.diff(distance[: hit.sum()]) >= 0).all()
    assert (np.diff(distance[hit.sum() :]) >= 0).all()


def test_order_leaves_out_what_is_done_and_keeps_neighbours_together() -> None:
    plan = plan_prediction(
        make_pyramid((512, 512)), make_config(), PredictionConfig(tile_size=64)
    )
    done = np.zeros(plan.num_tiles, bool)
    done[[0, 5, 63]] = True
    order = plan.order(done)
    assert sorted(order.tolist()) == np.flatnonzero(~done).tolist()
    # The Z-curve finishes a square of tiles before it goes on.
    assert set(plan.order()[:16].tolist()) == {
        8 * r + c for r in range(4) for c in range(4)
    }


def test_the_plan_of_a_huge_slide_is_cheap() -> None:
    plan = plan_prediction(
        make_pyramid((10**6, 10**6)), make_config(), PredictionConfig(tile_size=1024)
    )
    assert plan.num_tiles == 977**2
    crops = plan.crops_of(plan.tile(plan.num_tiles - 1))
    assert plan.crop(crops[-1]).padded.boxes[0].upper[0] <= 1e6


def test_a_plan_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from napari_muvit.core.prediction import plan_prediction"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("shape", "changes", "match"),
    [
        ((100, 100), {"in_channels": 3}, "reads 3 channels, but image has 1"),
        ((7, 100), {}, "one patch of 8 x 8"),
        ((100, 100), {"scale_factors": (2, 8)}, "first scale factor is 1"),
        ((100, 100), {"ndim": 3, "embed_dim": 96}, "3 spatial axes"),
        ((100, 100), {"pixel_size": 0.01}, "times as large"),
    ],
)
def test_what_cannot_work_is_refused(
    shape: tuple[int, int], changes: dict[str, Any], match: str
) -> None:
    pyramid = make_pyramid(shape, 1.0)
    with pytest.raises(ConfigError, match=match):
        plan_prediction(pyramid, make_config(**changes), PredictionConfig())


def test_notes_say_what_is_unknown_and_what_is_padded() -> None:
    config = PredictionConfig()
    small = plan_prediction(make_pyramid((100, 300)), make_config(), config)
    assert [("padded" in n) for n in small.notes] == [True]
    unknown = plan_prediction(
        make_pyramid((300, 300)), make_config(pixel_size=0.5), config
    )
    assert "image has no pixel size" in unknown.notes[0]
    model = plan_prediction(make_pyramid((300, 300), 0.5), make_config(), config)
    assert "The model has no pixel size" in model.notes[0]
    fine = plan_prediction(
        make_pyramid((300, 300), 0.5), make_config(pixel_size=0.5), config
    )
    assert fine.notes == ()
