"""Pixels of a painted layer: read as masks, set so that napari can undo it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.data.brush_mask import BrushMask
from ..core.geometry import Box
from .brush_canvas import Canvas

if TYPE_CHECKING:
    from napari.layers import Labels

CANVAS = "muvit_canvas"
"""Where a layer lies, in its metadata."""
FINER = 4.0
"""A canvas is used at a zoom that shows up to so many of its pixels in one."""


def canvas_under(layer: Labels) -> Canvas:
    """Return where a painted layer lies."""
    canvas: Canvas = layer.metadata[CANVAS]
    return canvas


def fits(canvas: Canvas, wanted: Canvas, view: Box) -> bool:
    """Whether a canvas serves for a view: all of it, and not coarser than wanted."""
    ratio = canvas.scale[0] / wanted.scale[0]
    box = canvas.box
    inside = all(
        low <= a and b <= high
        for low, high, a, b in zip(
            box.lower, box.upper, view.lower, view.upper, strict=True
        )
    )
    return inside and 1 / FINER <= ratio <= 1


def values_touched(strokes: Any) -> set[int] | None:
    """Values that a step of napari's history has put or taken; None: unknown."""
    found: set[int] = set()
    for stroke in strokes:
        masked = hasattr(stroke, "old_values")
        if not masked and (not isinstance(stroke, tuple) or len(stroke) != 3):
            return None
        old, new = (
            (stroke.old_values, stroke.new_value) if masked else (stroke[1], stroke[2])
        )
        for values in (old, new):
            found |= {int(v) for v in np.unique(np.asarray(values))}
    return found


def mask_of(layer: Labels, value: int) -> BrushMask | None:
    """Where a value is painted; None: nowhere."""
    here = np.asarray(layer.data) == value
    if not value or not here.any():
        return None
    canvas = canvas_under(layer)
    return BrushMask(1, here, canvas.lower, canvas.scale)


def same_paint(old: BrushMask, new: BrushMask) -> bool:
    """Whether two masks are the same pixels of one grid."""
    return np.allclose(old.offset, new.offset) and np.array_equal(old.mask, new.mask)


def stamp(layer: Labels, mask: BrushMask, value: int) -> None:
    """Paint a mask that the layer's canvas holds."""
    canvas = canvas_under(layer)
    first = np.round(np.subtract(mask.offset, canvas.lower) / canvas.scale).astype(int)
    rows, columns = (
        slice(int(a), int(a) + n) for a, n in zip(first, mask.mask.shape, strict=True)
    )
    set_pixels(layer, (rows, columns), mask.mask, value)


def set_pixels(
    layer: Labels, window: tuple[slice, slice], where: NDArray[np.bool_], value: int
) -> bool:
    """Set pixels of a window, so that it can be undone; whether there were any."""
    rows, columns = np.nonzero(where)
    if not len(rows):
        return False
    layer.data_setitem((rows + window[0].start, columns + window[1].start), value)
    return True
