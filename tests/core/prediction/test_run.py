"""The run: an identity model returns its input, whatever the tiling."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch import Tensor, nn

from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data import identity, level_cache
from napari_muvit.core.data.arrays import ArraySource
from napari_muvit.core.data.cache_settings import CacheSettings
from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel
from napari_muvit.core.errors import ConfigError, PyramidError
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.prediction import PredictionRun, predict
from napari_muvit.core.progress import Progress

Build = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Any:
    yield
    names = [t.name for t in threading.enumerate()]
    assert not [name for name in names if name.startswith("muvit-prediction")]


def cpu(**changes: Any) -> PredictionConfig:
    values = {"tile_size": 64, "batch_size": 5, "device": "cpu", "num_threads": 1}
    return PredictionConfig(**(values | changes))


def collect(run: PredictionRun) -> np.ndarray:
    """All tiles in one array, after checking that each pixel came once."""
    labels = np.zeros(run.plan.shape, np.uint8)
    count = np.zeros(run.plan.shape, np.uint8)
    for tile in run:
        y0, x0, y1, x1 = tile.box
        labels[y0:y1, x0:x1] = tile.labels
        count[y0:y1, x0:x1] += 1
    assert count.max() == 1
    assert ((count == 1) == (labels > 0)).all()
    return labels


def count_done(out: Path) -> int:
    """Tiles that are marked."""
    return sum(byte > 0 for byte in (out / ".muvit" / "done").read_bytes())


def values_of(pyramid: Pyramid) -> np.ndarray:
    return np.asarray(pyramid.levels[0].source.read((0, 0), pyramid.shape)[0])


@pytest.mark.parametrize("shape", [(64, 64), (201, 133), (40, 300), (65, 31)])
@pytest.mark.parametrize(
    ("overlap", "crop", "batch"),
    [(0.0, 64, 3), (0.25, 64, 5), (0.5, 32, 16), (0.9, 64, 7), (0.3, 128, 1)],
)
def test_identity(
    slide: Build,
    identity_model: Build,
    shape: tuple[int, int],
    overlap: float,
    crop: int,
    batch: int,
) -> None:
    pyramid, model = slide(shape), identity_model(crop_size=crop)
    run = predict(pyramid, model, cpu(overlap=overlap, batch_size=batch))
    assert (collect(run) == values_of(pyramid) + 1).all()
    assert len(set(model.shapes)) == 1
    assert model.shapes[0][0] == run.plan.batch_size <= batch
    assert run.levels is None
    assert not run.stopped


def test_a_region_gives_its_tiles_the_same_pixels(
    slide: Build, identity_model: Build
) -> None:
    pyramid, model = slide((300, 300)), identity_model()
    run = predict(pyramid, model, cpu(region=(70, 100.5, 130, 190)))
    labels = collect(run)
    assert (labels[64:192, 64:192] == values_of(pyramid)[64:192, 64:192] + 1).all()
    assert np.count_nonzero(labels) == 128 * 128


@pytest.mark.parametrize("own", [0.5, 2.0, 0.7])
def test_a_slide_with_another_pixel_size_comes_back_on_its_own_grid(
    identity_model: Build, own: float
) -> None:
    # Blocks of one class stay what they are away from their edges.
    blocks = np.random.default_rng(0).integers(0, 4, (8, 9), dtype=np.uint8)
    values = np.kron(blocks, np.ones((24, 24), np.uint8))[:190, :211]
    level = PyramidLevel(ArraySource(values, axes="yx"), (1.0, 1.0), (0.0, 0.0))
    pyramid = Pyramid((level,), pixel_size=(own, own))
    run = predict(pyramid, identity_model(pixel_size=1.0), cpu())
    labels = collect(run)
    assert labels.shape == (190, 211)
    inner = [i for i in range(190) if 4 <= i % 24 < 20]
    columns = [i for i in range(211) if 4 <= i % 24 < 20]
    where = np.ix_(inner, columns)
    assert (labels[where] == values[where] + 1).all()


def test_boxes_are_relative_to_the_finest_corner(
    slide: Build, identity_model: Build
) -> None:
    model = identity_model()
    collect(predict(slide((400, 400)), model, cpu()))
    boxes = torch.cat(model.boxes)
    assert (boxes[:, 0, 0] == 0).all()
    assert (boxes[:, 0, 1] == 64).all()
    assert (boxes[:, 1, 1] - boxes[:, 1, 0] == 256).all()
    assert len({tuple(b.flatten().tolist()) for b in boxes}) > 1


def test_naive_boxes_are_all_the_same(slide: Build, identity_model: Build) -> None:
    model = identity_model(boxes="naive")
    collect(predict(slide((400, 400)), model, cpu()))
    boxes = torch.cat(model.boxes)
    assert (boxes == boxes[:1]).all()
    assert boxes[0, 1].tolist() == [[-96.0, -96.0], [160.0, 160.0]]


def test_focus_moves_tiles_to_the_front(slide: Build, identity_model: Build) -> None:
    run = predict(slide((640, 640)), identity_model(), cpu(batch_size=4))
    boxes = []
    for tile in run:
        boxes.append(tile.box)
        if len(boxes) == 3:
            run.focus((500, 500, 630, 630))
    place = boxes.index((512, 512, 576, 576))
    # What was being read goes first: two threads' batches and one that waits, of four
    # crops each, and there is about one crop to a tile that was not begun before.
    assert place < 3 + 12 + 1
    assert len(set(boxes)) == 100


def test_progress_counts_tiles_and_brings_the_notes(
    slide: Build, identity_model: Build
) -> None:
    events: list[Progress] = []
    run = predict(slide((130, 70)), identity_model(), cpu(), on_progress=events.append)
    tiles = list(run)
    assert [e.done for e in events] == [0, 1, 2, 3, 4, 5, 6]
    assert {(e.stage, e.total, e.unit) for e in events} == {("predict", 6, "tile")}
    assert [(t.done, t.total) for t in tiles] == [(i, 6) for i in range(1, 7)]
    assert "padded" in events[0].message


def test_should_stop_ends_the_iteration_between_batches(
    slide: Build, identity_model: Build
) -> None:
    seen: list[int] = []
    run = predict(
        slide((640, 640)), identity_model(), cpu(), should_stop=lambda: len(seen) > 4
    )
    for tile in run:
        seen.append(tile.index)
        time.sleep(0.06)
    assert run.stopped
    assert 4 < len(seen) < 12


def test_stop_reaches_into_a_long_pass(slide: Build, identity_model: Build) -> None:
    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            time.sleep(0.1)
            return x

    model = identity_model()
    model.stage = nn.Sequential(*[Slow() for _ in range(100)])
    run = predict(slide((200, 200)), model, cpu())
    timer = threading.Timer(0.3, run.stop)
    timer.start()
    start = time.monotonic()
    assert list(run) == []
    assert run.stopped
    assert time.monotonic() - start < 2
    timer.join()
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_model_in_training_is_given_back_as_it_was(
    slide: Build, identity_model: Build
) -> None:
    model = identity_model().train()
    model.stage.eval()
    threads = torch.get_num_threads()
    for _ in predict(slide((70, 70)), model, cpu(num_threads=1)):
        assert not model.training
        assert torch.get_num_threads() == 1
        assert not torch.is_inference_mode_enabled()
    assert model.training
    assert not model.stage.training
    assert torch.get_num_threads() == threads


def test_leaving_the_loop_ends_the_thread(slide: Build, identity_model: Build) -> None:
    run = predict(slide((640, 640)), identity_model(), cpu())
    for _ in run:
        break
    with pytest.raises(RuntimeError, match="iterated over"):
        iter(run)


def test_answers_that_are_not_numbers_become_zero_and_are_reported_once(
    slide: Build, identity_model: Build
) -> None:
    model = identity_model()
    with torch.no_grad():
        model.gain.fill_(float("nan"))
    events: list[Progress] = []
    run = predict(slide((130, 70)), model, cpu(), on_progress=events.append)
    assert all((tile.labels == 0).all() for tile in run)
    assert sum("not a number" in e.message for e in events) == 1


def test_a_broken_chunk_costs_its_tile_and_is_one_clear_error_at_the_end(
    zarr_slide: Build,
    identity_model: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Else the broken chunk is met before the first tile.
    monkeypatch.setattr(identity, "SAMPLED_BLOCKS", 0)
    pyramid = zarr_slide((256, 256))
    (pyramid.path / "c" / "3" / "3").write_bytes(b"broken")
    model, out = identity_model(scale_factors=(1,)), tmp_path / "out.zarr"
    run = predict(pyramid, model, cpu(overlap=0, batch_size=1), out)
    match = "1 of 16 tiles could not be read.* around rows 192 to 256"
    with pytest.raises(PyramidError, match=match):
        list(run)
    assert run.failed == [(192, 192, 256, 256)]
    assert count_done(out) == 15
    labels = np.asarray(zarr.open_array(out / "0", mode="r")[:])
    assert np.count_nonzero(labels) == 64 * 64 * 15
    assert not labels[192:, 192:].any()
    # Repaired, the run goes on and does that tile alone.
    zarr.open_array(pyramid.path, mode="r+")[192:, 192:] = 0
    again = predict(pyramid, model, cpu(overlap=0, batch_size=1), out)
    boxes = [tile.box for tile in again]
    assert boxes == [(192, 192, 256, 256)]


def test_a_batch_that_does_not_fit_is_halved_and_gives_the_same_labels(
    slide: Build, identity_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyramid, model = slide((200, 300)), identity_model()
    expected = collect(predict(pyramid, model, cpu(batch_size=6)))
    forward, room = type(model).forward, [2]

    def small(self: Any, x: Tensor, bboxes: Tensor) -> Tensor:
        if len(x) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, x, bboxes)

    monkeypatch.setattr(type(model), "forward", small)
    events: list[Progress] = []
    run = predict(pyramid, model, cpu(batch_size=6), on_progress=events.append)
    assert (collect(run) == expected).all()
    said = [e.message for e in events if "ran out" in e.message]
    assert said == [
        "The memory of cpu ran out; going on with 3 crops at a time.",
        "The memory of cpu ran out; going on with 2 crops at a time.",
    ]
    room[0] = 0
    with pytest.raises(ConfigError, match="A single crop does not fit"):
        collect(predict(pyramid, model, cpu(batch_size=6)))


def test_a_zarr_that_vanishes_is_not_read_as_zeros(
    zarr_slide: Build, identity_model: Build, tmp_path: Path
) -> None:
    pyramid = zarr_slide((512, 512))
    model, out = identity_model(scale_factors=(1,)), tmp_path / "out.zarr"
    run = predict(pyramid, model, cpu(overlap=0, batch_size=1), out)
    tiles = iter(run)
    next(tiles)
    shutil.rmtree(pyramid.path)
    with pytest.raises(PyramidError, match="There is no image at"):
        list(tiles)


def test_a_slide_that_cannot_be_read_at_all(
    zarr_slide: Build, identity_model: Build, tmp_path: Path
) -> None:
    pyramid = zarr_slide((64, 64))
    (pyramid.path / "c" / "0" / "0").write_bytes(b"broken")
    with pytest.raises(PyramidError, match="slide cannot be read"):
        predict(pyramid, identity_model(), cpu(), tmp_path / "out.zarr")


def test_a_model_without_a_configuration_is_refused(slide: Build) -> None:
    with pytest.raises(ConfigError, match="ModelConfig"):
        predict(slide((64, 64)), nn.Identity(), cpu())


class Centred(nn.Module):
    """An untrained segmenter without its preference for one class."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.segmenter = build_model(config)

    def forward(self, x: Tensor, bboxes: Tensor) -> Tensor:
        logits = self.segmenter(x, bboxes)
        return logits - logits.mean(dim=(2, 3), keepdim=True)


def test_a_real_model_answers_the_same_in_any_order(slide: Build) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        decoder="pyramid",
        scale_factors=(1, 4),
        num_classes=3,
        crop_size=64,
        embed_dim=32,
        depth=1,
        num_heads=2,
        normalisation="percentile",
    )
    pyramid, model = slide((130, 200)), Centred(config)
    expected = collect(predict(pyramid, model, cpu()))
    assert len(np.unique(expected)) == 3
    run = predict(pyramid, model, cpu())
    run.focus((100, 150, 110, 160))
    assert (collect(run) == expected).all()
    part = predict(pyramid, model, cpu(region=(70, 130, 80, 140)))
    assert (collect(part)[64:128, 128:192] == expected[64:128, 128:192]).all()


def test_a_prediction_is_the_same_with_and_without_a_cache(
    zarr_slide: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(level_cache, "DEAR_PIXELS", 1)
    torch.manual_seed(0)
    config = ModelConfig(
        decoder="pyramid", scale_factors=(1, 8), num_classes=3, crop_size=64,
        embed_dim=32, depth=1, num_heads=2, normalisation="percentile",
    )  # fmt: skip
    pyramid, model = zarr_slide((330, 260)), Centred(config)
    off = CacheSettings(enabled=False)
    on = CacheSettings(folder=tmp_path / "cache")
    expected = collect(predict(pyramid, model, cpu(), cache=off))
    # A region uses what is there, but makes nothing.
    out = tmp_path / "out.zarr"
    collect(predict(pyramid, model, cpu(region=(0, 0, 64, 64)), out, cache=on))
    assert not on.folder.exists()
    events: list[Progress] = []
    run = predict(pyramid, model, cpu(), out, on_progress=events.append, cache=on)
    assert 0 < len(list(run)) < len(run.plan)
    assert {e.stage for e in events} == {"levels", "predict"}
    assert list(on.folder.glob("*/*/0/zarr.json"))
    np.testing.assert_array_equal(zarr.open_array(out / "0", mode="r")[:], expected)
    # Without the cache it is known as finished.
    assert predict(pyramid, model, cpu(), out, cache=off).finished_before


def test_stop_reaches_into_the_building_of_levels(
    zarr_slide: Build, identity_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(level_cache, "DEAR_PIXELS", 1)
    model = identity_model(scale_factors=(1, 8))
    run: PredictionRun

    def stop(event: Progress) -> None:
        if event.stage == "levels":
            run.stop()

    run = predict(zarr_slide((900, 900)), model, cpu(), on_progress=stop)
    assert list(run) == []
    assert run.stopped
