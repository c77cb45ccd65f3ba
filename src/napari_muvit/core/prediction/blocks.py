"""Cutting a prediction into blocks of tiles for several processes; torch-free.

A block is a square of tiles that one worker does on its own: a task of a second or
more. Crops at the border of two blocks go through the model in both, with the same
answer, so blocks are many crops wide.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .plan import PredictionPlan

LEAST_TILES = 4
"""Edge of a block in tiles, at least."""
LEAST_CROPS = 16
"""Edge of a block in crops, at least: a border costs an eighth more then."""


def block_edge(plan: PredictionPlan) -> int:
    """Edge of a block in tiles."""
    core = max(axis.core for axis in plan.axes)
    tile = plan.tile_size * min(plan.zoom)
    return max(LEAST_TILES, -(-LEAST_CROPS * core // max(1, int(tile))))


class BlockSchedule:
    """Hands out blocks of the tiles that are left; safe from any thread.

    Parameters
    ----------
    plan
        The tiles.
    done
        One flag a tile of the slide's grid: those that are finished.
    """

    def __init__(self, plan: PredictionPlan, done: NDArray[np.bool_]) -> None:
        self._plan = plan
        self._edge = block_edge(plan)
        self._lock = threading.Lock()
        self._taken = done.copy()
        self._order = plan.order(self._taken)

    def next(self) -> tuple[int, ...] | None:
        """Take the tiles of the next block, None when all are taken."""
        with self._lock:
            while len(self._order):
                block = self._block_of(self._order)
                mine = block == block[0]
                tiles = self._order[mine]
                self._order = self._order[~mine]
                self._taken[tiles] = True
                return tuple(int(i) for i in tiles)
            return None

    def focus(self, box: Sequence[float] | None) -> None:
        """Put the blocks near ``box`` (output pixels) first."""
        with self._lock:
            self._order = self._plan.order(self._taken, box)

    def _block_of(self, tiles: NDArray[np.int64]) -> NDArray[np.int64]:
        return block_numbers(self._plan, tiles, self._edge)


def block_numbers(
    plan: PredictionPlan, tiles: NDArray[np.int64], edge: int
) -> NDArray[np.int64]:
    """Return the block of each tile, counted row by row over the whole slide."""
    rows, columns = np.divmod(tiles, plan.grid[1])
    across = -(-plan.grid[1] // edge)
    return np.asarray(rows // edge * across + columns // edge)


def in_shard(plan: PredictionPlan, shard: tuple[int, int]) -> NDArray[np.bool_]:
    """One flag a tile of the slide's grid: whether its block belongs to a shard.

    Of shard (i, n) is every n-th block, from the i-th (0 is the first).
    """
    index, count = shard
    tiles = np.arange(plan.num_tiles, dtype=np.int64)
    return np.asarray(block_numbers(plan, tiles, block_edge(plan)) % count == index)


def count_work(
    plan: PredictionPlan, shard: tuple[int, int] | None = None
) -> tuple[int, int, int]:
    """Return the numbers of tiles, crops and shared contexts of a run."""
    tiles = plan.indices()
    if shard is not None:
        tiles = tiles[in_shard(plan, shard)[tiles]]
    crops = np.zeros(plan.num_crops, dtype=bool)
    for index in tiles:
        crops[plan.crops_of(plan.tile(int(index)))] = True
    if plan.contexts is None:
        return len(tiles), int(crops.sum()), 0
    contexts = {plan.crop(int(i)).context for i in np.flatnonzero(crops)}
    return len(tiles), int(crops.sum()), len(contexts)
