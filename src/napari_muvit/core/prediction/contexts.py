"""Where the coarser crops lie that many fine crops share; torch-free.

They lie on a grid that is fixed to the slide, as far apart as every fine crop still
lies inside one. It lies anywhere in there, as it does in training. A pixel's context is
the same whatever region is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..geometry import Box, nest, surround

if TYPE_CHECKING:
    from ..config import ModelConfig


@dataclass(frozen=True, slots=True)
class ContextGrid:
    """Nested crops of the coarser levels."""

    crop_size: int
    """Edge of a fine crop, world pixels."""
    scale_factors: tuple[float, ...]
    """Of all levels, finest (1) first."""
    extent: Box
    """The slide in world coordinates."""
    shift: bool = False
    """Whether the grid lies half a step nearer to the start, with one place more."""

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

    def _steps(self, axis: int) -> int:
        return max(1, math.ceil(self.extent.shape[axis] / self.stride))

    def _shift(self, axis: int) -> float:
        """In steps; 0 where one place sees all."""
        return 0.5 if self.shift and self._steps(axis) > 1 else 0.0

    def _count(self, axis: int) -> int:
        return self._steps(axis) + (self._shift(axis) > 0)

    @property
    def count(self) -> int:
        """Number of contexts."""
        return self._count(0) * self._count(1)

    def index_of(self, place: Sequence[float]) -> int:
        """Return the context of a fine crop whose centre is at (y, x)."""
        row, column = (
            min(
                max(
                    math.floor(
                        (p - low) / size * self._steps(axis) + self._shift(axis)
                    ),
                    0,
                ),
                self._count(axis) - 1,
            )
            for axis, (p, low, size) in enumerate(
                zip(place, self.extent.lower, self.extent.shape, strict=True)
            )
        )
        return row * self._count(1) + column

    def cell(self, index: int, margin: float = 0.0) -> Box:
        """Return where the centres of a context's fine crops lie, world pixels.

        Parameters
        ----------
        index
            Place in the grid, row by row.
        margin
            World pixels around it that belong to it, too, inside the slide.
        """
        lower, upper = [], []
        for axis, place in enumerate(divmod(index, self._count(1))):
            low, high = self.extent.lower[axis], self.extent.upper[axis]
            step = (high - low) / self._steps(axis)
            start = low + (place - self._shift(axis)) * step
            lower.append(max(start - margin, low))
            upper.append(min(start + step + margin, high))
        return Box(tuple(lower), tuple(upper))

    def boxes(self, index: int) -> tuple[Box, ...]:
        """Return the boxes of the coarser levels of a context, finest first."""
        # All that fine crops of this context can cover.
        inner = self.cell(index, margin=self.crop_size / 2)
        factors = self.scale_factors[1:]
        box = surround(inner, (self.edge,) * 2, factors[0], self.extent)
        return nest(box, factors, self.extent).boxes


def has_preview(model: ModelConfig) -> bool:
    """Whether a model's coarsest level has a head, and looks at nothing else."""
    return bool(model.level_heads) and model.shares_context


def preview_notes(model: ModelConfig) -> tuple[str, ...]:
    """Return why there can be no preview; nothing where there can."""
    if has_preview(model):
        return ()
    return (
        "There is no preview: it needs a model with coarse_to_fine or within_level "
        "attention, true boxes, the pyramid or UNETR decoder and level heads; this one "
        f"has {model.attention}, {model.boxes} boxes, {model.decoder} and "
        f"{'' if model.level_heads else 'no '}level heads.",
    )
