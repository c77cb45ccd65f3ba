"""Runs of label images, whatever the blocks."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_muvit.core.export import runs as runs_module
from napari_muvit.core.export.runs import BlockGrid, Runs, read_bands, runs_of

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))
LABELS = SHAPES.flatmap(lambda s: arrays(np.uint8, s, elements=st.integers(0, 2)))


def painted(runs: Runs, shape: tuple[int, int]) -> np.ndarray:
    out = np.full(shape, 99, dtype=np.uint8)
    for row, first, last, value in zip(
        runs.row, runs.first, runs.last, runs.value, strict=True
    ):
        assert (out[row, first:last] == 99).all()
        out[row, first:last] = value
    return out


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, rows=st.integers(1, 12), columns=st.integers(1, 12))
def test_runs_do_not_depend_on_the_blocks(
    labels: np.ndarray, rows: int, columns: int
) -> None:
    grid = BlockGrid(labels.shape, rows, columns)
    blocks = []

    def see(runs: Runs, block: np.ndarray, top: int, left: int) -> Runs:
        blocks.append((top, left, block.shape))
        return runs

    got = list(read_bands(grid, lambda a, b: labels[a[0] : b[0], a[1] : b[1]], see))
    assert len(blocks) == grid.count
    assert sum(h * w for _, _, (h, w) in blocks) == labels.size
    whole = runs_of(labels)
    for name in ("row", "first", "last", "value"):
        joined = np.concatenate([getattr(runs, name) for *_, runs in got])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    np.testing.assert_array_equal(painted(whole, labels.shape), labels)


def test_rows_are_handed_out_a_few_at_a_time(monkeypatch) -> None:
    labels = np.tile(np.array([1, 2], dtype=np.uint8), (10, 8))
    monkeypatch.setattr(runs_module, "PART_RUNS", 40)
    grid = BlockGrid(labels.shape, 7, 16)
    got = list(
        read_bands(grid, lambda a, b: labels[a[0] : b[0]], lambda runs, *_: runs)
    )
    assert [(top, bottom) for top, bottom, _ in got] == [
        (0, 2), (2, 4), (4, 6), (6, 7), (7, 9), (9, 10),
    ]  # fmt: skip
    assert max(len(runs) for *_, runs in got) <= 40
    monkeypatch.setattr(runs_module, "PART_RUNS", 3)  # less than a row has
    got = list(
        read_bands(grid, lambda a, b: labels[a[0] : b[0]], lambda runs, *_: runs)
    )
    assert [bottom - top for top, bottom, _ in got] == [1] * 10


def test_blocks_are_whole_chunks_of_bounded_size() -> None:
    grid = BlockGrid.of((100_000, 100_000), (512, 512))
    assert grid.rows == 512
    assert grid.columns % 512 == 0
    assert grid.rows * grid.columns <= runs_module.BLOCK_PIXELS
    assert BlockGrid.of((1000, 900), None) == BlockGrid((1000, 900), 256, 900)
    wide = BlockGrid.of((5000, 2_000_000), (1024, 1024))
    assert wide.rows * 2_000_000 <= runs_module.BAND_PIXELS
    assert BlockGrid.of((3, 5), (512, 512)) == BlockGrid((3, 5), 3, 5)
    tall = BlockGrid.of((10_000, 10), (10_000, 10))
    assert sum(b - a for a, b in tall.bands()) == 10_000
