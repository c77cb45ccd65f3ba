"""Outlined polygons, filled exactly at pixel centres by scanlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import AnnotationError
from ..geometry import Box

Vertices = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Polygon:
    """An outline with a class; crossings fill by the even-odd rule."""

    label: int
    """1..K, or 0 to take away what lies below."""
    vertices: Vertices
    """(n, 2), world coordinates (y, x), edge to edge: pixel i covers [i, i + 1)."""
    holes: tuple[Vertices, ...] = ()
    """Outlines that are cut out, each (n, 2)."""

    def __post_init__(self) -> None:
        label = self.label
        if isinstance(label, bool) or int(label) != label or not 0 <= label <= 255:
            raise AnnotationError(
                f"A polygon has the class {label!r}; a whole number from 0 to 255 is "
                "needed."
            )
        object.__setattr__(self, "label", int(label))
        object.__setattr__(self, "vertices", _checked(self.vertices))
        object.__setattr__(self, "holes", tuple(_checked(h) for h in self.holes))

    @property
    def lower(self) -> NDArray[np.float64]:
        """Smallest y and x."""
        return np.asarray(self.vertices.min(axis=0))

    @property
    def upper(self) -> NDArray[np.float64]:
        """Largest y and x."""
        return np.asarray(self.vertices.max(axis=0))

    def scaled(self, zoom: NDArray[np.float64]) -> Polygon:
        """Multiply all coordinates by ``zoom`` (y, x)."""
        holes = tuple(h * zoom for h in self.holes)
        return Polygon(self.label, self.vertices * zoom, holes)

    def fill(self, out: NDArray[np.uint8], box: Box) -> None:
        """Write the label into ``out`` wherever a pixel centre lies inside.

        Parameters
        ----------
        out
            (h, w), changed in place.
        box
            World box that ``out`` covers.
        """
        step = np.asarray(box.shape) / out.shape
        lower = np.asarray(box.lower)
        shape = np.asarray(out.shape)
        # Rows and columns whose centre may lie inside.
        first = np.floor((self.lower - lower) / step).astype(int).clip(0, shape)
        last = np.ceil((self.upper - lower) / step).astype(int).clip(0, shape)
        if np.any(last <= first):
            return
        window = out[first[0] : last[0], first[1] : last[1]]
        origin = lower + first * step
        mask = inside_mask((self.vertices - origin) / step, window.shape)
        for hole in self.holes:
            mask &= ~inside_mask((hole - origin) / step, window.shape)
        window[mask] = self.label


def _checked(vertices: ArrayLike) -> Vertices:
    array = np.asarray(vertices, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or len(array) < 3:
        raise AnnotationError(
            f"A polygon has vertices of shape {array.shape}; at least three (y, x) "
            "pairs are needed."
        )
    if not np.isfinite(array).all():
        raise AnnotationError("A polygon has vertices that are not finite.")
    return array


def inside_mask(vertices: Vertices, shape: Sequence[int]) -> NDArray[np.bool_]:
    """Which pixel centres lie inside an outline, by the even-odd rule.

    Parameters
    ----------
    vertices
        Closed polygon, (n, 2), in pixels, edge to edge.
    shape
        (h, w).

    Returns
    -------
    ndarray
        (h, w), bool.
    """
    height, width = shape
    start, stop = vertices, np.roll(vertices, -1, axis=0)
    low = np.minimum(start[:, 0], stop[:, 0])
    high = np.maximum(start[:, 0], stop[:, 0])
    # Rows whose centre row + 0.5 lies in [low, high).
    first = np.clip(np.ceil(low - 0.5), 0, height).astype(np.intp)
    last = np.clip(np.ceil(high - 0.5), 0, height).astype(np.intp)
    count = np.maximum(last - first, 0)
    edge = np.repeat(np.arange(len(start)), count)
    rank = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    row = first[edge] + rank
    share = (row + 0.5 - start[edge, 0]) / (stop[edge, 0] - start[edge, 0])
    crossing = start[edge, 1] + share * (stop[edge, 1] - start[edge, 1])
    # The first pixel whose centre lies right of the crossing flips.
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.intp)
    flips = np.bincount(row * (width + 1) + column, minlength=height * (width + 1))
    odd = (flips & 1).astype(np.uint8).reshape(height, width + 1)
    filled = np.bitwise_xor.accumulate(odd, axis=1)[:, :width]
    return filled.astype(bool)
