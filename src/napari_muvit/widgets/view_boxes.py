"""What the model sees around the cursor: a box a scale, which follows the mouse."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from .._layers import HALF, layer_kwargs, placement
from ..core.data.pyramid import Pyramid
from ..core.errors import MuvitError
from ..core.geometry import Box, nest, place_fine
from . import describe

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes

VIEW = "view"
"""Mark in the metadata of the layer, which is none of the user's."""
NAME = "what the model sees"
MOVE_MS = 60
"""The boxes follow the mouse at most this often."""
COLORS = ("#00b84a", "#1565ff", "#ff6d00", "#8e24aa")
"""Of the boxes, finest first: seen upon stained tissue and upon black."""
EDGE_PIXELS = 3.0
ZOOM_STEP = 0.1
"""Share by which lines may be too thin or too thick after a change of the zoom."""
TEXT_SIZE = 12


@dataclass(frozen=True, slots=True)
class Sight:
    """What a model sees of a slide."""

    factors: tuple[float, ...]
    """Scale factors, ascending."""
    crop_size: int
    """Edge of a view in its own pixels."""
    extent: Box
    """The slide in pixels of the model."""
    zoom: tuple[float, float]
    """Pixels of the model per pixel of the slide, (y, x)."""
    pixel_size: float | None
    """Micrometres a pixel of the model; None: unknown."""

    @classmethod
    def of(
        cls,
        pyramid: Pyramid,
        factors: tuple[float, ...],
        crop_size: int,
        pixel_size: float | None,
    ) -> Sight:
        """Describe the sight of a model.

        Parameters
        ----------
        pyramid
            The slide.
        factors, crop_size
            Of the model.
        pixel_size
            Of the model in micrometres; None: a new one, which takes the slide's.
        """
        view = pyramid.viewed_at(pixel_size)
        own = pyramid.pixel_size
        known = None if own is None else pixel_size or sum(own) / len(own)
        zoom = (float(view.zoom[-2]), float(view.zoom[-1]))
        return cls(factors, crop_size, view.extent, zoom, known)

    def boxes(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the boxes around a place as prediction lays them, finest first.

        Parameters
        ----------
        point
            (y, x) in slide pixels, edge to edge; outside, the nearest place inside.

        Returns
        -------
        ndarray
            (L, 2, 2): lower and upper corner in slide pixels.
        """
        lower, upper = self.extent.as_array()
        centre = np.clip(point * self.zoom, lower, upper)
        edge = float(self.crop_size) * self.factors[0]
        fine = place_fine(tuple(centre), (edge, edge), self.extent)
        return nest(fine, self.factors, self.extent).as_array() / self.zoom

    def labels(self) -> list[str]:
        """Return what stands beside each box, such as ``1× 32 µm``."""
        found = []
        for factor in self.factors:
            pixels = self.crop_size * factor
            wide = f"{pixels:g} px"
            if self.pixel_size is not None:
                wide = describe.length(pixels * self.pixel_size)
            found.append(f"{factor:g}× {wide}")
        return found


class ViewBoxes(QObject):
    """Shows the boxes in a layer of their own while they are wanted.

    Parameters
    ----------
    viewer
        The viewer.
    sight
        What the model sees of the chosen slide, and its layer; raises `MuvitError`
        while there is none.
    parent
        Of the object.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        sight: Callable[[], tuple[Sight, Image]],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self._sight_of = sight
        self._now: tuple[Sight, Image] | None = None
        self._layer: Shapes | None = None
        self._position: NDArray[np.float64] | None = None
        self._width = 0.0
        self._following = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(MOVE_MS)
        self._timer.timeout.connect(self.follow)

    @property
    def shown(self) -> bool:
        """Whether the boxes are there."""
        return self._there and self._following

    @property
    def _there(self) -> bool:
        return self._layer is not None and self._layer in self.viewer.layers

    def show(self) -> None:
        """Show the layer, around the middle of what is on screen; follow the mouse.

        Raises
        ------
        MuvitError
            If there is no slide, or it is rotated.
        """
        self.hide()
        sight, image = self._now = self._sight_of()
        self._width = 0.0
        camera = getattr(self.viewer, "scene", self.viewer).camera
        self._position = np.asarray(camera.center, dtype=np.float64)[-2:]
        active = self.viewer.layers.selection.active
        self._following = True
        if self._layer is None or not self._there:
            self._layer = _new_layer(image)
            self.viewer.add_layer(self._layer)
        _fill(self._layer, sight, image, self._corners(sight, image))
        self._layer.visible = True
        self.viewer.layers.selection.active = active
        self.follow()
        self.viewer.mouse_move_callbacks.append(self._on_move)
        self.viewer.layers.events.removed.connect(self._on_removed)

    def hide(self) -> None:
        """Hide the layer.

        It stays in the viewer, out of sight: to draw a scene from which a Shapes layer
        was taken ends napari on computers that draw by software.
        """
        with suppress(RuntimeError):  # the timer went with the window
            self._timer.stop()
        if self._following:
            self._following = False
            with suppress(ValueError):
                self.viewer.mouse_move_callbacks.remove(self._on_move)
            self.viewer.layers.events.removed.disconnect(self._on_removed)
        if self._layer is not None and self._there:
            self._layer.visible = False

    def close(self) -> None:
        """Take the layer out of the viewer, with the panel."""
        self.hide()
        if self._layer is not None and self._there:
            self.viewer.layers.remove(self._layer)
        self._layer = None

    def refresh(self) -> None:
        """Follow another slide, another model or other scales."""
        if not self._following:
            return
        if not self._there:  # deleted by the user
            self.hide()
            return
        try:
            now = self._sight_of()
        except MuvitError:
            self.hide()
            return
        if now != self._now:
            self.show()

    def _on_removed(self, _event: Any) -> None:
        if not self._there:
            self.hide()

    def _on_move(self, _viewer: Any, event: Any) -> None:
        self._position = np.asarray(event.position, dtype=np.float64)[-2:]
        if not self._timer.isActive():
            self._timer.start()

    def follow(self) -> None:
        """Put the boxes around the cursor."""
        if self._layer is None or self._now is None:
            return
        sight, image = self._now
        camera = getattr(self.viewer, "scene", self.viewer).camera
        width = EDGE_PIXELS / camera.zoom / float(self._layer.scale[-1])
        with self._layer.events.data.blocker():
            self._layer.data = self._corners(sight, image)
        if abs(width - self._width) > ZOOM_STEP * width:
            # Each change of the width builds all lines anew.
            self._layer.edge_width = self._width = width

    def _corners(self, sight: Sight, image: Image) -> list[NDArray[np.float64]]:
        """Corners of each box in data coordinates of the layer."""
        if self._position is None:
            return []
        point = placement(image).to_pixels(self._position[None])[0]
        return [_rectangle(box - HALF) for box in sight.boxes(point)]


def _rectangle(box: NDArray[np.float64]) -> NDArray[np.float64]:
    (top, left), (bottom, right) = box
    return np.array([[top, left], [top, right], [bottom, right], [bottom, left]])


def _new_layer(image: Image) -> Shapes:
    from napari.layers import Shapes

    layer = Shapes(
        None,
        ndim=2,
        name=NAME,
        opacity=1.0,
        metadata={"muvit": VIEW},
        **layer_kwargs(image),
    )
    layer.editable = False
    return layer


def _fill(
    layer: Shapes, sight: Sight, image: Image, corners: list[NDArray[np.float64]]
) -> None:
    """Put the boxes of a slide and a model into the layer."""
    colors = [COLORS[k % len(COLORS)] for k in range(len(corners))]
    place = layer_kwargs(image)
    layer.scale, layer.translate = place["scale"], place["translate"]
    layer.units = place["units"]
    layer.data = []
    layer.add(
        corners, shape_type="rectangle", edge_color=colors, face_color="transparent"
    )
    layer.features = {"seen": sight.labels()}
    layer.text = {
        "string": "{seen}", "anchor": "upper_left", "size": TEXT_SIZE,
        "color": {"array": colors, "default": "white"},
    }  # fmt: skip
