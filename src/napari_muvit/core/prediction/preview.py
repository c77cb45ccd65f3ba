"""A picture of the whole slide in moments, from the heads of the coarse levels.

With ``coarse_to_fine`` attention the coarsest level depends on nothing else, and few of
its crops cover a slide. Finer levels depend on coarser ones only, so the shared
contexts of a run say more of the slide while it goes on. Previews are arrays of their
own: no pixel of them ever gets into the labels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..geometry import Box

MOST_PIXELS = 4096
"""Longest edge of a preview: beyond, it shows every second, third ... pixel."""


class Preview:
    """Labels of the whole slide at the scale of a coarse level, growing.

    Parameters
    ----------
    extent
        The slide in world coordinates.
    factor
        Of the level, world pixels per pixel.
    zoom, offset
        World pixels per output pixel, and world position of the lower edge of output
        pixel 0, along each axis.

    Attributes
    ----------
    labels
        (h, w) labels 1..K, uint8; 0 where nothing is known yet.
    version
        Goes up with each change, so that a look at it says whether to draw again.
    finer
        The same at a finer level, known bit by bit; None where there is none.
    """

    def __init__(
        self,
        extent: Box,
        factor: float,
        zoom: tuple[float, float],
        offset: tuple[float, float],
    ) -> None:
        self.world_scale = factor * math.ceil(max(extent.shape) / factor / MOST_PIXELS)
        self._lower, self._upper = extent.lower, extent.upper
        self._zoom, self._offset = zoom, offset
        rows, columns = (
            max(1, math.ceil(n / self.world_scale - 1e-6)) for n in extent.shape
        )
        self.labels: NDArray[np.uint8] = np.zeros((rows, columns), dtype=np.uint8)
        self.version = 0
        self.finer: Preview | None = None

    @property
    def scale(self) -> tuple[float, float]:
        """Output pixels per pixel along each axis."""
        y, x = (self.world_scale / z for z in self._zoom)
        return y, x

    @property
    def translation(self) -> tuple[float, float]:
        """Centre of pixel 0, where output pixel 0 has its centre at 0."""
        y, x = (
            (lower - offset) / zoom + scale / 2 - 0.5
            for lower, offset, zoom, scale in zip(
                self._lower, self._offset, self._zoom, self.scale, strict=True
            )
        )
        return y, x

    def paste(self, cell: Box, box: Box, labels: NDArray[np.uint8]) -> None:
        """Fill the pixels whose centres lie in a cell from a crop around it.

        Parameters
        ----------
        cell
            World box.
        box
            World box of the crop, which contains the cell as far as it is known.
        labels
            (H, W) of the crop, uint8; the nearest one is taken.
        """
        spans = [self._span(axis, cell) for axis in range(2)]
        places = []
        for axis, span in enumerate(spans):
            centres = self._lower[axis] + (np.arange(*span) + 0.5) * self.world_scale
            size = labels.shape[axis]
            place = (centres - box.lower[axis]) / box.shape[axis] * size
            places.append(np.clip(np.floor(place).astype(np.intp), 0, size - 1))
        rows, columns = (slice(*span) for span in spans)
        self.labels[rows, columns] = labels[np.ix_(*places)]
        self.version += 1

    def _span(self, axis: int, cell: Box) -> tuple[int, int]:
        """Pixels whose centres lie in a cell."""
        first, last = (
            math.ceil((v - self._lower[axis]) / self.world_scale - 0.5 - 1e-9)
            for v in (cell.lower[axis], cell.upper[axis])
        )
        size = self.labels.shape[axis]
        if cell.upper[axis] > self._upper[axis] - 1e-6 * self.world_scale:
            # The last pixel of a slide may have its centre outside.
            last = size
        return min(max(first, 0), size), min(max(last, 0), size)

    def png(self, colors: Sequence[str], most: int = 2000) -> bytes:
        """Return a picture in the colours of the classes, white where nothing is known.

        Parameters
        ----------
        colors
            ``#rrggbb`` of the labels from 1 on.
        most
            Longest edge, pixels.
        """
        table = np.full((256, 3), 255, dtype=np.uint8)
        table[1 : len(colors) + 1] = [list(bytes.fromhex(c[1:])) for c in colors]
        step = math.ceil(max(self.labels.shape) / most)
        buffer = io.BytesIO()
        Image.fromarray(table[self.labels[::step, ::step]]).save(buffer, format="PNG")
        return buffer.getvalue()
