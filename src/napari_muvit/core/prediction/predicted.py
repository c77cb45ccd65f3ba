"""What a run hands out; torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .checks import PixelBox


@dataclass(frozen=True, slots=True)
class PredictedTile:
    """A finished tile, written already where there is an output."""

    index: int
    """Place in the slide's tile grid, row by row."""
    box: PixelBox
    """(y0, x0, y1, x1) in pixels of the slide's finest level."""
    labels: NDArray[np.uint8]
    """Labels 1..K of the box, uint8; 0 where the model's answer was not a number."""
    done: int
    """Finished tiles of those asked for, earlier runs included."""
    total: int
    """Tiles that were asked for."""
    probabilities: NDArray[np.uint8] | None = None
    """(K, h, w) uint8, 255 times each class's probability; None: not asked for."""
    confidence: NDArray[np.uint8] | None = None
    """(h, w) uint8, the largest probability; None: not asked for."""
