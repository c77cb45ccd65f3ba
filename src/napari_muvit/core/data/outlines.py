"""Areas as polygons: boxes by corners, ellipses by many, masks by pixel edges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import AnnotationError
from .areas import Ellipse, Rectangle
from .brush_mask import BrushMask
from .items import Area, Region
from .label_image import LabelImage
from .polygons import Polygon, Vertices

MAX_PIXELS = 2**26
"""Pixels of a label image whose classes are outlined."""
MAX_EDGES = 2**22
"""Pixel edges of a mask that are followed; more are noise, and no outline."""
# Directions of an edge on screen, clockwise: right, down, left, up; as steps (y, x).
_STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
# From where such an edge starts to its pixel, which lies at its right hand.
_PIXELS = np.array([(0, 0), (0, -1), (-1, -1), (-1, 0)])


def outlines(item: Area) -> tuple[Polygon, ...]:
    """Polygons that cover the same pixel centres as an area.

    Exact but for an ellipse, which is followed to a tenth of a world pixel. A mask
    becomes one polygon with its holes for each part whose pixels meet at edges.
    """
    if isinstance(item, Region):
        return outlines(item.area)
    if isinstance(item, Polygon):
        return (item,)
    if isinstance(item, Rectangle):
        (top, left), (bottom, right) = item.lower, item.upper
        corners = [(top, left), (top, right), (bottom, right), (bottom, left)]
        return (Polygon(item.label, np.array(corners)),)
    if isinstance(item, Ellipse):
        return (Polygon(item.label, item.outline()),)
    place, scale = np.asarray(item.offset), np.asarray(item.scale)
    return tuple(
        Polygon(
            item.label, place + outer * scale, tuple(place + h * scale for h in rest)
        )
        for outer, *rest in trace_mask(item.mask)
    )


def masks_of(image: LabelImage) -> Iterator[BrushMask]:
    """Each class of a label image as a mask of its stored pixels.

    Raises
    ------
    AnnotationError
        If it is a volume, or larger than `MAX_PIXELS`.
    """
    shape = image.pyramid.levels[0].shape
    if len(shape) != 2 or shape[0] * shape[1] > MAX_PIXELS:
        raise AnnotationError(
            f"{image.pyramid.name} has {' x '.join(str(n) for n in shape)} pixels; "
            f"label images in a plane of up to {MAX_PIXELS} pixels can be outlined. "
            "Take a coarser one."
        )
    labels = image.read(image.extent, shape)
    top, left = image.lower.tolist()
    for label in range(1, int(labels.max()) + 1):
        mask = labels == label
        if mask.any():
            scale = (image.step[0], image.step[1])
            yield BrushMask(label, mask, (top, left), scale)


def trace_mask(mask: NDArray[np.bool_]) -> list[list[Vertices]]:
    """Follow the pixel edges around the True parts of a mask.

    Parameters
    ----------
    mask
        (h, w), bool.

    Returns
    -------
    list of list of ndarray
        For each part, whose pixels meet at edges: its outer ring, then its holes, each
        (n, 2) corners (y, x) in pixels, edge to edge. No ring touches itself.

    Raises
    ------
    AnnotationError
        If there are more than `MAX_EDGES` pixel edges.
    """
    parts, count = ndimage.label(mask)
    outer: dict[int, Vertices] = {}
    holes: dict[int, list[Vertices]] = defaultdict(list)
    for ring, pixel in _rings(mask):
        part = int(parts[pixel])
        if _area(ring) > 0:
            outer[part] = ring
        else:
            holes[part].append(ring)
    return [[outer[k], *holes[k]] for k in range(1, count + 1)]


def _rings(mask: NDArray[np.bool_]) -> Iterator[tuple[Vertices, tuple[int, int]]]:
    """Closed rings of corners, clockwise around the pixels, and one of the pixels."""
    starts, directions = _edges(mask)
    following = _following(starts, directions, mask.shape[1] + 1).tolist()
    seen = bytearray(len(following))
    for first in range(len(following)):
        if seen[first]:
            continue
        ring, edge = [], first
        while not seen[edge]:
            seen[edge] = 1
            ring.append(edge)
            edge = following[edge]
        turns = directions[ring]
        corners = starts[ring][turns != np.roll(turns, 1)]
        y, x = (starts[first] + _PIXELS[directions[first]]).tolist()
        for part in _simple(corners):
            yield part.astype(np.float64), (y, x)


def _simple(ring: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Cut a ring that comes to a corner again into rings that do not.

    A hole that touches the outside, or another one, at a corner is a ring of its own:
    other programs take a ring that touches itself for a mistake.
    """
    corners = ring.tolist()
    if len(set(map(tuple, corners))) == len(corners):
        yield ring
        return
    kept: list[tuple[int, int]] = []
    place: dict[tuple[int, int], int] = {}
    for y, x in corners:
        first = place.get((y, x))
        if first is not None:
            loop = kept[first:]
            del kept[first:]
            for corner in loop:
                del place[corner]
            yield np.array(loop)
        place[(y, x)] = len(kept)
        kept.append((y, x))
    yield np.array(kept)


def _edges(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Start (n, 2) and direction (n,) of all pixel edges between True and False."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    starts, directions, left = [], [], MAX_EDGES
    # The neighbour across an edge lies at its left hand: one direction back.
    for direction in range(4):
        y, x = 1 + _STEPS[direction - 1]
        across = padded[y : y + height, x : x + width]
        here = mask & ~across
        left -= int(np.count_nonzero(here))
        if left < 0:
            raise AnnotationError(
                f"A mask of {height} x {width} pixels has more than {MAX_EDGES} pixel "
                "edges, too many for an outline. Remove what is noise, or take a "
                "coarser one."
            )
        pixels = np.argwhere(here)
        starts.append(pixels - _PIXELS[direction])
        directions.append(np.full(len(pixels), direction))
    return np.concatenate(starts), np.concatenate(directions)


def _following(
    starts: NDArray[np.intp], directions: NDArray[np.intp], width: int
) -> NDArray[np.intp]:
    """Which edge goes on from the end of each.

    Where two pixels touch at a corner, two edges do. The one to the right stays with
    its pixel, so that parts that touch at corners are apart.
    """
    codes = (starts[:, 0] * width + starts[:, 1]) * 4 + directions
    order = np.argsort(codes)
    ends = starts + _STEPS[directions]
    corner = (ends[:, 0] * width + ends[:, 1]) * 4
    found = np.zeros(len(codes), dtype=np.intp)
    # The last assignment counts: right before straight on before left.
    for turn in (3, 0, 1):
        wanted = corner + (directions + turn) % 4
        at = np.searchsorted(codes, wanted, sorter=order).clip(max=len(codes) - 1)
        hit = codes[order[at]] == wanted
        found[hit] = order[at[hit]]
    return found


def _area(ring: Vertices) -> float:
    """Signed area; positive for a ring that runs clockwise on screen."""
    y, x = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
