"""Where on the slide is painted, and how coarsely. No Qt, no napari."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.data.areas import Pair
from ..core.data.brush_mask import BrushMask
from ..core.geometry import Box

MAX_EDGE = 4096
"""Pixels of a canvas along each edge; painting stays fluent up to there."""
ROOM = 2.0
"""A canvas is so many times as wide as what is on screen."""
ALIGNED = 1e-3


@dataclass(frozen=True, slots=True)
class Canvas:
    """A grid of pixels upon a part of the slide."""

    lower: Pair
    """Slide pixels (y, x), the lower edges of its first pixel."""
    scale: Pair
    """Slide pixels per pixel, (y, x)."""
    shape: tuple[int, int]
    """Pixels (h, w)."""

    @property
    def box(self) -> Box:
        """What it covers, in slide pixels."""
        upper = np.add(self.lower, np.multiply(self.shape, self.scale))
        return Box(tuple(self.lower), tuple(upper))

    def window(self, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> Window:
        """Return the pixels that meet a box of the slide, as far as there are any."""
        first = np.floor((lower - self.lower) / self.scale)
        last = np.ceil((upper - self.lower) / self.scale)
        rows, columns = (
            slice(int(np.clip(a, 0, n)), int(np.clip(b, 0, n)))
            for a, b, n in zip(first, last, self.shape, strict=True)
        )
        return rows, columns

    def part(self, window: Window) -> Box:
        """Return the box of a window in slide pixels."""
        low = [w.start for w in window]
        high = [w.stop for w in window]
        return Box(
            tuple(np.add(self.lower, np.multiply(low, self.scale))),
            tuple(np.add(self.lower, np.multiply(high, self.scale))),
        )

    def holds(self, mask: BrushMask) -> bool:
        """Whether a mask lies inside, pixel upon pixel."""
        if not np.allclose(mask.scale, self.scale, rtol=1e-9):
            return False
        steps = np.subtract(mask.offset, self.lower) / self.scale
        inside = (steps > -0.5) & (steps + mask.mask.shape < np.add(self.shape, 0.5))
        return bool(inside.all() and (abs(steps - np.round(steps)) < ALIGNED).all())


Window = tuple[slice, slice]


def canvas_around(view: Box, screen_pixel: float, extent: tuple[int, int]) -> Canvas:
    """Return a canvas for what is on screen, with some room around.

    Parameters
    ----------
    view
        Slide pixels on screen.
    screen_pixel
        Slide pixels per pixel of the screen.
    extent
        (height, width) of the slide.
    """
    level = max(0, round(math.log2(max(screen_pixel, 1e-6))))
    while max(view.shape) / 2**level > MAX_EDGE:
        level += 1
    factor = float(2**level)
    lower, shape = [], []
    for low, high, size in zip(view.lower, view.upper, extent, strict=True):
        count = min(MAX_EDGE, math.ceil(size / factor))
        count = min(count, max(1, math.ceil(ROOM * (high - low) / factor)))
        first = round((low + high) / 2 / factor - count / 2)
        first = max(0, min(first, math.ceil(size / factor) - count))
        lower.append(first * factor)
        shape.append(count)
    return Canvas((lower[0], lower[1]), (factor, factor), (shape[0], shape[1]))


def canvas_of(masks: list[BrushMask], extent: tuple[int, int]) -> Canvas:
    """Return a canvas that holds masks of one grid, with room to go on painting."""
    first = masks[0]
    scale = np.asarray(first.scale)
    low = np.min([m.offset for m in masks], axis=0)
    high = np.max([m.upper for m in masks], axis=0)
    start = np.round((low - first.offset) / scale)
    count = np.round((high - low) / scale)
    room = np.maximum(0, np.minimum(MAX_EDGE // 2, MAX_EDGE - count) - count) // 2
    # No further than the slide, unless the masks are.
    before = np.minimum(room, np.maximum(0, np.floor(low / scale)))
    after = np.minimum(room, np.maximum(0, np.floor((extent - high) / scale)))
    lower = first.offset + (start - before) * scale
    shape = count + before + after
    return Canvas(
        (float(lower[0]), float(lower[1])), first.scale, (int(shape[0]), int(shape[1]))
    )


def grouped(masks: list[BrushMask]) -> list[list[BrushMask]]:
    """Masks that one canvas can hold together."""
    groups: list[list[BrushMask]] = []
    for mask in masks:
        for group in groups:
            together = [*group, mask]
            low = np.min([m.offset for m in together], axis=0)
            high = np.max([m.upper for m in together], axis=0)
            size = np.ceil((high - low) / group[0].scale - ALIGNED)
            if size.max() > MAX_EDGE:
                continue
            canvas = Canvas(
                (float(low[0]), float(low[1])),
                group[0].scale,
                (int(size[0]), int(size[1])),
            )
            if all(canvas.holds(m) for m in together):
                group.append(mask)
                break
        else:
            groups.append([mask])
    return groups
