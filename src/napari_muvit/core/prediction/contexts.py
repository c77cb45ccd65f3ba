"""Where the coarser crops lie that many fine crops share; torch-free.

They lie on a grid that is fixed to the slide, as far apart as every fine crop still
lies inside one. It lies anywhere in there, as it does in training. A pixel's context is
the same whatever region is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..geometry import Box, nest, surround


@dataclass(frozen=True, slots=True)
class ContextGrid:
    """Nested crops of the coarser levels."""

    crop_size: int
    """Edge of a fine crop, world pixels."""
    scale_factors: tuple[float, ...]
    """Of all levels, finest (1) first."""
    extent: Box
    """The slide in world coordinates."""

    @property
    def edge(self) -> float:
        """Edge of the finest of the coarser crops, world pixels."""
        return self.crop_size * self.scale_factors[1]

    @property
    def stride(self) -> float:
        """Largest distance of two neighbours, world pixels; below 1: no grid."""
        # A fine crop around any place half a stride away must still lie inside, after
        # the coarse one has moved onto the pixels of its level.
        return self.edge - self.crop_size - 2 * self.scale_factors[1]

    def _count(self, axis: int) -> int:
        return max(1, math.ceil(self.extent.shape[axis] / self.stride))

    @property
    def count(self) -> int:
        """Number of contexts."""
        return self._count(0) * self._count(1)

    def index_of(self, place: Sequence[float]) -> int:
        """Return the context of a fine crop whose centre is at (y, x)."""
        row, column = (
            min(
                max(math.floor((p - low) / size * self._count(axis)), 0),
                self._count(axis) - 1,
            )
            for axis, (p, low, size) in enumerate(
                zip(place, self.extent.lower, self.extent.shape, strict=True)
            )
        )
        return row * self._count(1) + column

    def boxes(self, index: int) -> tuple[Box, ...]:
        """Return the boxes of the coarser levels of a context, finest first."""
        lower, upper = [], []
        for axis, place in enumerate(divmod(index, self._count(1))):
            low, high = self.extent.lower[axis], self.extent.upper[axis]
            step = (high - low) / self._count(axis)
            # All that fine crops of this context can cover.
            margin = self.crop_size / 2
            lower.append(max(low + place * step - margin, low))
            upper.append(min(low + (place + 1) * step + margin, high))
        inner = Box(tuple(lower), tuple(upper))
        factors = self.scale_factors[1:]
        box = surround(inner, (self.edge,) * 2, factors[0], self.extent)
        return nest(box, factors, self.extent).boxes
