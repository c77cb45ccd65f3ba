"""Hiding context: only what lies around a fine crop goes, and the answer shows it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_muvit.core import open_pyramid, write_synthetic
from napari_muvit.core.config import ModelConfig, PredictionConfig, TrainingConfig
from napari_muvit.core.data.arrays import ArraySource
from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel
from napari_muvit.core.errors import Cancelled, ConfigError
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.prediction import context_difference as module
from napari_muvit.core.prediction.context_difference import context_difference
from napari_muvit.core.prediction.hidden_context import WithoutContext
from napari_muvit.core.presets import preset
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import finetune

KINDS: tuple[dict[str, Any], ...] = (
    {"decoder": "pyramid", "attention": "coarse_to_fine"},
    {"decoder": "pyramid", "attention": "joint"},
    {"decoder": "unetr", "attention": "within_level"},
    {"decoder": "mask2former", "attention": "joint"},
)


def make_config(**changes: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "num_classes": 3, "scale_factors": (1, 4), "crop_size": 16, "patch_size": 8,
        "embed_dim": 16, "depth": 1, "num_heads": 2, "normalisation": "none",
        "background_value": (9.0,), "pyramid_channels": (8, 8, 8, 8),
        "decoder_dim": 16, "num_queries": 4,
    }  # fmt: skip
    return ModelConfig(**(values | changes))


def nested(fine: tuple[float, float], coarse: tuple[float, float]) -> Tensor:
    """(1, 2, 2, 2) boxes of 16 and 64 pixels at these places."""
    boxes = torch.zeros(1, 2, 2, 2)
    for level, (place, edge) in enumerate(((fine, 16), (coarse, 64))):
        boxes[0, level, 0] = torch.tensor(place)
        boxes[0, level, 1] = torch.tensor(place) + edge
    return boxes


class Recorder(nn.Module):
    """Keeps what it was given."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.seen = torch.empty(0)

    def forward(self, x: Tensor, bboxes: Tensor) -> Tensor:
        self.seen = x
        return x[:, 0]


def test_what_lies_around_the_fine_crop_is_gone_and_nothing_else() -> None:
    recorder = Recorder(make_config())
    x = torch.rand(1, 2, 1, 16, 16)
    WithoutContext(recorder)(x, nested((24.0, 8.0), (0.0, 0.0)))
    assert torch.equal(recorder.seen[:, 0], x[:, 0])
    expected = torch.full((16, 16), 9.0)
    # 24 to 40 and 8 to 24 in pixels of 4.
    expected[6:10, 2:6] = x[0, 1, 0, 6:10, 2:6]
    assert torch.equal(recorder.seen[0, 1, 0], expected)


def test_a_coarse_pixel_with_a_part_outside_is_hidden() -> None:
    recorder = Recorder(make_config())
    x = torch.rand(1, 2, 1, 16, 16)
    WithoutContext(recorder)(x, nested((22.0, 8.0), (0.0, 0.0)))
    # 22 to 38: the pixels 24 to 36 lie inside as a whole.
    kept = recorder.seen[0, 1, 0] != 9.0
    assert kept.nonzero()[:, 0].unique().tolist() == [6, 7, 8]


@pytest.mark.parametrize(
    "kind", KINDS, ids=lambda k: f"{k['decoder']} {k['attention']}"
)
def test_no_kind_of_model_sees_what_is_hidden(kind: dict[str, Any]) -> None:
    torch.manual_seed(0)
    blind = WithoutContext(build_model(make_config(**kind)).eval())
    boxes = nested((24.0, 8.0), (0.0, 0.0))
    x = torch.rand(1, 2, 1, 16, 16)
    other = x.clone()
    other[0, 1, 0, 12:] = torch.rand(4, 16)
    with torch.inference_mode():
        assert torch.equal(blind(x, boxes), blind(other, boxes))
        other[0, 0, 0, 3] = 5.0
        assert not torch.equal(blind(x, boxes), blind(other, boxes))


def test_a_model_of_one_level_has_nothing_to_hide() -> None:
    with pytest.raises(ConfigError, match="one level only"):
        WithoutContext(Recorder(make_config(scale_factors=(1,))))


class AsksAround(nn.Module):
    """Class 1 where a pixel is dark; else 2 or 3, by the brightest place around."""

    def __init__(self) -> None:
        super().__init__()
        self.config = make_config(background_value=(0.0,))
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, bboxes: Tensor) -> Tensor:
        bright = (x[:, 0, 0] > 50).float()
        marked = (x[:, 1].amax(dim=(1, 2, 3)) > 150).float().view(-1, 1, 1)
        scores = [1 - bright, bright * (1 - marked), bright * marked]
        return torch.stack(scores, dim=1) * self.weight


def marked_slide() -> Pyramid:
    """Bright cells; those near the mark at the top are of the other class."""
    pixels = np.zeros((256, 256), dtype=np.uint8)
    pixels[:, 100:110] = 100
    pixels[16:32, 0:16] = 255
    level = PyramidLevel(ArraySource(pixels, axes="yx"), (1.0, 1.0), (0.0, 0.0))
    return Pyramid((level,))


@pytest.fixture
def config() -> PredictionConfig:
    return PredictionConfig(device="cpu", num_threads=1, batch_size=8, overlap=0.0)


def test_the_answer_changes_where_context_decides(config: PredictionConfig) -> None:
    pixels = np.zeros((256, 256), dtype=np.uint8)
    pixels[:, 60:64] = 100
    # Two pixels beside the cells: in another fine crop, and in the same coarse one.
    pixels[32:64, 80:84] = 255
    level = PyramidLevel(ArraySource(pixels, axes="yx"), (1.0, 1.0), (0.0, 0.0))
    events: list[Progress] = []
    found = context_difference(
        Pyramid((level,)), AsksAround(), config, (0, 0, 256, 70),
        size=32, on_progress=events.append,
    )  # fmt: skip
    assert found.with_context.shape == (256, 70)
    assert set(np.unique(found.with_context[:, 60:64])) == {2, 3}
    assert set(np.unique(found.without[:, 60:64])) == {2}
    rows, columns = np.nonzero(found.changed)
    assert columns.min() == 60
    assert columns.max() == 63
    assert rows.max() < 128
    assert found.share == pytest.approx(found.changed.mean())
    best = found.places[0]
    assert best.reason == "context"
    y0, x0, y1, x1 = best.box
    assert x0 <= 60 < 64 <= x1
    assert found.changed[y0:y1, x0:x1].mean() == pytest.approx(best.score)
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_places_are_where_the_region_is(config: PredictionConfig) -> None:
    pixels = np.zeros((256, 256), dtype=np.uint8)
    pixels[:, 60:64] = 100
    pixels[128:140, 80:84] = 255
    level = PyramidLevel(ArraySource(pixels, axes="yx"), (1.0, 1.0), (0.0, 0.0))
    found = context_difference(
        Pyramid((level,)), AsksAround(), config, (99.5, 50.2, 300, 70), size=16
    )
    assert found.box == (99, 50, 256, 70)
    for place in found.places:
        y0, x0, y1, x1 = place.box
        assert 99 <= y0 < y1 <= 256
        assert 50 <= x0 < x1 <= 70


def test_a_region_that_is_too_large_or_outside(
    config: PredictionConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_PIXELS", 10_000)
    with pytest.raises(ConfigError, match="as many as 100 x 100"):
        context_difference(marked_slide(), AsksAround(), config, (0, 0, 256, 256))
    with pytest.raises(ConfigError, match="lies outside"):
        context_difference(marked_slide(), AsksAround(), config, (300, 0, 310, 10))


class Slow(AsksAround):
    def forward(self, x: Tensor, bboxes: Tensor) -> Tensor:
        time.sleep(0.06)  # should_stop is not asked more often
        return super().forward(x, bboxes)


def test_it_can_be_stopped_in_either_half(config: PredictionConfig) -> None:
    for after in (0.2, 0.8):
        seen: list[float] = [0.0]
        with pytest.raises(Cancelled):
            context_difference(
                marked_slide(), Slow(), config, (0, 0, 256, 256),
                on_progress=lambda e, seen=seen: seen.append(e.fraction),
                should_stop=lambda after=after, seen=seen: seen[-1] >= after,
            )  # fmt: skip
        assert seen[-1] < 1


@pytest.mark.slow
def test_a_trained_model_answers_otherwise_without_context(tmp_path: Path) -> None:
    """Synthetic: shape tells cells from background, context alone the two kinds."""
    pairs = write_synthetic(tmp_path / "data", images=25, size=512, field=256)
    images, labels = (list(paths) for paths in zip(*pairs, strict=True))
    tiny = preset("tiny")
    network = {
        "num_classes": 3, "class_names": ("background", "outer", "inner"),
        "embed_dim": 32, "depth": 1, "num_heads": 2,
    }  # fmt: skip
    model = ModelConfig(**{**tiny.model, **network})
    changes = {
        "steps": 200, "minutes": None, "device": "cpu", "validation_crops": 8,
    }  # fmt: skip
    asked = TrainingConfig(**{**tiny.training, **changes})
    result = finetune(
        images[:24], labels[:24], asked, model=model, out=tmp_path / "model"
    )
    slide = open_pyramid(images[24])
    found = context_difference(
        slide, result.model_path, PredictionConfig(device="cpu"), (0, 0, 512, 512)
    )
    cells = found.with_context > 1
    # Another kind of cell, but neither a cell that goes nor one that comes.
    assert found.changed[cells].mean() > 0.1
    assert (cells != (found.without > 1)).mean() < 0.01
