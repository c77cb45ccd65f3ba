"""A look beneath a prediction: at its place, told apart, and gone at the end."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_muvit._tasks import growing
from napari_muvit._tasks.growing import GrowingLevels, Tile
from napari_muvit._tasks.previewing import (
    LOOKED,
    Overview,
    UnderlaidLevel,
    can_look,
    clear_look,
    lay_look,
    underlaid,
)
from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.open import open_pyramid

SHAPE = (512, 768)
OVERVIEW = Overview(
    np.array([[1, 2, 3], [4, 5, 0]], np.uint8), (256.0, 256.0), (127.5, 127.5)
)
"""Squares of 256 slide pixels."""


@pytest.fixture
def levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GrowingLevels:
    """512 x 768 and 256 x 384 on the disk, 128 x 192 in memory."""
    monkeypatch.setattr(growing, "NUMPY_PIXELS", 128 * 192)
    stored: list[Any] = [
        zarr.create_array(
            str(tmp_path / str(k)), shape=(512 >> k, 768 >> k), chunks=(64, 64),
            dtype="u1",
        )
        for k in range(3)
    ]  # fmt: skip
    return underlaid(GrowingLevels.from_store(stored))


def test_each_level_shows_it_at_its_place(levels: GrowingLevels) -> None:
    lay_look(levels, OVERVIEW)
    for k, level in enumerate(levels.levels):
        half = 256 >> k
        for (y, x), label in np.ndenumerate(OVERVIEW.labels):
            part = level[y * half : (y + 1) * half, x * half : (x + 1) * half]
            assert part.shape == (half, half)
            assert set(np.unique(part)) == {label + LOOKED if label else 0}
        assert np.asarray(level).shape == level.shape


def test_tiles_replace_it_and_the_rest_goes(levels: GrowingLevels) -> None:
    lay_look(levels, OVERVIEW)
    tile = Tile((0, 0, 256, 256), np.full((256, 256), 7, np.uint8))
    levels.levels[0].level[0:256, 0:256] = tile.labels
    levels.put(tile)
    for k, level in enumerate(levels.levels):
        assert set(np.unique(level[: 256 >> k, : 256 >> k])) == {7}
        assert set(np.unique(level[: 256 >> k, 256 >> k : 512 >> k])) == {2 + LOOKED}
    clear_look(levels)
    for k, level in enumerate(levels.levels):
        whole = np.asarray(level[:, :])
        assert (whole[: 256 >> k, : 256 >> k] == 7).all()
        assert not whole[:, 256 >> k :].any()
    # What lies on the disk has never seen it.
    assert set(np.unique(levels.levels[0].level[:])) == {0, 7}


def test_steps_and_single_rows_are_read_as_napari_does(levels: GrowingLevels) -> None:
    lay_look(levels, OVERVIEW)
    finest = levels.levels[0]
    whole = np.asarray(finest)
    np.testing.assert_array_equal(finest[5:500:7, ::64], whole[5:500:7, ::64])
    assert isinstance(finest, UnderlaidLevel)
    assert finest.size == whole.size


def test_it_can_be_sent(levels: GrowingLevels) -> None:
    again, look = pickle.loads(pickle.dumps((levels, OVERVIEW)))
    lay_look(again, look)
    assert np.asarray(again.levels[0])[0, 0] == 1 + LOOKED


def model(**changes: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "decoder": "pyramid", "attention": "coarse_to_fine", "scale_factors": (1, 4),
        "crop_size": 64, "num_classes": 3, "level_heads": True,
    }  # fmt: skip
    return ModelConfig(**(values | changes))


def test_only_a_quick_look_is_taken() -> None:
    small = open_pyramid(np.zeros((2000, 2000), np.uint8))
    large = open_pyramid(np.zeros((9000, 9000), np.uint8))
    asked = PredictionConfig()
    assert can_look(small, model(), asked)
    assert not can_look(large, model(), asked)
    assert can_look(large, model(scale_factors=(1, 4, 16)), asked)
    assert can_look(large, model(), PredictionConfig(region=(0, 0, 900, 900)))
    assert not can_look(small, model(attention="joint"), asked)
    assert not can_look(small, model(num_classes=LOOKED), asked)
