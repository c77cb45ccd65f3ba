"""Outlined polygons, filled exactly at pixel centres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import AnnotationError
from ..geometry import Box
from .areas import checked_label
from .scanlines import EdgeTable

Vertices = NDArray[np.float64]
MAX_COORDINATE = 2.0**48
"""Pixels; no slide is that large, and centres of pixels are still told apart."""


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
        object.__setattr__(self, "label", checked_label(self.label, "A polygon"))
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
        self._edges.fill(out, box)

    @cached_property
    def _edges(self) -> EdgeTable:
        return edge_table((self,))


def edge_table(polygons: Sequence[Polygon]) -> EdgeTable:
    """Prepare polygons, at least one, to be filled together, later ones on top."""
    return EdgeTable.of(
        [polygon.label for polygon in polygons],
        [(polygon.vertices, *polygon.holes) for polygon in polygons],
    )


def _checked(vertices: ArrayLike) -> Vertices:
    try:
        array = np.asarray(vertices, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(
            f"A polygon has vertices that are no numbers: {error}."
        ) from error
    if array.ndim != 2 or array.shape[1] != 2 or len(array) < 3:
        raise AnnotationError(
            f"A polygon has vertices of shape {array.shape}; at least three (y, x) "
            "pairs are needed."
        )
    if not (np.abs(array) <= MAX_COORDINATE).all():
        raise AnnotationError(
            f"A polygon has vertices that are not finite or beyond {MAX_COORDINATE:g}."
        )
    return array
