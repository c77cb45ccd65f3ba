"""The part of the slide that the user means: what is on screen, or selected shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._layer_items import CLOSED_SHAPES
from .._layers import affine, placement, visible_box
from .._outline_rings import split_rings
from ..core.data.areas import Ellipse
from ..core.errors import ConfigError
from ..core.geometry import Box
from ..core.prediction_config import Outlines

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes

ROOM = 1.4
"""A place that is gone to fills this much less than the canvas."""


def seen_box(viewer: ViewerModel, image: Image) -> Box:
    """Return what is on screen in slide pixels.

    Raises
    ------
    ConfigError
        If no part of the slide is.
    """
    box = visible_box(viewer, image)
    if box is None:
        raise ConfigError("No part of the slide is on screen; move it into view first.")
    return box


def selected_outlines(viewer: ViewerModel, image: Image) -> Outlines:
    """Return the closed shapes that are selected, in slide pixels.

    Those of the active layer where that is a Shapes layer, else of all Shapes layers.

    Raises
    ------
    ConfigError
        If none is selected.
    """
    from napari.layers import Shapes

    active = viewer.layers.selection.active
    layers = [x for x in viewer.layers if isinstance(x, Shapes)]
    if isinstance(active, Shapes) and active.selected_data:
        layers = [active]
    found = [outline for layer in layers for outline in _outlines(layer, image)]
    if not found:
        raise ConfigError(
            "No region is selected. Draw one on the Annotate page (a box will do), or "
            "select one in a Shapes layer."
        )
    return tuple(found)


def _outlines(layer: Shapes, image: Image) -> list[tuple[Any, ...]]:
    matrix, origin = affine(layer)
    place = placement(image)
    found = []
    for index in sorted(layer.selected_data):
        if layer.shape_type[index] not in CLOSED_SHAPES:
            continue
        corners = np.asarray(layer.data[index], dtype=np.float64)[:, -2:]
        rings = (
            place.to_pixels(ring @ matrix.T + origin)
            for ring in _rings(corners, layer.shape_type[index])
        )
        found.append(
            tuple(tuple((float(y), float(x)) for y, x in ring) for ring in rings)
        )
    return found


def _rings(corners: NDArray[np.float64], kind: str) -> list[NDArray[np.float64]]:
    """Outer ring and holes of a closed shape, in its layer's coordinates."""
    if kind == "rectangle":
        return [corners]
    if kind == "ellipse":
        centre = corners.mean(axis=0)
        half = ((corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2)
        y, x = centre.tolist()
        return [Ellipse.from_diameters(1, (y, x), *half).outline()]
    outer, holes = split_rings(corners)
    return [outer, *holes]


def box_around(outlines: Outlines) -> Box:
    """Return the box around areas."""
    points = np.array([point for rings in outlines for ring in rings for point in ring])
    return Box(tuple(points.min(axis=0)), tuple(points.max(axis=0)))


def middle_of(box: Box, most: float) -> Box:
    """Return the middle of a box, whose edges are no longer than ``most``."""
    return Box.from_centre(box.centre, [min(n, most) for n in box.shape])


def go_to(viewer: ViewerModel, image: Image, box: Sequence[float]) -> None:
    """Move the camera so that a part of the slide is in its middle.

    Parameters
    ----------
    viewer, image
        Where.
    box
        (y0, x0, y1, x1) in slide pixels.
    """
    corners = placement(image).to_world(np.asarray(box, dtype=float).reshape(2, 2))
    camera = getattr(viewer, "scene", viewer).camera
    canvas = getattr(viewer, "canvas", None)
    size = np.asarray(canvas.size if canvas is not None else viewer._canvas_size)
    extent = np.maximum(corners[1] - corners[0], 1e-9)
    if viewer.dims.ndisplay != 2:
        viewer.dims.ndisplay = 2
    centre = corners.mean(axis=0)
    if viewer.dims.displayed[0] > viewer.dims.displayed[1]:  # shown transposed
        centre, extent = centre[::-1], extent[::-1]
    camera.center = (*tuple(camera.center)[:-2], *centre.tolist())
    camera.zoom = float(np.min(size / (ROOM * extent)))
