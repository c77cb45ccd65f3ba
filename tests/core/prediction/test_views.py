"""Views: mirrored crops, places of the coarser ones and several models, averaged."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from itertools import product
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
from napari_muvit.core.data.augment import Turn
from napari_muvit.core.data.crops import estimate_normalisation, read_crop
from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel
from napari_muvit.core.errors import ConfigError, OutputError
from napari_muvit.core.geometry import Box, place_fine
from napari_muvit.core.model.checkpoint import save_model
from napari_muvit.core.model.segmenter import MuViTSegmenter, build_model
from napari_muvit.core.prediction import PredictionRun, plan_prediction, predict
from napari_muvit.core.prediction.canvases import Canvases
from napari_muvit.core.prediction.identity import hash_model
from napari_muvit.core.prediction.record import LOCK, PRIVATE
from napari_muvit.core.prediction.views import (
    PLACES,
    list_views,
    place_coarse,
    turn_back,
    turn_boxes,
    turn_pixels,
)
from napari_muvit.core.prediction.worker import BlockJob, run_block

Build = Callable[..., Any]
CROP = 16


def make_model(seed: int = 0, **changes: Any) -> MuViTSegmenter:
    """Return a tiny model whose classes all win somewhere."""
    torch.manual_seed(seed)
    values: dict[str, Any] = {
        "decoder": "pyramid", "attention": "coarse_to_fine", "num_classes": 3,
        "scale_factors": (1, 4), "crop_size": CROP, "embed_dim": 16, "depth": 1,
        "num_heads": 2, "normalisation": "percentile", "background_value": (0.5,),
        "pyramid_channels": (8, 8, 8, 8),
    }  # fmt: skip
    model = build_model(ModelConfig(**(values | changes))).eval()
    levels = len(model.config.scale_factors)
    sizes = torch.tensor(model.config.scale_factors) * CROP / 2
    boxes = torch.stack([torch.stack([-s, s]) for s in sizes])
    with torch.no_grad():
        x = torch.rand(4, levels, 1, CROP, CROP)
        logits = model(x, boxes[None, :, :, None].repeat(4, 1, 1, 2))
        model.decoder.levels[0].head.bias -= logits.mean(dim=(0, 2, 3))
    return model


def cpu(**changes: Any) -> PredictionConfig:
    values = {"tile_size": 64, "batch_size": 5, "device": "cpu", "num_threads": 1}
    return PredictionConfig(**(values | changes))


def make_pyramid(image: np.ndarray) -> Pyramid:
    level = PyramidLevel(ArraySource(image, axes="yx"), (1.0, 1.0), (0.0, 0.0))
    return Pyramid((level,))


def collect(run: PredictionRun) -> np.ndarray:
    labels = np.zeros(run.plan.shape, np.uint8)
    for tile in run:
        y0, x0, y1, x1 = tile.box
        labels[y0:y1, x0:x1] = tile.labels
    return labels


def turned(turn: Turn, image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(turn.pixels(image))


def turns(average: str) -> list[Turn]:
    return [view.turn for view in list_views(1, average, 1)]  # type: ignore[arg-type]


def by_hand(
    pyramid: Pyramid, models: Sequence[nn.Module], run: PredictionRun
) -> np.ndarray:
    """Labels of the plainest way: each view of each crop alone, by the whole model."""
    plan, config = run.plan, run.config
    normalisation = estimate_normalisation(pyramid, "percentile")
    canvases = Canvases(plan, np.ones(plan.num_tiles, bool), 3, torch.device("cpu"))
    labels = np.zeros(plan.shape, np.uint8)
    for index in range(plan.num_crops):
        crop = plan.crop(index)
        answers = []
        for nested in (crop.padded, *crop.elsewhere):
            pixels = read_crop(pyramid, nested, models[0].config, normalisation)
            for turn, model in product(turns(config.average), models):
                x = torch.from_numpy(turned(turn, pixels))[None]
                boxes = torch.from_numpy(turn.boxes(nested.as_array())).float()
                with torch.inference_mode():
                    answers.append(turn_back(turn, model.eval()(x, boxes[None])))
        mean = torch.stack(answers).mean(dim=0)
        for filled in canvases.add([crop], mean):
            y0, x0, y1, x1 = filled.tile.box
            labels[y0:y1, x0:x1] = filled.labels
    return labels


@pytest.mark.parametrize("turn", turns("all"))
def test_turns_are_those_of_training_and_are_undone(turn: Turn) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.random((2, 3, 1, 8, 8), np.float32)
    found = turn_pixels(turn, torch.from_numpy(pixels))
    assert found.is_contiguous()
    assert (found.numpy() == turned(turn, pixels)).all()
    assert (turn_back(turn, found).numpy() == pixels).all()
    corner = rng.integers(-50, 50, (3, 1, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 90, (3, 1, 2))], axis=1)
    ours = turn_boxes(turn, torch.from_numpy(boxes)[None].float(), 64)[0].numpy()
    shift = ours - turn.boxes(boxes.astype(float))
    # Of the world as a whole, and the square itself stays where it is.
    assert (shift == shift[:1, :1]).all()
    square = torch.tensor([[[[0.0, 0.0], [64.0, 64.0]]]])
    assert (turn_boxes(turn, square, 64) == square).all()


def test_how_many_views_there_are() -> None:
    assert [len(set(turns(kind))) for kind in ("none", "flips", "all")] == [1, 4, 8]
    views = list_views(2, "all", 5)
    assert len(set(views)) == len(views) == 80
    assert views[0].turn == Turn.none(2)
    assert [view.model for view in views] == sorted(view.model for view in views)


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(20, 3000), st.integers(20, 3000)),
    factors=st.sampled_from([(1, 4), (1, 8, 32), (1, 2.5, 7.3), (1,)]),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_where_coarser_crops_lie(
    size: tuple[int, int], factors: tuple[float, ...], place: tuple[float, float]
) -> None:
    extent = Box((0, 0), size)
    where = [p * n for p, n in zip(place, size, strict=True)]
    fine = place_fine(where, (CROP, CROP), extent)
    (centred,) = place_coarse(fine, factors, extent, "centred")
    (inside,) = place_coarse(fine, factors, extent, "inside")
    several = place_coarse(fine, factors, extent, "averaged")
    assert len(several) == (len(PLACES) if len(factors) > 1 else 1)
    for box, factor in zip(centred.boxes[1:], factors[1:], strict=True):
        # Up to the pixel grid of its level.
        assert box.centre == pytest.approx(fine.centre, abs=factor / 2)
    for nested in (inside, *several):
        assert nested.boxes[0] == fine
        for box in nested.boxes[1:]:
            for axis in range(2):
                if size[axis] >= box.shape[axis]:
                    assert box.lower[axis] >= -1e-6
                    assert box.upper[axis] <= size[axis] + 1e-6
    far = CROP * max(factors)
    free = all(far < v < n - far for v, n in zip(fine.centre, size, strict=True))
    if free and len(factors) > 1:
        assert len(set(several)) == len(PLACES)


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_all_views_of_a_model_that_does_not_care_are_one_view(
    slide: Build,
    identity_model: Build,
    overlap: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pyramid, add = slide((130, 90)), Canvases.add
    largest: list[float] = []

    def watched(self: Canvases, crops: Sequence[Any], logits: Tensor) -> Any:
        largest.append(float(logits.max()))
        return add(self, crops, logits)

    monkeypatch.setattr(Canvases, "add", watched)
    config = cpu(overlap=overlap, average="all", placement="averaged")
    models = [identity_model(crop_size=32), identity_model(crop_size=32)]
    run = predict(pyramid, models, config)
    assert len(run.plan.views) == 80
    values = np.asarray(pyramid.levels[0].source.read((0, 0), pyramid.shape)[0])
    assert (collect(run) == values + 1).all()
    assert (
        len(models[0].shapes)
        == len(models[1].shapes)
        == 40 * (-(-run.plan.num_crops // 5))
    )


@pytest.mark.parametrize(
    ("models", "changes"),
    [
        (1, {"average": "all", "context": "own"}),
        (1, {"average": "all", "context": "shared"}),
        (1, {"average": "flips", "context": "shared", "overlap": 0.0}),
        (1, {"placement": "centred"}),
        (1, {"placement": "averaged"}),
        (2, {"average": "flips", "placement": "averaged", "overlap": 0.0}),
        (2, {"context": "shared"}),
    ],
)
def test_answers_are_those_by_hand(
    slide: Build, models: int, changes: dict[str, Any]
) -> None:
    pyramid = slide((40, 35))
    given = [make_model(seed, scale_factors=(1, 4, 8)) for seed in range(models)]
    run = predict(pyramid, given, cpu(**changes))
    assert (run.plan.contexts is not None) == (changes.get("context") == "shared")
    found = collect(run)
    assert len(np.unique(found)) == 3
    assert (found != by_hand(pyramid, given, run)).mean() < 1e-3
    assert (found != collect(predict(pyramid, given[0], cpu(overlap=0.5)))).any()


@pytest.mark.parametrize("context", ["own", "shared"])
@pytest.mark.parametrize("factors", [(1, 4), (1, 4, 8)])
def test_a_mirrored_slide_has_mirrored_labels(
    context: str, factors: tuple[int, ...]
) -> None:
    # Of a size at which the grids of crops are their own mirror images.
    image = np.random.default_rng(0).integers(0, 9, (64, 64)).astype(np.uint8)
    model = make_model(scale_factors=factors)
    config = cpu(context=context, overlap=0.0)
    for turn in turns("all")[1::3]:
        pair = make_pyramid(image), make_pyramid(turned(turn, image))
        one, other = (collect(predict(p, model, config)) for p in pair)
        assert (turned(turn, one) != other).mean() > 0.05
        every = dataclasses.replace(config, average="all")
        one, other = (collect(predict(p, model, every)) for p in pair)
        assert (turned(turn, one) != other).mean() < 1e-3


def test_padding_lies_beyond_the_slide_only_where_it_was_asked_for(
    identity_model: Build,
) -> None:
    pyramid = make_pyramid(np.ones((200, 200), np.uint8))
    model = identity_model(crop_size=32, background_value=(3.0,))
    inputs: list[Tensor] = []
    model.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    for placement in ("inside", "averaged", "centred"):
        inputs.clear()
        collect(predict(pyramid, model, cpu(placement=placement)))
        padded = any(bool((x[:, 1] == 3).any()) for x in inputs)
        assert padded == (placement == "centred")


@pytest.mark.parametrize("changes", [{"placement": "averaged"}, {"average": "all"}])
def test_a_region_changes_no_pixel(slide: Build, changes: dict[str, Any]) -> None:
    pyramid, model = slide((150, 140)), make_model()
    expected = collect(predict(pyramid, model, cpu(**changes)))
    part = collect(predict(pyramid, model, cpu(region=(70, 70, 80, 80), **changes)))
    assert (part[64:128, 64:128] == expected[64:128, 64:128]).all()


def test_memory_that_runs_out_between_two_views_changes_nothing(
    slide: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyramid, model = slide((70, 60)), make_model()
    config = cpu(average="flips", context="own")
    expected = collect(predict(pyramid, model, config))
    forward, calls = MuViTSegmenter.forward, [0]

    def full(self: Any, x: Tensor, bboxes: Tensor) -> Any:
        calls[0] += 1
        if calls[0] in (7, 11):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, x, bboxes)

    monkeypatch.setattr(MuViTSegmenter, "forward", full)
    said: list[str] = []
    run = predict(
        pyramid, model, config, on_progress=lambda event: said.append(event.message)
    )
    # A batch of another shape may answer differently in the last digit.
    assert (collect(run) != expected).mean() < 1e-3
    assert sum("ran out" in text for text in said) == 2


def test_several_models_are_known_by_all_of_their_hashes(
    slide: Build, tmp_path: Path
) -> None:
    pyramid, models = slide((70, 45)), [make_model(0), make_model(1)]
    hashes = [hash_model(model, model.config) for model in models]
    collect(predict(pyramid, models[0], cpu(), tmp_path / "one.zarr"))
    run = predict(pyramid, models, cpu(), tmp_path / "two.zarr")
    labels = collect(run)
    for name, wanted in (("one", hashes[0]), ("two", "+".join(hashes))):
        record = json.loads((tmp_path / f"{name}.zarr/.muvit/run.json").read_text())
        assert record["identity"]["model"] == wanted
    assert record["model"] == "MuViTSegmenter + MuViTSegmenter"
    with pytest.raises(OutputError, match="with other model; choose"):
        predict(pyramid, models[0], cpu(), tmp_path / "two.zarr")
    with pytest.raises(OutputError, match="with other settings; choose"):
        predict(pyramid, models, cpu(average="flips"), tmp_path / "two.zarr")
    assert (labels != collect(predict(pyramid, models[1], cpu()))).any()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scale_factors": (1, 8)}, "scale_factors"),
        ({"crop_size": 32}, "crop_size"),
        ({"num_classes": 4}, "num_classes"),
        ({"class_names": ("a", "b", "c")}, "class_names"),
        ({"pixel_size": 0.5}, "pixel_size"),
        ({"normalisation": "uint8"}, "normalisation"),
        ({"background_value": (0.6,)}, "background_value"),
        ({"boxes": "naive"}, "boxes"),
        ({"in_channels": 3, "background_value": None}, "in_channels"),
    ],
)
def test_models_that_do_not_read_the_same(
    slide: Build, changes: dict[str, Any], named: str
) -> None:
    first = make_model()
    other = build_model(dataclasses.replace(
        first.config, class_colors=None, **{"class_names": None, **changes}
    ))  # fmt: skip
    with pytest.raises(ConfigError, match=f"Models 1 and 3 differ in {named} "):
        predict(slide((70, 45)), [first, make_model(1), other], cpu())
    with pytest.raises(ConfigError, match="at least one is needed"):
        predict(slide((70, 45)), [], cpu())


def test_models_of_other_networks_share_context_only_if_all_can(slide: Build) -> None:
    pyramid, first = slide((70, 45)), make_model()
    joint = make_model(1, attention="joint", background_value=(0.52,))
    wide = make_model(1, embed_dim=32, num_heads=4)
    assert predict(pyramid, [first, wide], cpu()).plan.contexts is not None
    run = predict(pyramid, [first, joint], cpu())
    assert run.plan.contexts is None
    assert (collect(run) != by_hand(pyramid, [first, joint], run)).mean() < 1e-3
    with pytest.raises(ConfigError, match="One of the models cannot share context"):
        predict(pyramid, [first, joint], cpu(context="shared"))


def test_a_block_by_several_models_has_the_bytes_of_a_whole_run(
    zarr_slide: Build, tmp_path: Path
) -> None:
    pyramid, out = zarr_slide((70, 130)), tmp_path / "out.zarr"
    models = [make_model(0), make_model(1)]
    folders = [tmp_path / "a", tmp_path / "b"]
    for model, folder in zip(models, folders, strict=True):
        save_model(model, folder)
    config = cpu(average="flips")
    expected = collect(predict(pyramid, models, config))
    run = predict(pyramid, folders, config, out)
    hashes = tuple(hash_model(model, model.config) for model in models)
    tiles = (1, 5)
    lock = (out / PRIVATE / LOCK).read_text()
    job = BlockJob(
        pyramid, tuple(map(str, folders)), hashes, run.normalisation, config, str(out),
        lock, tiles,
    )  # fmt: skip
    assert sorted(run_block(job).tiles) == list(tiles)
    run.close()
    for index in tiles:
        y0, x0, y1, x1 = run.plan.tile(index).box
        assert run.levels is not None
        assert (run.levels[0][y0:y1, x0:x1] == expected[y0:y1, x0:x1]).all()


@pytest.mark.slow
def test_two_workers_with_two_models_write_the_bytes_of_one(
    zarr_slide: Build, tmp_path: Path
) -> None:
    pyramid = zarr_slide((300, 100))
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        save_model(make_model(seed), folder)
    one = predict(pyramid, folders, cpu(average="all"), tmp_path / "one.zarr")
    two = predict(
        pyramid, folders, cpu(average="all", workers=2), tmp_path / "two.zarr"
    )
    assert (collect(one) == collect(two)).all()


def test_what_cannot_be_turned_or_placed_is_refused() -> None:
    config, pyramid = cpu(average="all"), make_pyramid(np.zeros((64, 64), np.uint8))
    tall = dataclasses.replace(make_model().config, patch_size=(8, 4))
    with pytest.raises(ConfigError, match="patches of 8 x 4: it can be mirrored"):
        plan_prediction(pyramid, tall, config)
    flips = plan_prediction(pyramid, tall, cpu(average="flips"))
    assert flips.notes[-1] == (
        "Each crop takes 4 passes (4 mirrored or turned views), which are averaged."
    )
    flat = dataclasses.replace(pyramid, pixel_size=(2.0, 0.5))
    with pytest.raises(ConfigError, match=r"in pixels of 2 x 0\.5"):
        plan_prediction(flat, make_model().config, config)
    # A model that knows its pixel size reads square ones of any slide.
    square = dataclasses.replace(make_model().config, pixel_size=0.5)
    assert len(plan_prediction(flat, square, config).views) == 8
    with pytest.raises(ConfigError, match="placement is centred; choose context own"):
        cpu(context="shared", placement="centred")
    with pytest.raises(ConfigError, match="average"):
        cpu(average="some")
