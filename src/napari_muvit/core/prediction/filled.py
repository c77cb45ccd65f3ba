"""What a prediction says about a tile; torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .tiles import Tile

LABELS = "labels"
"""Name of the output that is always there."""


@dataclass(frozen=True, slots=True)
class FilledTile:
    """A tile that all crops have answered, in world pixels or in output pixels.

    Attributes
    ----------
    tile
        Which one.
    labels
        (h, w) uint8, 1..K; 0 where an answer was not a number.
    probabilities
        (K, h, w) uint8, 255 times each class's probability; None: not asked for.
    confidence
        (h, w) uint8, the largest probability; None: not asked for.
    """

    tile: Tile
    labels: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None = None
    confidence: NDArray[np.uint8] | None = None

    @property
    def images(self) -> dict[str, NDArray[np.uint8]]:
        """What there is, by its name."""
        found = {
            LABELS: self.labels,
            "probabilities": self.probabilities,
            "confidence": self.confidence,
        }
        return {name: pixels for name, pixels in found.items() if pixels is not None}

    def to_output(self) -> FilledTile:
        """Resample (nearest) from world pixels to output pixels."""
        moved = {k: self.tile.to_output(pixels) for k, pixels in self.images.items()}
        return FilledTile(self.tile, **moved)
