"""Brush masks: painted pixels at any place and scale; only the painted part is kept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError
from ..geometry import Box
from .areas import Pair, checked_label, checked_pair
from .resample import nearest_positions

MAX_PIXELS = 2**28
"""Pixels of a mask; a painted part that is larger needs a coarser scale."""


@dataclass(frozen=True, eq=False)
class BrushMask:
    """Painted pixels with a class.

    Rows and columns around the painted part are cut off, so that memory follows what
    is painted and not how large the canvas was.
    """

    label: int
    """1..K, or 0 to take away what lies below."""
    mask: NDArray[np.bool_]
    """(h, w), True where painted."""
    offset: Pair = (0.0, 0.0)
    """World position (y, x) of the lower edges of the mask's first pixel."""
    scale: Pair = (1.0, 1.0)
    """World pixels per pixel of the mask, (y, x)."""

    def __post_init__(self) -> None:
        label = checked_label(self.label, "A brush mask")
        offset = checked_pair(self.offset, "The place of a brush mask")
        scale = checked_pair(self.scale, "The scale of a brush mask", positive=True)
        mask, first = _painted(np.asarray(self.mask))
        offset = checked_pair(np.add(offset, np.multiply(first, scale)), "The place")
        object.__setattr__(self, "label", label)
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "offset", offset)
        object.__setattr__(self, "scale", scale)

    @property
    def lower(self) -> NDArray[np.float64]:
        """Smallest y and x."""
        return np.array(self.offset)

    @property
    def upper(self) -> NDArray[np.float64]:
        """Largest y and x."""
        return np.add(self.offset, np.multiply(self.mask.shape, self.scale))

    @property
    def step(self) -> Pair:
        """World pixels per pixel of the mask."""
        return self.scale

    def scaled(self, zoom: NDArray[np.float64]) -> BrushMask:
        """Multiply its place and size by ``zoom`` (y, x)."""
        offset, scale = np.multiply(self.offset, zoom), np.multiply(self.scale, zoom)
        return dataclasses.replace(
            self,
            offset=checked_pair(offset, "The place of a brush mask"),
            scale=checked_pair(scale, "The scale of a brush mask", positive=True),
        )

    def fill(self, out: NDArray[np.uint8], box: Box) -> None:
        """Write the label into ``out`` wherever a pixel centre is painted.

        Parameters
        ----------
        out
            (h, w), changed in place.
        box
            World box that ``out`` covers.
        """
        windows, sources = [], []
        for axis, count in enumerate(out.shape):
            scale, size = self.scale[axis], self.mask.shape[axis]
            start = (box.lower[axis] - self.offset[axis]) / scale
            step = box.shape[axis] / scale / count
            # Only the pixels around the mask: the rest may lie beyond all integers.
            near = np.clip([-start / step, (size - start) / step], -1, count + 1)
            low = max(0, int(near[0]) - 1)
            high = min(count, int(near[1]) + 2)
            if high <= low:
                return
            source = nearest_positions(start + step * low, step, high - low)
            inside = np.flatnonzero((source >= 0) & (source < size))
            if not len(inside):
                return
            windows.append(slice(low + int(inside[0]), low + int(inside[-1]) + 1))
            sources.append(source[inside])
        window = out[windows[0], windows[1]]
        window[self.mask[np.ix_(*sources)]] = self.label


def _painted(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Read-only copy of the painted part, and its first row and column."""
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise AnnotationError(
            f"A brush mask has the shape {mask.shape} and the type {mask.dtype}; "
            "(h, w) of bool is needed."
        )
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise AnnotationError("A brush mask has no painted pixel; it needs one.")
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    if part.size > MAX_PIXELS:
        raise AnnotationError(
            f"The painted part of a brush mask is {part.shape[0]} x {part.shape[1]} "
            f"pixels; at most {MAX_PIXELS} are kept. Paint at a coarser scale, or use "
            "a label image."
        )
    if part.size == mask.size and mask.flags.owndata and not mask.flags.writeable:
        return mask, (0, 0)
    kept = part.copy()
    kept.flags.writeable = False
    return kept, (top, left)
