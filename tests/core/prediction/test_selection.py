"""Which tiles are done: outlines exactly, tissue with a margin; the rest stays 0."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.config import PredictionConfig
from napari_muvit.core.data.arrays import ArraySource
from napari_muvit.core.data.polygons import Polygon
from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel
from napari_muvit.core.data.tissue import TissueMask
from napari_muvit.core.errors import (
    AnnotationError,
    Cancelled,
    ConfigError,
    ImageNotFoundError,
)
from napari_muvit.core.geometry import Box
from napari_muvit.core.prediction import plan_prediction, predict
from napari_muvit.core.prediction.blocks import count_work, in_shard
from napari_muvit.core.prediction.outlined import read_outlines, touched_tiles
from napari_muvit.core.prediction.selection import MARGIN, tissue_tiles

Build = Callable[..., Any]
SQUARE = ((70.0, 70.0), (70.0, 120.0), (120.0, 120.0), (120.0, 70.0))


def cpu(**changes: Any) -> PredictionConfig:
    values = {"tile_size": 64, "batch_size": 4, "device": "cpu", "num_threads": 1}
    return PredictionConfig(**(values | changes))


def star(rng: np.random.Generator, centre: Any, radius: float, count: int) -> Any:
    """A ring without crossings."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    radii = radius * rng.uniform(0.3, 1, count)
    return centre + (radii * np.stack([np.sin(angles), np.cos(angles)])).T


def area_in(ring: Any, box: tuple[float, float, float, float]) -> float:
    """Area of a ring's part in a box (Sutherland and Hodgman)."""
    points = [tuple(p) for p in ring]
    for axis, edge, sign in ((0, box[0], 1), (1, box[1], 1), (0, box[2], -1),
                             (1, box[3], -1)):  # fmt: skip
        kept = []
        for a, b in zip(points, [*points[1:], *points[:1]], strict=True):
            u, v = sign * (a[axis] - edge), sign * (b[axis] - edge)
            if u >= 0:
                kept.append(a)
            if u * v < 0:
                share = u / (u - v)
                kept.append(tuple(p + share * (q - p) for p, q in zip(a, b)))  # noqa: B905
        points = kept
        if not points:
            return 0.0
    y, x = np.array(points).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(20, 300),
    width=st.integers(20, 300),
    tile=st.sampled_from([16, 64]),
    whole=st.booleans(),
)
def test_a_tile_is_touched_where_an_area_has_a_part_in_it(
    seed: int, height: int, width: int, tile: int, whole: bool
) -> None:
    rng = np.random.default_rng(seed)
    centre = rng.uniform((-50, -50), (height + 50, width + 50))
    outer = star(rng, centre, 150, 9)
    # Inside of the outer ring, or there is none.
    hole = centre + 0.6 * (outer - centre)
    if whole:
        # On the borders of tiles, where touching is not enough.
        outer, hole = (tile * np.round(ring / tile) for ring in (outer, hole))
        hole = outer
    holes = () if whole else (hole,)
    found = touched_tiles([Polygon(1, outer, holes)], (height, width), tile)
    for row, column in np.ndindex(found.shape):
        y, x = row * tile, column * tile
        box = (y, x, min(y + tile, height), min(x + tile, width))
        area = area_in(outer, box) - sum(area_in(h, box) for h in holes)
        if abs(area) > 1e-6:
            assert found[row, column], (row, column, area)
        elif not whole:
            assert not found[row, column], (row, column, area)


def test_a_tile_within_a_hole_is_not_touched_and_one_within_an_area_is() -> None:
    outer = np.array([(0, 0), (0, 640), (640, 640), (640, 0)], float)
    hole = np.array([(128, 128), (128, 512), (512, 512), (512, 128)], float)
    found = touched_tiles([Polygon(1, outer, (hole,))], (700, 700), 64)
    wanted = np.zeros((11, 11), bool)
    wanted[:10, :10] = True
    wanted[2:8, 2:8] = False
    np.testing.assert_array_equal(found, wanted)
    # An area that ends at the slide's end, seen from outside.
    beyond = np.array([(700, 0), (700, 700), (900, 700), (900, 0)], float)
    assert not touched_tiles([Polygon(1, beyond)], (700, 700), 64).any()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(70, 700),
    width=st.integers(70, 700),
    cells=st.integers(3, 40),
)
def test_tissue_tiles_are_those_that_the_mask_touches(
    seed: int, height: int, width: int, cells: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((cells, cells + 1)) < 0.05
    extent = Box((0.0, 0.0), (float(height + 2), float(width + 1)))
    tissue = TissueMask(mask, extent, "dark")
    array = np.broadcast_to(np.zeros((), np.uint8), (height, width))
    level = PyramidLevel(ArraySource(array, axes="yx"), (1.0, 1.0), (0.0, 0.0))
    plan = plan_prediction(Pyramid((level,)), model_config(), cpu())
    found = tissue_tiles(plan, tissue)
    grown = [MARGIN * step for step in tissue.step]
    for index in range(plan.num_tiles):
        (y0, y1), (x0, x1) = plan.tile(index).world
        lower, upper = (y0 - grown[0], x0 - grown[1]), (y1 + grown[0], x1 + grown[1])
        assert found.flat[index] == tissue.touches(Box(lower, upper))


def model_config(**changes: Any) -> Any:
    from napari_muvit.core.config import ModelConfig

    values = {"scale_factors": (1, 4), "crop_size": 64, "patch_size": 8}
    return ModelConfig(**(values | changes))


def test_a_plan_counts_and_orders_what_outlines_leave() -> None:
    array = np.broadcast_to(np.zeros((), np.uint8), (640, 640))
    level = PyramidLevel(ArraySource(array, axes="yx"), (1.0, 1.0), (0.0, 0.0))
    far = tuple((y + 400, x + 300) for y, x in SQUARE)
    config = cpu(outlines=((SQUARE,), (far,)))
    plan = plan_prediction(Pyramid((level,)), model_config(), config)
    wanted = [1 * 10 + 1, 7 * 10 + 5, 7 * 10 + 6, 8 * 10 + 5, 8 * 10 + 6]
    assert plan.indices().tolist() == [tile.index for tile in plan.tiles()] == wanted
    assert len(plan) == 5
    assert sorted(plan.order()) == wanted
    assert plan.order(focus=(520, 400, 530, 410)).tolist()[-1] == 11
    done = np.zeros(100, bool)
    done[11] = True
    assert sorted(plan.order(done)) == wanted[1:]
    tiles, crops, _ = count_work(plan)
    assert tiles == 5
    assert crops == len({c for tile in plan.tiles() for c in plan.crops_of(tile)})
    parts = [count_work(plan, (i, 3))[0] for i in range(3)]
    assert sum(parts) == 5
    assert in_shard(plan, (0, 1)).all()
    # Region and outlines: what both touch.
    region = cpu(outlines=config.outlines, region=(0, 0, 200, 200))
    plan = plan_prediction(Pyramid((level,)), model_config(), region)
    assert plan.indices().tolist() == [11]


def test_outlined_tiles_are_those_of_the_whole_slide_and_the_rest_follows(
    zarr_slide: Build, identity_model: Build, tmp_path: Path
) -> None:
    pyramid, model = zarr_slide((300, 400)), identity_model()
    out = tmp_path / "out.zarr"
    run = predict(pyramid, model, cpu(outlines=((SQUARE,),)), out)
    assert [tile.index for tile in run] == [8]
    labels = zarr.open_array(out / "0")[:]
    assert (labels[64:128, 64:128] > 0).all()
    assert np.count_nonzero(labels) == 64 * 64
    assert predict(pyramid, model, cpu(outlines=((SQUARE,),)), out).finished_before
    rest = predict(pyramid, model, cpu(), out)
    assert len(list(rest)) == rest.plan.num_tiles - 1
    whole = tmp_path / "whole.zarr"
    list(predict(pyramid, model, cpu(), whole))
    np.testing.assert_array_equal(
        zarr.open_array(out / "0")[:], zarr.open_array(whole / "0")[:]
    )


def test_shards_of_a_part_of_a_slide_complete_the_coarse_levels(
    zarr_slide: Build, identity_model: Build, tmp_path: Path
) -> None:
    pyramid, model = zarr_slide((600, 500)), identity_model()
    out = tmp_path / "out.zarr"
    for part in range(2):
        config = cpu(outlines=((SQUARE,),), shard=(part, 2))
        list(predict(pyramid, model, config, out))
    coarse = zarr.open_array(out / "1")[:]
    assert np.count_nonzero(coarse) == 32 * 32


@pytest.fixture
def stained() -> Pyramid:
    """A bright RGB slide with a dark spot."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(235, 245, (3, 600, 900)).astype(np.uint8)
    pixels[:, 100:200, 500:640] = rng.integers(60, 160, (3, 100, 140))
    level = PyramidLevel(ArraySource(pixels, axes="cyx"), (1.0, 1.0), (0.0, 0.0))
    return Pyramid((level,), rgb=True, name="spot")


def test_tiles_without_tissue_are_skipped_and_may_follow(
    stained: Pyramid, identity_model: Build, tmp_path: Path
) -> None:
    model = identity_model(in_channels=3)
    out = tmp_path / "out.zarr"
    run = predict(stained, model, cpu(tissue=True), out)
    said = run.plan.notes[-1]
    assert said.startswith(f"{150 - len(run.plan)} of 150 tiles")
    assert len(list(run)) == len(run.plan) < 30
    labels = zarr.open_array(out / "0")[:]
    assert (labels[100:200, 500:640] > 0).all()
    assert (labels[300:] == 0).all()
    assert predict(stained, model, cpu(tissue=True), out).finished_before
    rest = predict(stained, model, cpu(), out)
    assert len(list(rest)) == 150 - len(run.plan)
    assert (zarr.open_array(out / "0")[:] > 0).all()


def test_without_background_or_tissue_all_is_predicted_and_said(slide: Build) -> None:
    noise = slide((200, 300))
    plan = plan_prediction(noise, model_config(), cpu(tissue=True))
    assert plan.chosen is None
    assert plan.notes[-1] == "No tissue was found on image, so nothing is skipped."
    level = PyramidLevel(ArraySource(
        np.full((3, 200, 300), 120, np.uint8), axes="cyx"), (1.0, 1.0), (0.0, 0.0)
    )  # fmt: skip
    full = Pyramid((level,), rgb=True)
    plan = plan_prediction(full, model_config(in_channels=3), cpu(tissue=True))
    assert plan.chosen is None
    assert plan.notes[-1] == "No background was found on image, so nothing is skipped."


def test_a_region_without_tissue_is_an_error(stained: Pyramid) -> None:
    config = cpu(tissue=True, region=(450, 0, 600, 200))
    with pytest.raises(ConfigError, match="No tissue was found where spot"):
        plan_prediction(stained, model_config(in_channels=3), config)


def test_a_look_for_tissue_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch, stained: Pyramid, identity_model: Build
) -> None:
    monkeypatch.setattr("napari_muvit.core.data.tissue.CHEAP_PIXELS", 1)
    with pytest.raises(Cancelled):
        predict(
            stained, identity_model(in_channels=3), cpu(tissue=True),
            should_stop=lambda: True,
        )  # fmt: skip


def test_outlines_elsewhere_are_an_error_or_a_note(slide: Build) -> None:
    far = tuple((y + 4000, x) for y, x in SQUARE)
    with pytest.raises(ConfigError, match=r"None of the 1 outlines lies on image"):
        plan_prediction(slide((200, 300)), model_config(), cpu(outlines=((far,),)))
    config = cpu(outlines=((far,), (SQUARE,)))
    plan = plan_prediction(slide((200, 300)), model_config(), config)
    assert plan.notes[-1] == "1 of 2 outlines lie outside image."


@pytest.mark.parametrize(
    "outlines",
    [((),), ((((0, 0), (1, 1)),),), ((((0, 0), (1, 1), (2, float("nan"))),),), "x"],
)
def test_broken_outlines_are_refused(outlines: Any) -> None:
    with pytest.raises(ConfigError, match="outline"):
        cpu(outlines=outlines)


def test_outlines_go_through_json() -> None:
    config = cpu(outlines=((SQUARE, SQUARE),), tissue=True)
    again = PredictionConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config


def feature(name: str | None, x: float, y: float) -> dict[str, Any]:
    ring = [[x, y], [x + 9, y], [x + 9, y + 5], [x, y]]
    properties = {} if name is None else {"classification": {"name": name}}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def test_areas_of_a_file_are_read_whatever_their_class(tmp_path: Path) -> None:
    path = tmp_path / "areas.geojson"
    features = [
        feature(None, 1, 2),
        feature("tumour", 50, 60),
        feature("Ignore*", 0, 0),
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    first, second = read_outlines(path)
    assert first == (((2.0, 1.0), (2.0, 10.0), (7.0, 10.0)),)
    assert second[0][0] == (60.0, 50.0)
    path.write_text(json.dumps(features[2:]))
    with pytest.raises(AnnotationError, match="holds no area"):
        read_outlines(path)
    with pytest.raises(ImageNotFoundError):
        read_outlines(tmp_path / "nowhere.geojson")
