"""What annotations are made of, and in which order the parts lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError
from ..geometry import Box
from .areas import Ellipse, Rectangle
from .brush_mask import BrushMask
from .label_image import LabelImage
from .polygons import Polygon

Outlined = Polygon | Rectangle | Ellipse | BrushMask
"""One area with a class: ``label``, ``lower``, ``upper``, ``scaled``, ``fill``."""


@dataclass(frozen=True, eq=False)
class Region:
    """An area in which everything that is not marked is background.

    Regions lie below all other items, wherever they stand among them.
    """

    area: Outlined
    """Where; its label is that of the background class."""

    def __post_init__(self) -> None:
        if not isinstance(self.area, Outlined):
            raise AnnotationError(
                f"A region is made of {type(self.area).__name__}; a polygon, a "
                "rectangle, an ellipse or a brush mask is needed."
            )
        if self.area.label == 0:
            raise AnnotationError(
                "A region has the class 0, which means not annotated; it needs the "
                "label of the background class."
            )

    @property
    def label(self) -> int:
        """Label of the background class."""
        return self.area.label

    @property
    def lower(self) -> NDArray[np.float64]:
        """Smallest y and x."""
        return self.area.lower

    @property
    def upper(self) -> NDArray[np.float64]:
        """Largest y and x."""
        return self.area.upper

    def scaled(self, zoom: NDArray[np.float64]) -> Region:
        """Multiply all coordinates by ``zoom`` (y, x)."""
        return Region(self.area.scaled(zoom))

    def fill(self, out: NDArray[np.uint8], box: Box) -> None:
        """Write the background's label wherever a pixel centre lies inside."""
        self.area.fill(out, box)


Area = Outlined | Region
"""What can be drawn, and kept in a project file."""
Item = Area | LabelImage


def in_order(items: Iterable[Item]) -> tuple[Item, ...]:
    """Regions first, the rest after them, each in the order given."""
    items = tuple(items)
    regions = [item for item in items if isinstance(item, Region)]
    if not regions:
        return items
    return (*regions, *(item for item in items if not isinstance(item, Region)))


def relabelled(item: Area, label_of: Callable[[int], int]) -> Area:
    """Return an area with another label; 0 stays 0."""
    if isinstance(item, Region):
        return Region(dataclasses.replace(item.area, label=label_of(item.label)))
    if item.label == 0:
        return item
    return dataclasses.replace(item, label=label_of(item.label))
