"""Painting: small Labels layers upon parts of the slide, kept as brush masks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from .._layers import placement, plane_shape, visible_box
from ..core.data.brush_mask import BrushMask
from ..core.data.items import Area, Region
from ..core.errors import AnnotationError
from .brush_canvas import Canvas, canvas_around, canvas_of, grouped
from .brush_pixels import (
    CANVAS,
    canvas_under,
    fits,
    mask_of,
    same_paint,
    set_pixels,
    stamp,
    values_touched,
)
from .state import PanelState

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

BRUSH = "brush"
"""Mark in the metadata of layers that are painted upon."""
IMAGE = "muvit_image"
"""Which slide a layer of ours belongs to, in its metadata."""
BRUSH_PIXELS = 24
"""Width of a new brush on screen."""
MAX_BRUSH = 400
MAX_VALUE = 255
OPACITY = 0.55


class BrushLayers:
    """The painted layers of one slide, and which value stands for which class.

    Parameters
    ----------
    viewer, image
        Where, and the slide.
    key
        Of the slide.
    on_stroke
        Called with the layer after each finished stroke.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        image: Image,
        key: str,
        on_stroke: Callable[[Labels], None],
    ) -> None:
        self.viewer = viewer
        self.image = image
        self.key = key
        self.values: dict[str, int] = {}
        """Value of each class; one that was taken out keeps its value."""
        self._on_stroke = on_stroke
        self._heard: list[tuple[Labels, Callable[[Any], None]]] = []
        self._painted: WeakKeyDictionary[Labels, dict[int, BrushMask]] = (
            WeakKeyDictionary()
        )
        self._changed: WeakKeyDictionary[Labels, set[int]] = WeakKeyDictionary()
        # With the mask that each one is made of: ids of what is gone are given again.
        self._labelled: dict[tuple[int, int], tuple[BrushMask, BrushMask]] = {}
        self._quiet = False

    @property
    def layers(self) -> list[Labels]:
        """Those in the viewer, the lowest one first."""
        return [
            x
            for x in self.viewer.layers
            if x.metadata.get("muvit") == BRUSH and x.metadata.get(IMAGE) == self.key
        ]

    @property
    def _known(self) -> list[Labels]:
        """All of them: closing napari takes layers out, which removes no paint."""
        return [layer for layer, _ in self._heard]

    def bring_back(self) -> None:
        """Add those again that were taken out of the viewer."""
        shown = self.layers
        for layer in self._known:
            if layer not in shown:
                self.viewer.add_layer(layer)

    # ---- classes

    def value_of(self, name: str) -> int:
        """Return the value that a class is painted with."""
        if name not in self.values:
            value = max(self.values.values(), default=0) + 1
            if value > MAX_VALUE:
                raise AnnotationError(
                    f"{MAX_VALUE} classes can be painted; take some out, and open the "
                    "image again."
                )
            self.values[name] = value
        return self.values[name]

    def apply_classes(self, state: PanelState) -> None:
        """Give the layers the classes' names and colours."""
        for layer in self._known:
            self._dress(layer, state)

    def set_current(self, state: PanelState) -> None:
        """Paint with the current class from now on."""
        if not state.current_name:
            return
        for layer in self.layers:
            layer.selected_label = self.value_of(state.current_name)

    def _dress(self, layer: Labels, state: PanelState) -> None:
        from napari.utils.colormaps import DirectLabelColormap

        values = {self.value_of(c.name): c for c in state.classes}
        colors: dict[int | None, Any] = {0: "transparent", None: "transparent"}
        for value, label_class in values.items():
            colors[value] = label_class.color
        layer.colormap = DirectLabelColormap(color_dict=colors)
        layer.features = pd.DataFrame(
            {
                "index": [0, *values],
                "class": ["not painted", *(c.name for c in values.values())],
            }
        )
        if state.current_name:
            layer.selected_label = self.value_of(state.current_name)

    # ---- layers

    def ready(self, state: PanelState) -> Labels:
        """Return a layer to paint what is on screen, an old one where it fits.

        Raises
        ------
        AnnotationError
            If no part of the slide is on screen.
        """
        view = visible_box(self.viewer, self.image)
        if view is None:
            raise AnnotationError(
                f"No part of {self.image.name!r} is on screen. Move there, and press "
                "Brush again."
            )
        place = placement(self.image)
        pixel = 1 / (self._zoom() * place.scale[-1])
        wanted = canvas_around(view, pixel, plane_shape(self.image))
        fitting = [x for x in self.layers if fits(canvas_under(x), wanted, view)]
        if fitting:
            return min(fitting, key=lambda x: abs(canvas_under(x).scale[0] - pixel))
        return self._new(wanted, state)

    def _new(self, canvas: Canvas, state: PanelState) -> Labels:
        from napari.layers import Labels

        layer = Labels(
            np.zeros(canvas.shape, np.uint8),
            name=f"painted {len(self.layers) + 1}",
            opacity=OPACITY,
            units=tuple(self.image.units[-2:]),
            axis_labels=tuple(self.image.axis_labels[-2:]),
            metadata={"muvit": BRUSH, IMAGE: self.key, CANVAS: canvas},
            **self._place(canvas),
        )
        self._dress(layer, state)
        active = self.viewer.layers.selection.active
        self.viewer.add_layer(layer)
        if active is not None:
            self.viewer.layers.selection.active = active
        self._listen(layer)
        return layer

    def _place(self, canvas: Canvas) -> dict[str, Any]:
        """Scale and translate of a layer that lies upon its part of the slide."""
        place = placement(self.image)
        middle = np.add(canvas.lower, np.multiply(canvas.scale, 0.5))
        return {
            "scale": tuple(np.multiply(place.scale, canvas.scale)),
            "translate": tuple(place.to_world(middle[None])[0]),
        }

    def follow_image(self) -> None:
        """Lie upon the slide again after it was given another place or pixel size."""
        for layer in self.layers:
            where = self._place(canvas_under(layer))
            layer.scale, layer.translate = where["scale"], where["translate"]
            layer.units = tuple(self.image.units[-2:])

    def take_over(self) -> None:
        """Listen to layers that are there already, after the panel was closed."""
        for layer in self.layers:
            self._listen(layer)

    def _listen(self, layer: Labels) -> None:
        def heard(event: Any) -> None:
            changed = self._changed.setdefault(layer, set())
            changed |= values_touched(event.value) or set(self.values.values())
            if not self._quiet:
                self._on_stroke(layer)

        layer.events.paint.connect(heard)
        self._heard.append((layer, heard))

    def release(self) -> None:
        """Let go of the layers."""
        for layer, heard in self._heard:
            layer.events.paint.disconnect(heard)
        self._heard.clear()

    def _zoom(self) -> float:
        camera = getattr(self.viewer, "scene", self.viewer).camera
        return float(camera.zoom)

    def fit_brush(self, layer: Labels, pixels: float = BRUSH_PIXELS) -> None:
        """Make the brush so many pixels of the screen wide."""
        width = pixels / self._zoom() / float(layer.scale[-1])
        layer.brush_size = int(np.clip(round(width), 1, MAX_BRUSH))

    def brush_pixels(self, layer: Labels) -> float:
        """Return the width of the brush on screen."""
        return float(layer.brush_size) * self._zoom() * float(layer.scale[-1])

    # ---- what is painted

    def forget(self, layer: Labels) -> None:
        """Look at a layer anew, after something was undone."""
        self._changed[layer] = set(self.values.values())

    def masks(self, names: Sequence[str]) -> list[BrushMask]:
        """Return what is painted as one mask a class and layer.

        Masks that did not change stay the same objects.
        """
        labels = {
            self.values[n]: k for k, n in enumerate(names, start=1) if n in self.values
        }
        known: dict[tuple[int, int], tuple[BrushMask, BrushMask]] = {}
        for layer in self._known:
            for value, mask in self._read(layer).items():
                if value not in labels:
                    continue
                key = (id(mask), labels[value])
                known[key] = self._labelled.get(key) or (
                    mask,
                    mask
                    if mask.label == labels[value]
                    else dataclasses.replace(mask, label=labels[value]),
                )
        self._labelled = known
        return [mask for _, mask in known.values()]

    def _read(self, layer: Labels) -> dict[int, BrushMask]:
        held = self._painted.get(layer)
        if held is None:
            held = self._painted[layer] = {}
            self.forget(layer)
        for value in self._changed.pop(layer, ()):
            mask = mask_of(layer, value)
            old = held.get(value)
            if mask is None:
                held.pop(value, None)
            elif old is None or not same_paint(old, mask):
                held[value] = mask
        return held

    def restore(
        self, masks: Iterable[BrushMask], names: Sequence[str], state: PanelState
    ) -> None:
        """Bring masks of a file back, except for those that are painted already."""
        missing = []
        for mask in masks:
            value = self.value_of(names[mask.label - 1])
            for layer in self.layers:
                there = self._read(layer).get(value)
                if there is not None and same_paint(there, mask):
                    self._painted[layer][value] = mask
                    break
            else:
                missing.append(mask)
        self.place_masks(missing, names, state)

    def rename(self, old: str, new: str) -> None:
        """Paint of a class stays that of the class under its new name."""
        if old in self.values:
            self.values[new] = self.values.pop(old)

    def name_again(self, names: Mapping[str, int]) -> None:
        """Give values the names that they had; others keep theirs."""
        there = set(names.values())
        kept = {n: v for n, v in self.values.items() if v not in there}
        self.values = {**kept, **names}

    def place_masks(
        self, masks: Iterable[BrushMask], names: Sequence[str], state: PanelState
    ) -> list[Labels]:
        """Paint masks into layers of their grid, with history; return the layers."""
        touched: list[Labels] = []
        with self._unheard():
            for group in grouped(list(masks)):
                fitting = [
                    x
                    for x in self.layers
                    if all(canvas_under(x).holds(m) for m in group)
                ]
                layer = (
                    fitting[0]
                    if fitting
                    else self._new(canvas_of(group, plane_shape(self.image)), state)
                )
                with layer.block_history():
                    for mask in group:
                        value = self.value_of(names[mask.label - 1])
                        stamp(layer, mask, value)
                        # What comes back from a file stays the same object.
                        self._painted.setdefault(layer, {})[value] = mask
                self.forget(layer)
                touched.append(layer)
        return touched

    def clear_under(self, area: Area) -> list[Labels]:
        """Take away what is painted under an area; return the layers that changed."""
        if isinstance(area, Region):
            return []
        touched = []
        with self._unheard():
            for layer in self.layers:
                canvas = canvas_under(layer)
                window = canvas.window(area.lower, area.upper)
                painted = layer.data[window] > 0
                if not painted.any():
                    continue
                under = np.zeros(painted.shape, np.uint8)
                dataclasses.replace(area, label=1).fill(under, canvas.part(window))
                if set_pixels(layer, window, painted & (under > 0), 0):
                    self.forget(layer)
                    touched.append(layer)
        return touched

    @contextlib.contextmanager
    def _unheard(self) -> Iterator[None]:
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False
