from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_muvit._tasks import growing as module
from napari_muvit._tasks.growing import GrowingLevels, LateLevel, Tile
from napari_muvit.core.prediction.levels import write_levels

SHAPE, TILE = (1100, 1300), 128


def empty_store(folder: Path) -> list[zarr.Array[Any]]:
    levels = []
    shape = SHAPE
    for index in range(6):
        levels.append(
            zarr.create_array(
                str(folder / str(index)), shape=shape, chunks=(TILE, TILE), dtype="u1"
            )
        )
        shape = (-(-shape[0] // 2), -(-shape[1] // 2))
    return levels


def tiles() -> list[Tile]:
    truth = np.random.default_rng(0).integers(1, 4, SHAPE, dtype=np.uint8)
    found = []
    for y in range(0, SHAPE[0], TILE):
        for x in range(0, SHAPE[1], TILE):
            labels = truth[y : y + TILE, x : x + TILE]
            box = (y, x, y + labels.shape[0], x + labels.shape[1])
            found.append(Tile(box, labels))
    np.random.default_rng(1).shuffle(found)
    return found


@pytest.mark.parametrize("numpy_pixels", [0, 200_000, 10**9])
def test_the_coarse_levels_end_as_the_store_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numpy_pixels: int
) -> None:
    monkeypatch.setattr(module, "NUMPY_PIXELS", numpy_pixels)
    store = empty_store(tmp_path)
    growing = GrowingLevels.from_store(store)
    for tile in tiles():
        write_levels(store, tile.box, tile.labels)
        growing.put(tile)
    for level, stored in zip(growing.levels, store, strict=True):
        np.testing.assert_array_equal(level[:], stored[:])
    # napari keeps the coarsest level for ever: it must be ours to change.
    assert isinstance(growing.levels[-1], np.ndarray)
    kinds = [isinstance(level, np.ndarray) for level in growing.levels]
    assert kinds == sorted(kinds)


def test_a_continued_prediction_shows_what_is_there(tmp_path: Path) -> None:
    store = empty_store(tmp_path)
    first, second = tiles()[:2]
    write_levels(store, first.box, first.labels)
    growing = GrowingLevels.from_store(store)
    growing.put(second)
    write_levels(store, second.box, second.labels)
    for level, stored in zip(growing.levels, store, strict=True):
        np.testing.assert_array_equal(level[:], stored[:])


def test_a_level_that_is_written_late_shows_new_tiles_at_once(tmp_path: Path) -> None:
    # The finest levels of a slide are not in memory, and coarse ones reach the disk
    # some seconds after their tiles.
    store = empty_store(tmp_path)[1]
    level = pickle.loads(pickle.dumps(LateLevel(store)))
    patch = np.full((64, 64), 3, dtype=np.uint8)
    level.lay((100, 200, 164, 264), patch)
    np.testing.assert_array_equal(level[100:164, 200:264], patch)
    assert (level[90:110, 195:203] == 3).sum() == 10 * 3
    np.testing.assert_array_equal(level[::2, ::3][50:82, 67:88], 3)
    assert np.asarray(level).sum() == 3 * 64 * 64
    assert not store[:].any()


def test_a_late_level_forgets_what_the_disk_has_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = empty_store(tmp_path)[1]
    level = LateLevel(store)
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    level.lay((0, 0, 8, 8), np.full((8, 8), 1, np.uint8))
    now[0] = module.LAID_OVER_SECONDS + 1
    level.lay((8, 8, 16, 16), np.full((8, 8), 2, np.uint8))
    assert level[0:8, 0:8].max() == 0
    assert level[8:16, 8:16].min() == 2
