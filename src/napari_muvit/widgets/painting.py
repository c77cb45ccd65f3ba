"""The brush in the user's hand: its size on screen, its class, its keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from app_model.types import KeyCode, KeyMod

from .brush import BRUSH_PIXELS, BrushLayers

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

PAINTING_MODES = ("paint", "fill", "erase", "polygon")
UNDO_KEYS = (KeyMod.CtrlCmd | KeyCode.KeyZ,)
REDO_KEYS = (
    KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ,
    KeyMod.CtrlCmd | KeyCode.KeyY,
)
NUMBER_KEYS = [str(n) for n in range(1, 10)]


class LayerKeys:
    """Keys of layers: 1 to 9 choose a class, undo and redo.

    On the layers, not the viewer: napari's own layer keys come before the viewer's,
    and other layers keep theirs.
    """

    def __init__(
        self,
        choose: Callable[[int], None],
        undo: Callable[[], object],
        redo: Callable[[], object],
    ) -> None:
        self._calls: dict[Any, Callable[[], object]] = {}
        for index, key in enumerate(NUMBER_KEYS):
            self._calls[key] = partial(choose, index)
        self._calls |= dict.fromkeys(UNDO_KEYS, undo)
        self._calls |= dict.fromkeys(REDO_KEYS, redo)
        self._bound: list[Layer] = []

    def bind(self, layer: Layer) -> None:
        """Give a layer the keys, once."""
        if layer in self._bound:
            return
        self._bound.append(layer)
        for key, call in self._calls.items():
            layer.bind_key(key, _called(call), overwrite=True)

    def release(self) -> None:
        """Take the keys from all layers."""
        for layer in self._bound:
            for key in self._calls:
                layer.bind_key(key, None, overwrite=True)
        self._bound.clear()


def _called(call: Callable[[], object]) -> Callable[[Layer], None]:
    def pressed(_layer: Layer) -> None:
        call()

    return pressed


class BrushInHand:
    """Follows the zoom with the brush, and napari's own controls with the class.

    Parameters
    ----------
    viewer
        Where is painted.
    on_mode
        Called when another tool of a painted layer was chosen.
    on_value
        Called with the value that the user picked in a painted layer.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        on_mode: Callable[[], None],
        on_value: Callable[[int], None],
    ) -> None:
        self.viewer = viewer
        self._on_mode, self._on_value = on_mode, on_value
        self._width = float(BRUSH_PIXELS)
        self._fitting = False
        self._heard: list[tuple[Any, Callable[[Any], None]]] = []
        self._taken: list[Labels] = []

    def take(self, layer: Labels, brush: BrushLayers) -> None:
        """Make a layer active and paint; the brush is as wide on screen as before."""
        self.viewer.dims.ndisplay = 2
        layer.visible = True
        self.viewer.layers.selection.active = layer
        layer.mode = "paint"
        if layer not in self._taken:
            self._taken.append(layer)
            self._listen(layer.events.mode, lambda _event: self._on_mode())
            self._listen(
                layer.events.selected_label,
                lambda _event: self._on_value(int(layer.selected_label)),
            )
            self._listen(
                layer.events.brush_size, lambda _event: self._on_size(layer, brush)
            )
        self.follow(brush)

    def follow(self, brush: BrushLayers) -> None:
        """Fit the brush of the active layer to the zoom."""
        active = self.viewer.layers.selection.active
        if active in self._taken and active in brush.layers:
            self._fitting = True
            try:
                brush.fit_brush(active, self._width)
            finally:
                self._fitting = False

    def _on_size(self, layer: Labels, brush: BrushLayers) -> None:
        if not self._fitting:
            self._width = brush.brush_pixels(layer)

    def _listen(self, emitter: Any, heard: Callable[[Any], None]) -> None:
        emitter.connect(heard)
        self._heard.append((emitter, heard))

    def release(self) -> None:
        """Let go of the layers."""
        for emitter, heard in self._heard:
            emitter.disconnect(heard)
        self._heard.clear()
        self._taken.clear()
