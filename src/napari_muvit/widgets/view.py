"""Moving the camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._layers import placement
from ..core.geometry import Box

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

AROUND = 3.0
"""What is shown, in edges of the box."""


def go_to(viewer: ViewerModel, image: Image, box: Box) -> None:
    """Show a box of a slide with some of what is around it.

    Parameters
    ----------
    viewer
        Its camera moves.
    image
        The slide.
    box
        In pixels of its finest level.
    """
    corners = placement(image).to_world(np.array([box.lower, box.upper]))
    camera = getattr(viewer, "scene", viewer).camera
    canvas = getattr(viewer, "canvas", None)
    size = np.asarray(canvas.size if canvas is not None else viewer._canvas_size)
    extent = np.maximum(corners[1] - corners[0], 1e-9)
    camera.zoom = float(np.min(size / extent) / AROUND)
    middle = corners.mean(axis=0)
    camera.center = (*camera.center[:-2], *middle)
