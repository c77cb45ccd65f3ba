"""Which tool is in the user's hand, and which class it draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .._layer_items import background_label
from ..core.errors import AnnotationError
from .brush import BRUSH
from .class_table import ClassTable
from .drawing_tools import PAINT, DrawingTools
from .painting import PAINTING_MODES, BrushInHand, LayerKeys
from .shapes import choose_tool, give_class, set_current, tool_in_hand
from .slide_annotations import SlideAnnotations
from .state import PanelState

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Shapes

SELECTING_MODES = ("select", "direct")


class ToolControl:
    """The tools of the page upon the layers of one slide.

    Parameters
    ----------
    viewer, state
        The panel's.
    tools, classes
        What shows the tool and the class.
    undo, redo
        What the keys of the layers do.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        state: PanelState,
        tools: DrawingTools,
        classes: ClassTable,
        undo: Callable[[], object],
        redo: Callable[[], object],
    ) -> None:
        self.viewer = viewer
        self.state = state
        self.tools = tools
        self.classes = classes
        self.slide: SlideAnnotations | None = None
        self.layer: Shapes | None = None
        self._keys = LayerKeys(self._on_number, undo, redo)
        self._brush = BrushInHand(viewer, self.show, self._on_value)

    def take(self, layer: Shapes, slide: SlideAnnotations) -> None:
        """Draw in a layer from now on."""
        self.layer, self.slide = layer, slide
        self._keys.bind(layer)

    def release(self) -> None:
        """Let go of all layers."""
        self._keys.release()
        self._brush.release()
        self.layer = self.slide = None

    def use(self, name: str) -> None:
        """Start drawing with a tool.

        Raises
        ------
        AnnotationError
            If it cannot be used here.
        """
        if self.layer is None or self.slide is None:
            return
        if name == "Background box" and background_label(self.state.names) is None:
            raise AnnotationError(
                "A background box needs a class named background. Add one, or rename "
                "the class that stands for it."
            )
        if name == PAINT:
            layer = self.slide.paint()
            self._keys.bind(layer)
            self._brush.take(layer, self.slide.brush)
        else:
            choose_tool(self.viewer, self.layer, name, self.state)

    def show(self) -> None:
        """Press the button of the tool that is in hand."""
        active = self.viewer.layers.selection.active
        if active is not None and active.metadata.get("muvit") == BRUSH:
            tool = PAINT if active.mode in PAINTING_MODES else ""
        else:
            # Where another layer is active, nothing would be drawn.
            ours = self.layer is not None and active is self.layer
            tool = tool_in_hand(self.layer) if ours and self.layer else ""
        self.tools.show_tool(tool)

    def draw_current(self) -> None:
        """Draw and paint the current class from now on."""
        if self.layer is not None:
            set_current(self.layer, self.state)
        if self.slide is not None:
            self.slide.brush.set_current(self.state)
        self.show()

    def follow_zoom(self) -> None:
        """Keep the brush as wide on screen."""
        if self.slide is not None:
            self._brush.follow(self.slide.brush)

    def _on_number(self, index: int) -> None:
        self.classes.choose(index)
        self.draw_current()  # also when only an eraser is put away
        layer = self.layer
        if layer is None or self.viewer.layers.selection.active is not layer:
            return
        if layer.mode in SELECTING_MODES and layer.selected_data:
            give_class(layer, sorted(layer.selected_data), self.state)

    def _on_value(self, value: int) -> None:
        """Follow the class that was picked with napari's own tools."""
        if self.slide is None:
            return
        names = [n for n, v in self.slide.brush.values.items() if v == value]
        if names and names[0] in self.state.names:
            self.classes.choose(self.state.names.index(names[0]))
