"""How much is drawn of each class: regions and area, cheap enough for every stroke."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from .areas import Ellipse, Rectangle
from .brush_mask import BrushMask
from .items import Area, Outlined, Region
from .polygons import Polygon, Vertices

PLACES = ((2, 10, 30), (4, 15, 40), (255, 20, 50))
"""Up to so many classes: places of each that are the least, and that are advised."""
LEAST_PIXELS = 1000
"""Annotated pixels of a class; fewer show little, however many places they are."""
MOST_PIXELS = 2**20
"""Pixels of a mask in which strokes are told apart; of a larger one every k-th."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What is drawn of a class. What overlaps counts twice."""

    regions: int = 0
    """Outlines, and painted patches that do not touch."""
    pixels: float = 0.0
    """Area in pixels of the slide."""


class AmountCounter:
    """Counts again and again; items that are the same objects are measured once."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Outlined, Amount] = WeakKeyDictionary()

    def count(self, items: Iterable[Area], num_classes: int) -> list[Amount]:
        """Return the amount of each label 0..K, regions of background left out."""
        regions, pixels = [0] * (num_classes + 1), [0.0] * (num_classes + 1)
        for item in items:
            if not isinstance(item, Region) and item.label <= num_classes:
                amount = self._amount(item)
                regions[item.label] += amount.regions
                pixels[item.label] += amount.pixels
        return [Amount(n, area) for n, area in zip(regions, pixels, strict=True)]

    def _amount(self, item: Outlined) -> Amount:
        known = self._known.get(item)
        if known is None:
            patches = _patches(item) if isinstance(item, BrushMask) else 1
            known = self._known[item] = Amount(patches, area_of(item))
        return known


def area_of(item: Outlined) -> float:
    """Return the area of an item in slide pixels; of crossing outlines roughly."""
    if isinstance(item, Rectangle):
        return item.size[0] * item.size[1]
    if isinstance(item, Ellipse):
        return math.pi * item.radii[0] * item.radii[1]
    if isinstance(item, Polygon):
        return max(0.0, _ring(item.vertices) - sum(map(_ring, item.holes)))
    return float(np.count_nonzero(item.mask)) * item.scale[0] * item.scale[1]


def _ring(vertices: Vertices) -> float:
    y, x = (vertices - vertices[0]).T
    return abs(float(np.dot(y, np.roll(x, 1)) - np.dot(x, np.roll(y, 1)))) / 2


def _patches(item: BrushMask) -> int:
    from scipy import ndimage

    step = math.ceil(math.sqrt(item.mask.size / MOST_PIXELS))
    mask = item.mask[::step, ::step] if step > 1 else item.mask
    # Pixels that touch at a corner belong together.
    return max(1, int(ndimage.label(mask, np.ones((3, 3)))[1]))
