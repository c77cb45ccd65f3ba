"""Previews: the right label at the right place, and never in the output."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.arrays import ArraySource
from napari_muvit.core.data.crops import estimate_normalisation, read_boxes
from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel
from napari_muvit.core.errors import Cancelled, ConfigError
from napari_muvit.core.geometry import Box, NestedCrop
from napari_muvit.core.model.segmenter import MuViTSegmenter, build_model
from napari_muvit.core.model.shared_context import compute_context
from napari_muvit.core.prediction import plan_prediction, predict
from napari_muvit.core.prediction.contexts import ContextGrid
from napari_muvit.core.prediction.preview import Preview
from napari_muvit.core.prediction.preview_paint import preview_slide
from napari_muvit.core.prediction.run import PredictionRun
from napari_muvit.core.progress import Progress

Build = Callable[..., Any]


def make_model(**changes: Any) -> MuViTSegmenter:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "decoder": "pyramid", "attention": "coarse_to_fine", "num_classes": 3,
        "scale_factors": (1, 2, 4), "crop_size": 16, "embed_dim": 16, "depth": 1,
        "num_heads": 2, "normalisation": "none", "pyramid_channels": (8, 8, 8, 8),
    }  # fmt: skip
    return build_model(ModelConfig(**(values | changes))).eval()


class Thresholds(torch.nn.Module):
    """A head that sees the first feature, which is made the pixel itself."""

    def forward(self, x: Tensor) -> Tensor:
        value = x[:, :1]
        return torch.cat([-value, value - 1.0, 4 * value - 8.0], dim=1)


class PixelStage(torch.nn.Module):
    """In place of a level's decoder: its features are its pixels."""

    def forward(
        self, pixels: Tensor, tokens: Tensor, context: object
    ) -> tuple[Tensor, Tensor]:
        features = pixels.expand(-1, 8, *pixels.shape[2:])
        return features, Thresholds()(pixels)

    def projected(self, features: Tensor) -> tuple[Tensor, ...]:
        return ()


def pixel_model(**changes: Any) -> MuViTSegmenter:
    """The class of a pixel at each level is its value: 0, 1 or 3."""
    model = make_model(**changes)
    model.decoder.levels = torch.nn.ModuleList(
        PixelStage() for _ in model.decoder.levels
    )
    return model


def cpu(**changes: Any) -> PredictionConfig:
    values = {"tile_size": 64, "batch_size": 5, "device": "cpu", "num_threads": 1}
    return PredictionConfig(**(values | changes))


def blocks(shape: tuple[int, int], edge: int = 4) -> np.ndarray:
    """Random values 0, 1, 3 in squares, so that coarse pixels are of one value."""
    rng = np.random.default_rng(0)
    coarse = rng.choice([0, 1, 3], [-(-n // edge) for n in shape]).astype(np.uint8)
    return coarse.repeat(edge, 0).repeat(edge, 1)[: shape[0], : shape[1]]


def as_pyramid(pixels: np.ndarray, scale: float = 1.0, **changes: Any) -> Pyramid:
    level = PyramidLevel(ArraySource(pixels, axes="yx"), (scale, scale), (0.0, 0.0))
    return Pyramid((level,), **changes)


LABEL_OF = np.array([1, 2, 0, 3], np.uint8)


@pytest.mark.parametrize("shape", [(108, 164), (64, 48), (12, 200)])
def test_each_pixel_shows_what_lies_there(shape: tuple[int, int]) -> None:
    pixels = blocks(shape)
    preview = preview_slide(as_pyramid(pixels), pixel_model(), cpu())
    assert preview.labels.shape == tuple(-(-n // 4) for n in shape)
    assert (preview.labels == LABEL_OF[pixels[::4, ::4]]).all()
    assert preview.scale == (4, 4)
    assert preview.translation == (1.5, 1.5)
    assert preview.version > 0
    assert preview.finer is None


def test_a_slide_of_an_odd_size_is_covered() -> None:
    pixels = blocks((103, 117))
    preview = preview_slide(as_pyramid(pixels), pixel_model(), cpu())
    assert preview.labels.shape == (26, 30)
    assert (preview.labels > 0).all()
    # The last crops lie between the pixels of their level.
    assert (preview.labels[:8, :12] == LABEL_OF[pixels[::4, ::4]][:8, :12]).all()


def test_one_crop_gives_the_answer_of_the_model(slide: Build) -> None:
    """All of a small slide lies in one coarse crop: the whole model's own logits."""
    pyramid, model = slide((40, 44)), make_model()
    preview = preview_slide(pyramid, model, cpu())
    crop = plan_prediction(pyramid, model.config, cpu(context="own")).crop(0)
    numbers = estimate_normalisation(pyramid, "none")
    factors = model.config.scale_factors
    pixels = read_boxes(pyramid, crop.padded.boxes, factors, model.config, numbers)
    boxes = torch.from_numpy(crop.padded.as_array()).float()
    with torch.inference_mode():
        logits = model.level_logits(torch.from_numpy(pixels)[None], boxes[None])[-1][0]
    expected = np.zeros_like(preview.labels)
    y, x = (round(v / 4) for v in crop.padded.boxes[-1].lower)
    found = logits.argmax(0).numpy()[-y : len(expected) - y, -x : expected.shape[1] - x]
    assert (preview.labels == found + 1).mean() > 0.99
    assert len(np.unique(found)) > 1


@pytest.mark.parametrize("decoder", ["pyramid", "unetr"])
@pytest.mark.parametrize("skip", [False, True])
def test_the_coarsest_level_alone_is_the_same_as_with_finer_ones(
    decoder: str, skip: bool
) -> None:
    model = make_model(
        scale_factors=(1, 2, 4, 8), decoder=decoder, decoder_dim=16, context_skip=skip,
        level_heads=True,
    )  # fmt: skip
    boxes = NestedCrop(
        (Box((4, 4), (36, 36)), Box((0, 0), (64, 64)), Box((0, 0), (128, 128)))
    ).as_array()
    x, where = torch.rand(1, 3, 1, 16, 16), torch.from_numpy(boxes).float()[None]
    with torch.inference_mode():
        all_levels = compute_context(model, x, where)
        for first in (1, 2):
            some = compute_context(model, x[:, first:], where[:, first:])
            assert len(some.logits) == 3 - first
            for a, b in zip(some.logits, all_levels.logits[first:], strict=True):
                torch.testing.assert_close(a, b)


def test_a_run_refines_it_and_keeps_it_out_of_the_labels(tmp_path: Path) -> None:
    pixels = blocks((84, 132))
    events: list[Progress] = []
    model = pixel_model()
    run = predict(
        as_pyramid(pixels), model, cpu(preview=True), tmp_path / "out.zarr",
        on_progress=events.append,
    )  # fmt: skip
    assert run.preview is None
    preview = run.make_preview()
    assert preview is run.preview
    assert preview is not None
    assert (preview.labels > 0).all()
    levels = run.levels
    assert levels is not None
    assert not np.asarray(levels[0][:]).any()
    finer = preview.finer
    assert finer is not None
    assert not finer.labels.any()
    versions = [finer.version for _ in run]
    assert versions == sorted(versions)
    assert versions[-1] == run.plan.contexts.count  # type: ignore[union-attr]
    assert finer.scale == (2, 2)
    assert (finer.labels == LABEL_OF[pixels[::2, ::2]]).all()
    plain = predict(as_pyramid(pixels), model, cpu())
    labels = {tile.index: tile.labels for tile in plain}
    for tile in plain.plan.tiles():
        y0, x0, y1, x1 = tile.box
        assert (np.asarray(levels[0][y0:y1, x0:x1]) == labels[tile.index]).all()
    stages = [e.stage for e in events]
    assert stages.index("preview") < stages.index("predict")
    shown = [e for e in events if e.stage == "preview"]
    assert (shown[0].done, shown[-1].done) == (0, shown[-1].total)
    again = predict(as_pyramid(pixels), model, cpu(preview=True), tmp_path / "out.zarr")
    assert again.finished_before
    assert again.make_preview() is None


def test_iterating_makes_it_too() -> None:
    run = predict(as_pyramid(blocks((64, 64))), make_model(), cpu(preview=True))
    next(iter(run))
    assert run.preview is not None
    assert (
        predict(as_pyramid(blocks((64, 64))), make_model(), cpu()).make_preview()
        is None
    )


def test_a_region_alone(tmp_path: Path) -> None:
    config = cpu(region=(10, 210, 20, 220))
    preview = preview_slide(as_pyramid(blocks((200, 600))), pixel_model(), config)
    known = preview.labels > 0
    assert known[0:16, 48:64].all()
    assert known.mean() < 0.2


def test_models_without_coarse_heads_say_so(slide: Build) -> None:
    without: list[dict[str, Any]] = [
        {"attention": "joint"}, {"level_heads": False}, {"boxes": "naive"},
    ]  # fmt: skip
    for changes in without:
        model = make_model(**changes)
        with pytest.raises(ConfigError, match="There is no preview"):
            preview_slide(slide((64, 64)), model, cpu())
        events: list[Progress] = []
        run = predict(
            slide((64, 64)), model, cpu(preview=True), on_progress=events.append
        )
        assert run.make_preview() is None
        assert len(list(run)) == 1
        assert any("no preview" in e.message for e in events)
        assert not any("no preview" in n for n in predict(
            slide((64, 64)), model, cpu()).plan.notes)  # fmt: skip


def test_what_is_no_number_is_unknown() -> None:
    pixels = blocks((64, 64)).astype(np.float32)
    model = make_model()
    with torch.no_grad():
        model.decoder.levels[2].head.bias[1] = np.nan
    preview = preview_slide(as_pyramid(pixels), model, cpu())
    assert not preview.labels.any()
    assert preview.version > 0


def test_places_that_cannot_be_read_stay_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_muvit.core.prediction import preview_paint

    real = preview_paint.read_boxes

    def damaged(pyramid: Pyramid, boxes: Any, *rest: Any) -> np.ndarray:
        if boxes[0].lower == (0, 0):
            raise OSError("a bad disk")
        return real(pyramid, boxes, *rest)

    monkeypatch.setattr(preview_paint, "read_boxes", damaged)
    preview = preview_slide(as_pyramid(blocks((128, 128))), pixel_model(), cpu())
    unknown = preview.labels == 0
    assert unknown[:10, :10].all()
    assert unknown.sum() < 12 * 12


def test_stopping(slide: Build) -> None:
    with pytest.raises(Cancelled):
        preview_slide(slide((150, 150)), make_model(), cpu(), should_stop=lambda: True)
    run: PredictionRun = predict(
        slide((150, 150)), make_model(), cpu(preview=True), should_stop=lambda: True
    )
    assert run.make_preview() is None
    assert list(run) == []
    assert run.stopped


def test_half_a_preview_is_not_written(slide: Build, tmp_path: Path) -> None:
    def hear(event: Progress) -> None:
        if event.stage == "preview" and event.done:
            run.stop()

    config = cpu(preview=True, batch_size=1)
    run = predict(
        slide((300, 300)), make_model(), config, tmp_path / "o.zarr", on_progress=hear
    )
    assert run.write_preview() is None
    assert not (tmp_path / "o.preview.png").exists()
    assert list(run) == []
    assert run.stopped


def test_a_crop_of_less_memory_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_muvit.core.prediction import preview_paint

    expected = preview_slide(as_pyramid(blocks((128, 128))), make_model(), cpu())
    real = preview_paint.compute_context
    sizes = []

    def small(model: Any, x: Tensor, boxes: Tensor) -> Any:
        sizes.append(len(x))
        if len(x) > 1:
            raise torch.OutOfMemoryError
        return real(model, x, boxes)

    monkeypatch.setattr(preview_paint, "compute_context", small)
    found = preview_slide(as_pyramid(blocks((128, 128))), make_model(), cpu())
    assert (found.labels == expected.labels).mean() > 0.999
    assert max(sizes) == 5

    def smaller(*_args: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(preview_paint, "compute_context", smaller)
    with pytest.raises(ConfigError, match="A single crop does not fit"):
        preview_slide(as_pyramid(blocks((128, 128))), make_model(), cpu())


def test_of_parts_the_first_one_makes_it() -> None:
    for part in (0, 1):
        config = cpu(preview=True, shard=(part, 2))
        run = predict(as_pyramid(blocks((128, 128))), make_model(), config)
        assert (run.make_preview() is not None) == (part == 0)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(9, 200), st.integers(9, 200)),
    factor=st.sampled_from([2.0, 4.0, 3.7, 8.0]),
    shift=st.booleans(),
)
def test_cells_fill_every_pixel_once(
    size: tuple[int, int], factor: float, shift: bool
) -> None:
    extent = Box((0.0, 0.0), (size[0] + 0.3, size[1] + 0.0))
    grid = ContextGrid(16, (1, factor), extent, shift)
    if grid.stride < 1:
        return
    preview = Preview(extent, factor, (1.0, 1.0), (0.0, 0.0))
    total = np.zeros(preview.labels.shape, int)
    for index in range(grid.count):
        preview.labels[:] = 0
        preview.paste(
            grid.cell(index), grid.boxes(index)[0], np.ones((16, 16), np.uint8)
        )
        total += preview.labels
    assert (total == 1).all()
    assert preview.version == grid.count


def test_a_large_slide_shows_every_second_pixel() -> None:
    preview = Preview(Box((0, 0), (8192 * 4, 100)), 4, (2.0, 0.5), (10.0, 0.0))
    assert preview.labels.shape == (4096, 13)
    assert preview.world_scale == 8
    assert preview.scale == (4, 16)
    assert preview.translation == (-5 + 2 - 0.5, 8 - 0.5)


def test_the_picture() -> None:
    preview = Preview(Box((0, 0), (40, 80)), 4, (1.0, 1.0), (0.0, 0.0))
    preview.labels[:5] = 2
    with Image.open(io.BytesIO(preview.png(("#ff0000", "#00ff80")))) as image:
        found = np.asarray(image)
    assert found.shape == (10, 20, 3)
    assert (found[0, 0] == (0, 255, 128)).all()
    assert (found[9, 9] == 255).all()
    with Image.open(io.BytesIO(preview.png(("#ff0000", "#00ff80"), most=7))) as image:
        assert max(image.size) <= 7
