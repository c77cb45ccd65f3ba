"""Coarse levels in memory: the same pixels as in an array, on disk after a flush."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.prediction.levels import CoarseLevel

SHAPE = (37, 50)
boxes = st.tuples(
    st.integers(0, 36), st.integers(0, 49), st.integers(1, 20), st.integers(1, 20)
)


def make_level(kept: int | None = 2, planes: tuple[int, ...] = ()) -> CoarseLevel:
    store = zarr.storage.MemoryStore()
    chunks = (*(1 for _ in planes), 8, 16)
    array = zarr.create_array(
        store, shape=(*planes, *SHAPE), chunks=chunks, dtype="uint8"
    )
    return CoarseLevel(array, kept)


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(st.tuples(boxes, st.booleans()), max_size=12))
def test_it_is_an_array(changes: list[tuple[tuple[int, ...], bool]]) -> None:
    level, truth = make_level(), np.zeros(SHAPE, np.uint8)
    for number, ((y, x, h, w), flush) in enumerate(changes, start=1):
        truth[y : y + h, x : x + w] = number
        level[y : y + h, x : x + w] = np.full(truth[y : y + h, x : x + w].shape, number)
        if flush:
            level.flush()
            assert (level.array[:] == truth).all()
        assert (level[y : y + 3, : x + 1] == truth[y : y + 3, : x + 1]).all()
    assert (np.asarray(level) == truth).all()
    # Any other index, as a viewer may use.
    assert (level[:] == truth).all()
    assert (level[::2, 3] == truth[::2, 3]).all()


def test_chunks_beyond_those_kept_are_on_disk_already() -> None:
    level = make_level(kept=1)
    level[0:8, 0:16] = np.full((8, 16), 3)
    assert not level.array[:].any()
    level[8:16, 0:16] = np.full((8, 16), 4)
    assert (level.array[0:8, 0:16] == 3).all()
    assert not level.array[8:16].any()
    level.flush()
    assert (level.array[8:16, 0:16] == 4).all()


def test_only_a_box_can_be_written(tmp_path: Path) -> None:
    level = make_level()
    with pytest.raises(IndexError, match="not a box"):
        level[::2, 0:3] = np.zeros((19, 3), np.uint8)
    assert (level.shape, level.ndim, level.size) == (SHAPE, 2, 37 * 50)


@settings(max_examples=30, deadline=None)
@given(changes=st.lists(st.tuples(boxes, st.booleans()), max_size=8))
def test_planes_are_kept_together(
    changes: list[tuple[tuple[int, ...], bool]],
) -> None:
    level, truth = make_level(planes=(3,)), np.zeros((3, *SHAPE), np.uint8)
    for number, ((y, x, h, w), flush) in enumerate(changes, start=1):
        block = truth[:, y : y + h, x : x + w]
        block[:] = np.arange(3)[:, None, None] + 3 * number
        level[..., y : y + h, x : x + w] = block
        if flush:
            level.flush()
            assert (level.array[:] == truth).all()
        assert (level[..., y : y + 3, : x + 1] == truth[:, y : y + 3, : x + 1]).all()
    assert (np.asarray(level) == truth).all()
    # One plane, as a viewer shows it.
    assert (level[1, 3:9, 4:30] == truth[1, 3:9, 4:30]).all()
    assert (level.ndim, level.size) == (3, 3 * 37 * 50)
    with pytest.raises(IndexError, match="not a box"):
        level[1, 0:2, 0:2] = np.zeros((2, 2), np.uint8)


def test_the_more_planes_the_fewer_chunks_are_kept() -> None:
    class Array:
        dtype = np.dtype("uint8")
        ndim = 3

        def __init__(self, planes: int) -> None:
            self.shape, self.chunks = (planes, 9999, 9999), (1, 512, 512)

    kept = [CoarseLevel(Array(planes))._kept for planes in (1, 5, 100)]  # type: ignore[arg-type]
    assert kept == [32, 6, 2]
