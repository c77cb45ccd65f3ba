"""What a plan is made of: crops that go through the model, tiles that come out.

Torch-free. Boxes are world pixels of the finest level or output pixels, as said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry import Box, NestedCrop
from .checks import PixelBox, Span


@dataclass(frozen=True, slots=True)
class Crop:
    """What goes through the model: where it looks and what of its answer counts."""

    index: int
    """Place in the slide's grid of crops, row by row."""
    padded: NestedCrop
    """What the model reads, one world box a level; finest first."""
    window: tuple[Span, Span]
    """Whole world pixels (rows, columns) that it speaks for."""
    context: int | None = None
    """Of the slide's grid of shared contexts; None: its coarser boxes are its own."""
    elsewhere: tuple[NestedCrop, ...] = ()
    """The same fine box with its coarser ones at other places, for other views."""

    @property
    def slots(self) -> tuple[Box, ...]:
        """The fine box, then the coarser ones of one place after the other."""
        first, *coarser = self.padded.boxes
        for nested in self.elsewhere:
            coarser += nested.boxes[1:]
        return (first, *coarser)

    @property
    def inside(self) -> tuple[slice, slice]:
        """The window in pixels of the crop (rows, columns)."""
        return _slices(self.window, self._origin)

    @property
    def _origin(self) -> tuple[int, int]:
        y, x = self.padded.boxes[0].lower
        return round(y), round(x)

    def part(self, world: tuple[Span, Span]) -> Part | None:
        """Return what of the window lies in a tile's pixels, None when nothing does."""
        rows, columns = (
            (max(a[0], b[0]), min(a[1], b[1]))
            for a, b in zip(self.window, world, strict=True)
        )
        if rows[0] >= rows[1] or columns[0] >= columns[1]:
            return None
        return Part(
            crop=_slices((rows, columns), self._origin),
            window=_slices((rows, columns), (self.window[0][0], self.window[1][0])),
            tile=_slices((rows, columns), (world[0][0], world[1][0])),
        )


@dataclass(frozen=True, slots=True)
class Part:
    """The same pixels, as (rows, columns) of a crop, of its window and of a tile."""

    crop: tuple[slice, slice]
    window: tuple[slice, slice]
    tile: tuple[slice, slice]


def _slices(spans: tuple[Span, Span], origin: tuple[int, int]) -> tuple[slice, slice]:
    (y0, y1), (x0, x1) = spans
    y, x = origin
    return slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)


@dataclass(frozen=True, slots=True)
class Tile:
    """One output chunk: it is handed out and written as a whole."""

    index: int
    """Place in the slide's tile grid, row by row."""
    box: PixelBox
    """Output pixels, clipped to the slide."""
    world: tuple[Span, Span]
    """Whole world pixels (rows, columns) that fill it."""
    zoom: tuple[float, float]
    """World pixels per output pixel along each axis."""
    offset: tuple[float, float]
    """World position of the lower edge of output pixel 0."""

    @property
    def world_shape(self) -> tuple[int, int]:
        """Rows and columns of world pixels."""
        (y0, y1), (x0, x1) = self.world
        return y1 - y0, x1 - x0

    def to_output(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resample (nearest) from the tile's world pixels to its output pixels.

        Parameters
        ----------
        pixels
            (..., *world_shape), uint8.

        Returns
        -------
        ndarray
            (..., *shape of ``box``), uint8.
        """
        if self.zoom == (1.0, 1.0):
            return pixels
        spans = ((self.box[0], self.box[2]), (self.box[1], self.box[3]))
        rows, columns = (
            np.clip(
                np.floor(o + (np.arange(*span) + 0.5) * z).astype(np.intp) - first,
                0,
                last - first - 1,
            )
            for span, (first, last), z, o in zip(
                spans, self.world, self.zoom, self.offset, strict=True
            )
        )
        return np.ascontiguousarray(pixels[..., rows[:, None], columns])
