"""Single shapes of a Shapes layer as areas of the slide, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._layers import affine, placement
from ._outline_rings import join_rings, split_rings
from .core.data.areas import Ellipse, Rectangle
from .core.data.brush_mask import BrushMask
from .core.data.geojson import BACKGROUND, REGION
from .core.data.items import Area, Region
from .core.data.polygons import Polygon
from .core.errors import AnnotationError

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

Points = NDArray[np.float64]
CLOSED_SHAPES = ("polygon", "rectangle", "ellipse")
ERASED = "Ignore*"
"""Class of what takes away, as in QuPath."""
STRAIGHT = 1e-3
"""Pixels by which the sides of a box may lean."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A shape as it was drawn; one that did not change stays the same object."""

    kind: str
    """napari's shape type."""
    vertices: NDArray[Any]
    """(n, ndim), data coordinates of the layer."""


class Frame:
    """Between the data coordinates of a Shapes layer and the pixels of a slide."""

    def __init__(self, shapes: Shapes, image: Image) -> None:
        self._matrix, self._origin = affine(shapes)
        self._inverse = np.linalg.inv(self._matrix)
        self._place = placement(image)

    def to_pixels(self, points: Points) -> Points:
        """Data coordinates (n, 2) to edge-to-edge pixels of the slide."""
        return self._place.to_pixels(points @ self._matrix.T + self._origin)

    def to_data(self, pixels: Points) -> Points:
        """Edge-to-edge pixels of the slide (n, 2) to data coordinates."""
        world = self._place.to_world(pixels) - self._origin
        return np.asarray(world @ self._inverse.T)

    def same(self, other: Frame | None) -> bool:
        """Whether both lead to the same pixels."""
        if other is None:
            return False
        corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        return np.array_equal(self.to_pixels(corners), other.to_pixels(corners))


def label_of(name: str, names: Sequence[str]) -> int | None:
    """Return the label of a class name.

    ``Region*`` has that of the background, any other name that ends with ``*`` 0; None:
    there is no such class.
    """
    if is_region(name):
        return background_label(names)
    if name in names:
        return names.index(name) + 1
    return 0 if is_special(name) else None


def drawn_area(
    drawn: Drawn, label: int, frame: Frame, *, region: bool = False
) -> Area | None:
    """Return a shape as an area of the slide.

    Parameters
    ----------
    drawn
        Any shape.
    label
        1..K, or 0 to take away what lies below.
    frame
        Of the layer and the slide.
    region
        What is not marked in it is background.

    Returns
    -------
    Area or None
        None: a line, or a click without a drag.
    """
    if drawn.kind not in CLOSED_SHAPES:
        return None
    corners = np.asarray(drawn.vertices, dtype=np.float64)[:, -2:]
    try:
        area = _area(drawn.kind, corners, label, frame)
        return Region(area) if region else area
    except AnnotationError:
        return None


def _area(
    kind: str, corners: Points, label: int, frame: Frame
) -> Polygon | Rectangle | Ellipse:
    if kind == "polygon":
        outer, holes = split_rings(corners)
        return Polygon(
            label, frame.to_pixels(outer), tuple(frame.to_pixels(h) for h in holes)
        )
    pixels = frame.to_pixels(corners)
    if kind == "ellipse":
        centre = pixels.mean(axis=0)
        first, second = (pixels[1] - pixels[0]) / 2, (pixels[3] - pixels[0]) / 2
        return Ellipse.from_diameters(
            label, (float(centre[0]), float(centre[1])), first, second
        )
    lower, upper = pixels.min(axis=0), pixels.max(axis=0)
    corner = (np.abs(pixels - lower) < STRAIGHT) | (np.abs(pixels - upper) < STRAIGHT)
    if corner.all():
        size = upper - lower
        return Rectangle(
            label,
            (float(lower[0]), float(lower[1])),
            (float(size[0]), float(size[1])),
        )
    return Polygon(label, pixels)


def area_drawn(area: Area, frame: Frame) -> Drawn:
    """Return an area of the slide as a shape; a mask is none."""
    if isinstance(area, Region):
        area = area.area
    if isinstance(area, BrushMask):
        raise AnnotationError("A brush mask is painted, not outlined.")
    if isinstance(area, Polygon):
        # As napari stores them, so that a vertex that comes twice stays the same.
        rings = [_stored(frame, ring) for ring in (area.vertices, *area.holes)]
        return Drawn("polygon", join_rings(rings[0], rings[1:]))
    if isinstance(area, Rectangle):
        (top, left), (bottom, right) = area.lower, area.upper
        corners = np.array([(top, left), (top, right), (bottom, right), (bottom, left)])
        return Drawn("rectangle", _stored(frame, corners))
    first, second = area.axes.T
    centre = np.asarray(area.centre)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    corners = np.stack([centre + a * first + b * second for a, b in signs])
    return Drawn("ellipse", _stored(frame, corners))


def _stored(frame: Frame, pixels: Points) -> NDArray[np.float32]:
    return frame.to_data(pixels).astype(np.float32)


def area_name(area: Area, names: Sequence[str]) -> str:
    """Return the class name under which an area is drawn."""
    if isinstance(area, Region):
        return REGION
    return names[area.label - 1] if area.label else ERASED


def background_label(names: Sequence[str]) -> int | None:
    """Return the label of the class that is the background."""
    same = [name.lower() for name in names]
    return same.index(BACKGROUND) + 1 if BACKGROUND in same else None


def is_region(name: str) -> bool:
    """Whether it names what is background beneath all others."""
    return name.lower() == REGION.lower()


def is_special(name: str) -> bool:
    """Whether it is the name of no class, but of a region or of what is taken away."""
    return name.endswith("*")
