"""Label images as runs: stretches of one label in a row, gathered block by block.

Rows and columns are pixels of the finest level; a run covers [first, last).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Labels = NDArray[np.uint8]

BLOCK_PIXELS = 2**24
"""Pixels that are read at a time."""
BAND_PIXELS = 2**26
"""Pixels of the rows whose runs are gathered at a time."""
BAND_ROWS = 256
"""Rows of a band where chunks are lower than that."""
PART_RUNS = 2**18
"""Runs that are followed at a time; a row alone may have more."""


@dataclass(frozen=True, eq=False, slots=True)
class Runs:
    """Runs of one label, sorted by row and column."""

    row: Ints
    """(n,) row."""
    first: Ints
    """(n,) first column."""
    last: Ints
    """(n,) column behind the last one."""
    value: Labels
    """(n,) label."""

    def __len__(self) -> int:
        return len(self.row)

    def select(self, which: slice | NDArray[np.bool_] | Ints) -> Runs:
        """Return some of them, in the order that is given."""
        return Runs(
            self.row[which], self.first[which], self.last[which], self.value[which]
        )


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """How an image is cut into blocks."""

    shape: tuple[int, int]
    """Pixels (y, x) of the image."""
    rows: int
    """Rows of a band."""
    columns: int
    """Columns of a block."""

    @classmethod
    def of(
        cls, shape: tuple[int, int], chunks: Sequence[int] | None = None
    ) -> BlockGrid:
        """Whole chunks, unless they are too large to be read at a time."""
        height, width = shape
        tall, wide = chunks or (BAND_ROWS, width)
        rows = tall * max(1, BAND_ROWS // tall)
        if rows * width > BAND_PIXELS:
            rows = max(1, min(rows, BAND_PIXELS // width))
        columns = max(1, BLOCK_PIXELS // rows // wide) * wide
        return cls(shape, min(rows, height), max(1, min(columns, width)))

    @property
    def count(self) -> int:
        """Number of blocks."""
        height, width = self.shape
        return -(-height // self.rows) * -(-width // self.columns)

    def bands(self) -> Iterator[tuple[int, int]]:
        """First row of each band, and the one behind its last."""
        for top in range(0, self.shape[0], self.rows):
            yield top, min(top + self.rows, self.shape[0])

    def spans(self) -> Iterator[tuple[int, int]]:
        """First column of each block, and the one behind its last."""
        for left in range(0, self.shape[1], self.columns):
            yield left, min(left + self.columns, self.shape[1])


def runs_of(block: Labels, top: int = 0, left: int = 0) -> Runs:
    """Runs of a block whose first pixel lies at (top, left).

    Parameters
    ----------
    block
        (h, w), uint8.
    top, left
        Added to rows and columns.
    """
    width = block.shape[1]
    begins = np.empty(block.shape, dtype=bool)
    begins[:, 0] = True
    np.not_equal(block[:, 1:], block[:, :-1], out=begins[:, 1:])
    start = np.flatnonzero(begins)
    row, first = np.divmod(start, width)
    # Each row begins a run, so the next one begins where this one ends.
    last = np.append(start[1:], block.size) - row * width
    return Runs(row + top, first + left, last + left, block.reshape(-1)[start])


def joined(parts: Sequence[Runs]) -> Runs:
    """Join blocks that lie side by side, and runs that go on in the next one."""
    if len(parts) == 1:
        return merged(parts[0])
    row = np.concatenate([p.row for p in parts])
    order = np.argsort(row, kind="stable")
    return merged(
        Runs(
            row[order],
            np.concatenate([p.first for p in parts])[order],
            np.concatenate([p.last for p in parts])[order],
            np.concatenate([p.value for p in parts])[order],
        )
    )


def merged(runs: Runs) -> Runs:
    """Join neighbours of the same label."""
    if len(runs) < 2:
        return runs
    goes_on = (
        (runs.first[1:] == runs.last[:-1])
        & (runs.row[1:] == runs.row[:-1])
        & (runs.value[1:] == runs.value[:-1])
    )
    if not goes_on.any():
        return runs
    begins, ends = np.append(True, ~goes_on), np.append(~goes_on, True)
    return Runs(
        runs.row[begins], runs.first[begins], runs.last[ends], runs.value[begins]
    )


def read_bands(
    grid: BlockGrid,
    read: Callable[[tuple[int, int], tuple[int, int]], Labels],
    see: Callable[[Runs, Labels, int, int], Runs],
) -> Iterator[tuple[int, int, Runs]]:
    """Read an image block by block, and hand out the runs of some rows at a time.

    Parameters
    ----------
    grid
        How it is cut; what is handed out does not depend on it.
    read
        Pixels [lower, upper), (h, w).
    see
        Told the runs of a block, its pixels and its place (top, left); returns the
        runs that are to be followed.

    Yields
    ------
    tuple of (int, int, Runs)
        First row, row behind the last, and the runs between; rows follow one another.
    """
    for top, bottom in grid.bands():
        parts = []
        for left, right in grid.spans():
            block = read((top, left), (bottom, right))
            parts.append(see(runs_of(block, top, left), block, top, left))
        yield from _parts(joined(parts), top, bottom)


def _parts(runs: Runs, top: int, bottom: int) -> Iterator[tuple[int, int, Runs]]:
    """Cut between rows so that no part has more than `PART_RUNS`, if it can be."""
    cuts = np.searchsorted(runs.row, np.arange(top, bottom + 1))
    row = top
    while row < bottom:
        held = cuts[row - top]
        end = top + int(np.searchsorted(cuts, held + PART_RUNS, side="right")) - 1
        end = min(max(end, row + 1), bottom)
        yield row, end, runs.select(slice(int(held), int(cuts[end - top])))
        row = end
