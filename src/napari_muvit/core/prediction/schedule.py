"""Which crop goes through the model next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .plan import PredictionPlan
    from .tiles import Crop, Tile


class Schedule:
    """Crops of one tile after the other; safe from any thread.

    A crop that says something about two tiles is handed out once, with the first of
    them.

    Parameters
    ----------
    plan
        Tiles and crops.
    done
        One flag a tile of the slide's grid: those that are finished.
    """

    def __init__(self, plan: PredictionPlan, done: NDArray[np.bool_]) -> None:
        self._plan = plan
        self._finished = done.copy()
        self._taken = np.zeros(plan.num_crops, dtype=bool)
        self._lock = threading.Lock()
        self._left = iter(plan.order(self._finished))
        self._crops: deque[int] = deque()

    def next(self) -> Crop | None:
        """Take the next crop, None when all are taken."""
        with self._lock:
            while not self._crops:
                index = next(self._left, None)
                if index is None:
                    return None
                self._begin(self._plan.tile(int(index)))
            return self._plan.crop(self._crops.popleft())

    def focus(self, box: Sequence[float] | None) -> None:
        """Put the tiles near ``box`` (output pixels) first."""
        with self._lock:
            # What is left of the tile that was begun comes first all the same.
            self._left = iter(self._plan.order(self._finished, box))

    def _begin(self, tile: Tile) -> None:
        """Take the crops of a tile that have not been taken with another one."""
        crops = [c for c in self._plan.crops_of(tile) if not self._taken[c]]
        self._taken[crops] = True
        self._crops.extend(crops)
        # All of its crops are on their way.
        self._finished[tile.index] = True
