"""Places to annotate: the least sure ones, apart from each other, inside tissue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.tissue import TissueMask
from napari_muvit.core.errors import ConfigError, OutputError
from napari_muvit.core.geometry import Box
from napari_muvit.core.prediction import plan_prediction, suggestions
from napari_muvit.core.prediction.filled import FilledTile
from napari_muvit.core.prediction.suggestions import best_places, uncertain_places
from napari_muvit.core.prediction.writer import LabelWriter

Build = Callable[..., Any]
SHAPE = (1024, 1280)


def write(
    path: Path, pyramid: Any, sure: np.ndarray, left_out: tuple[int, ...] = ()
) -> Path:
    """A prediction with this confidence, without some of its tiles."""
    config = ModelConfig(crop_size=64, scale_factors=(1,), normalisation="none")
    asked = PredictionConfig(tile_size=128, outputs=("confidence",))
    plan = plan_prediction(pyramid, config, asked)
    record = {"identity": {}, "outputs": ["confidence"]}
    writer = LabelWriter(path, pyramid, plan, config, record)
    writer.begin()
    for index in range(plan.num_tiles):
        tile = plan.tile(index)
        y0, x0, y1, x1 = tile.box
        labels = np.ones((y1 - y0, x1 - x0), np.uint8)
        if index not in left_out:
            writer.write(FilledTile(tile, labels, confidence=sure[y0:y1, x0:x1]))
    writer.close()
    return path


def sure_but(*places: tuple[int, int, int]) -> np.ndarray:
    """Confidence of 250, less in squares of 128 at (y, x, confidence)."""
    sure = np.full(SHAPE, 250, np.uint8)
    for y, x, value in places:
        sure[y : y + 128, x : x + 128] = value
    return sure


def test_the_least_sure_places_come_first(slide: Build, tmp_path: Path) -> None:
    sure = sure_but((256, 640, 90), (700, 100, 120))
    path = write(tmp_path / "p.zarr", slide(SHAPE), sure)
    first, second, *_ = uncertain_places(path, 128, 2)
    assert first.box == (256, 640, 384, 768)
    assert first.score == pytest.approx(1 - 90 / 255, abs=0.01)
    y0, x0, _, _ = second.box
    assert abs(y0 - 700) <= 8
    assert abs(x0 - 100) <= 8
    assert first.reason == "uncertain"


def test_a_place_is_named_once(slide: Build, tmp_path: Path) -> None:
    path = write(tmp_path / "p.zarr", slide(SHAPE), sure_but((256, 640, 90)))
    found = uncertain_places(path, 128, 6)
    assert len(found) == 6
    for number, one in enumerate(found):
        for other in found[:number]:
            box = Box(one.box[:2], one.box[2:])
            assert box.intersection(Box(other.box[:2], other.box[2:])) is None


def test_only_what_is_predicted_counts(slide: Build, tmp_path: Path) -> None:
    # The coarse confidence at the border of a missing tile is a mean with zeros.
    path = write(tmp_path / "p.zarr", slide(SHAPE), sure_but(), left_out=(33, 34))
    for place in uncertain_places(path, 128, 40):
        assert place.score == pytest.approx(1 - 250 / 255, abs=0.005)


def test_tissue_narrows_the_choice(slide: Build, tmp_path: Path) -> None:
    sure = sure_but((256, 640, 90), (700, 100, 120))
    path = write(tmp_path / "p.zarr", slide(SHAPE), sure)
    mask = np.zeros((32, 40), dtype=bool)
    mask[20:] = True
    tissue = TissueMask(mask, Box((0, 0), SHAPE), "dark")
    found = uncertain_places(path, 128, 3, tissue=tissue)
    assert abs(found[0].box[0] - 700) <= 8
    # Half of a place must be tissue.
    assert all(place.box[0] >= 640 - 64 for place in found)


def test_places_of_a_size_that_the_slide_has_not(slide: Build, tmp_path: Path) -> None:
    path = write(tmp_path / "p.zarr", slide((200, 150)), np.full((200, 150), 99, "u1"))
    (place,) = uncertain_places(path, 5000)
    assert place.box == (0, 0, 200, 150)


def test_a_large_slide_is_looked_at_coarsely(
    slide: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suggestions, "MOST_PIXELS", 5000)
    path = write(tmp_path / "p.zarr", slide(SHAPE), sure_but((256, 640, 90)))
    (place,) = uncertain_places(path, 64, 1)
    y0, x0, y1, x1 = place.box
    assert 250 <= y0 < y1 <= 390
    assert 630 <= x0 < x1 <= 770


def test_what_it_cannot_tell(slide: Build, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no prediction"):
        uncertain_places(tmp_path / "nothing.zarr", 64)
    path = tmp_path / "plain.zarr"
    pyramid = slide((200, 150))
    config = ModelConfig(crop_size=64, scale_factors=(1,), normalisation="none")
    plan = plan_prediction(pyramid, config, PredictionConfig(tile_size=128))
    LabelWriter(path, pyramid, plan, config, {"identity": {}})
    with pytest.raises(ConfigError, match="without confidence"):
        uncertain_places(path, 64)
    with pytest.raises(ConfigError, match="size of a place"):
        uncertain_places(path, 0)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_first_place_is_the_best_of_all(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    scores = rng.integers(0, 4, (rows, columns)).astype(np.float32)
    known = rng.random((rows, columns)) < data.draw(st.sampled_from((0.3, 0.8, 1.0)))
    height, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    height, width = min(height, rows), min(width, columns)
    best = 0.0
    for y in range(rows - height + 1):
        for x in range(columns - width + 1):
            part = known[y : y + height, x : x + width]
            if part.mean() >= suggestions.LEAST_KNOWN:
                values = scores[y : y + height, x : x + width][part]
                best = max(best, float(values.mean()))
    found = list(best_places(scores, known, (height, width), 50))
    assert (found[0][2] if found else 0.0) == pytest.approx(best)
    covered = np.zeros((rows, columns), int)
    for y, x, _ in found:
        covered[y : y + height, x : x + width] += 1
    assert covered.max(initial=0) <= 1
    means = [score for _, _, score in found]
    assert means == sorted(means, reverse=True)
