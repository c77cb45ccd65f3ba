"""Where the crops of a slide lie, and how much each of them says about a pixel.

Crops lie on a grid that is fixed to the slide, whatever region is asked for, so a pixel
gets the same answer from a region and from the whole slide. Along an axis the slide is
cut into even *cores*; a crop is put around each core and speaks for its *window*: the
core and, with overlap, a margin on both sides. Where windows overlap, each crop's share
falls off as a Gaussian around its core, and the shares of a pixel sum to one.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIGMA = 1 / 8
"""Of the Gaussian, in crop edges."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Crops along one axis; all numbers are whole world pixels."""

    first: int
    """First pixel of the slide."""
    last: int
    """The pixel after its last one."""
    crop: int
    """Edge of a crop."""
    core: int
    """Largest edge of a core, at most ``crop``."""
    shift: int = 0
    """By how much the edges between cores lie nearer to the start; see `shifted`."""

    @property
    def count(self) -> int:
        """Number of crops."""
        return self._cuts + (self.shift > 0)

    @property
    def _cuts(self) -> int:
        """Number of even cores."""
        return max(1, -(-(self.last - self.first) // self.core))

    def shifted(self) -> Axis:
        """Return the grid whose edges lie half a core away, with one crop more.

        The first and the last core are shorter. The same grid where there is no edge
        between cores, or no room.
        """
        if self._cuts == 1:
            return self
        half = (self.last - self.first) // self._cuts // 2
        return dataclasses.replace(self, shift=half)

    @property
    def margin(self) -> int:
        """Pixels on either side of a core for which its crop speaks, too."""
        return (self.crop - self.core) // 2

    def edge(self, index: int) -> int:
        """Return the first pixel of a core; of ``count``, the slide's end."""
        if index == self.count:
            return self.last
        even = self.first + (self.last - self.first) * index // self._cuts
        return max(even - self.shift, self.first)

    def window(self, index: int) -> tuple[int, int]:
        """Return the pixels that a crop speaks for, half open."""
        lower = max(self.edge(index) - self.margin, self.first)
        return lower, min(self.edge(index + 1) + self.margin, self.last)

    def touching(self, lower: int, upper: int) -> range:
        """Return the crops whose windows have a pixel in [lower, upper)."""
        length = max(self.last - self.first, 1)
        # A core is at least half as long as the mean: the guess is off by few.
        start = self.first - self.shift
        low = (lower - self.margin - start) * self._cuts // length
        high = (upper + self.margin - start) * self._cuts // length + 1
        low, high = max(low - 1, 0), min(high + 1, self.count)
        while low < high and self.window(low)[1] <= lower:
            low += 1
        while high > low and self.window(high - 1)[0] >= upper:
            high -= 1
        return range(low, high)

    def weights(self, index: int) -> NDArray[np.float32]:
        """Return a crop's share in each pixel of its window, float32."""
        lower, upper = self.window(index)
        if self.margin == 0:
            return np.ones(upper - lower, dtype=np.float32)
        pixels = np.arange(lower, upper)
        others = self.touching(lower, upper)
        exponents = np.stack([self._exponents(i, pixels) for i in others])
        # From the largest one, so that no pixel is left without a share.
        shares = np.exp(exponents - exponents.max(axis=0))
        mine = shares[index - others.start] / shares.sum(axis=0)
        return np.asarray(mine, dtype=np.float32)

    def _exponents(self, index: int, pixels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Exponent of the Gaussian around a core, minus infinity outside its window."""
        lower, upper = self.window(index)
        centre = (self.edge(index) + self.edge(index + 1) - 1) / 2
        exponent = -0.5 * np.square((pixels - centre) / (SIGMA * self.crop))
        inside = (pixels >= lower) & (pixels < upper)
        return np.where(inside, exponent, -np.inf)


def core_size(crop_size: int, overlap: float) -> int:
    """Largest edge of a core for crops that share ``overlap`` of their edge."""
    return max(1, math.floor(crop_size * (1 - overlap) + 1e-9))
