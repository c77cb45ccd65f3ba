"""The Shapes layer in which regions are outlined: colours by class, tools, undo."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers.base import ActionType
from napari.utils.colormaps.standardize_color import transform_color
from numpy.typing import NDArray

from .._layer_annotations import shape_classes
from .._layers import layer_kwargs
from ..core.errors import AnnotationError
from .state import PanelState

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes

LAYER_NAME = "annotations"
OUTLINES = "outlines"
"""Mark in the metadata of layers that are ours, so that their lines follow the zoom."""
MAX_REDRAWN = 500
"""Outlines that are redrawn when the zoom changes."""
FACE_ALPHA = 0.35
EDGE_PIXELS = 2.0
"""Width of an outline on screen at the zoom at which it is drawn."""
UNDO_STEPS = 20
UNFINISHED = (ActionType.ADDING, ActionType.REMOVING, ActionType.CHANGING)
TOOLS = {
    "Lasso": "add_polygon_lasso",
    "Polygon": "add_polygon",
    "Box": "add_rectangle",
}


def new_shapes(viewer: ViewerModel, image: Image, state: PanelState) -> Shapes:
    """Add an empty Shapes layer upon ``image``, in its pixels."""
    from napari.layers import Shapes

    layer = Shapes(
        None,
        ndim=2,
        name=LAYER_NAME,
        features=pd.DataFrame({"class": pd.Categorical([], categories=state.names)}),
        opacity=0.9,
        metadata={"muvit": OUTLINES},
        **layer_kwargs(image),
    )
    apply_classes(layer, state)
    viewer.add_layer(layer)
    return layer


def apply_classes(
    layer: Shapes, state: PanelState, renamed: tuple[str, str] | None = None
) -> None:
    """Give a Shapes layer the classes' names and colours, and the current class."""
    names = [
        renamed[1] if renamed and name == renamed[0] else name
        for name in shape_classes(layer)
    ]
    # Names of a foreign layer that are not classes here stay what they are.
    known = list(dict.fromkeys([*state.names, *(n for n in names if n)]))
    features = layer.features.copy()
    features["class"] = pd.Categorical(
        [name or None for name in names], categories=known
    )
    layer.features = features
    # Setting either one by a column's name rebuilds both colour maps: set both, then
    # fill both maps.
    layer.face_color = "class"
    layer.edge_color = "class"
    for name in known:
        edge = transform_color(state.colors.get(name, "#ffffff"))[0]
        face = edge.copy()
        face[3] = FACE_ALPHA
        layer.edge_color_cycle_map[name] = edge
        layer.face_color_cycle_map[name] = face
    layer.refresh_colors()
    set_current(layer, state)


def set_current(layer: Shapes, state: PanelState) -> None:
    """Make the state's current class the one that is drawn next."""
    name = state.current_name
    if not name:
        return
    layer.feature_defaults = {"class": name}
    # Only shown in the layer controls; selected shapes keep their colour.
    with layer.block_update_properties():
        layer.current_edge_color = layer.edge_color_cycle_map[name]
        layer.current_face_color = layer.face_color_cycle_map[name]


def give_class(layer: Shapes, indices: Sequence[int], state: PanelState) -> None:
    """Give the shapes at ``indices`` the current class."""
    names = shape_classes(layer)
    for index in indices:
        names[index] = state.current_name
    features = layer.features.copy()
    features["class"] = names
    layer.features = features
    apply_classes(layer, state)


def add_outlines(
    layer: Shapes,
    outlines: Sequence[NDArray[Any]],
    names: Sequence[str],
    state: PanelState,
) -> None:
    """Add polygons, (n, 2) each in data coordinates, with a class name each.

    Raises
    ------
    AnnotationError
        If napari cannot draw them; none is added.
    """
    apply_classes(layer, state)
    kept = shape_classes(layer)
    width = layer.current_edge_width
    try:
        layer.add(list(outlines), shape_type="polygon", edge_width=width)
    except RuntimeError as error:  # napari's slowest triangulation knows no crossings
        raise AnnotationError(
            "napari cannot draw one of the outlines. Choose another triangulation "
            "backend in Preferences > Experimental, and import the file again."
        ) from error
    features = layer.features.copy()
    features["class"] = [*kept, *names]
    layer.features = features
    apply_classes(layer, state)


def choose_tool(viewer: ViewerModel, layer: Shapes, tool: str) -> None:
    """Make ``layer`` active with a drawing tool (a key of `TOOLS`)."""
    # Neither a hidden layer nor a 3D view can be drawn upon.
    layer.visible = True
    viewer.dims.ndisplay = 2
    viewer.layers.selection.active = layer
    fit_outlines(viewer, layer)
    layer.mode = TOOLS[tool]


def fit_outlines(viewer: ViewerModel, layer: Shapes) -> None:
    """Draw outlines as thin at every zoom, so that they never hide the tissue."""
    camera = getattr(viewer, "scene", viewer).camera
    width = max(1e-3, EDGE_PIXELS / camera.zoom / float(layer.scale[-1]))
    with layer.block_update_properties():
        layer.current_edge_width = width
    ours = layer.metadata.get("muvit") == OUTLINES
    if ours and 0 < len(layer.data) <= MAX_REDRAWN:
        layer.edge_width = width


class ShapesWatcher:
    """Tells when a Shapes layer has changed, and undoes changes, which napari cannot.

    Parameters
    ----------
    layer
        What to watch.
    on_change
        Called after each finished change, not for the vertices of a half-drawn one.
    """

    def __init__(self, layer: Shapes, on_change: Callable[[], None]) -> None:
        self.layer = layer
        self._on_change = on_change
        self._past: deque[_Snapshot] = deque(maxlen=UNDO_STEPS)
        self._now = _Snapshot.of(layer)
        self.drawing = self._restoring = False
        layer.events.data.connect(self._on_data)

    def _on_data(self, event: Any) -> None:
        action = getattr(event, "action", None)
        self.drawing = action == ActionType.ADDING or (
            self.drawing and action != ActionType.ADDED
        )
        if self._restoring or self.drawing or action in UNFINISHED:
            return
        self._drop_leftover_rows()
        now = _Snapshot.of(self.layer)
        if not now.equals(self._now):
            self._past.append(self._now)
            self._now = now
        self._on_change()

    def _drop_leftover_rows(self) -> None:
        """Drop the features of an outline that was given up after two clicks.

        napari removes the shape only, and would give its class to the next one.
        """
        layer = self.layer
        if len(layer.features) > len(layer.data):
            layer.features = layer.features.iloc[: len(layer.data)]

    def accept(self) -> None:
        """Take the layer as it is for the state that the last change led to."""
        self.drawing = False
        self._now = _Snapshot.of(self.layer)

    def undo(self) -> None:
        """Take the last change back, if there is one."""
        if not self._past:
            return
        self._now = self._past.pop()
        self._restoring = True
        try:
            self._now.restore(self.layer)
        finally:
            self._restoring = False
        self._on_change()

    def release(self) -> None:
        """Stop watching the layer."""
        self.layer.events.data.disconnect(self._on_data)


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """The shapes of a layer at one moment."""

    data: list[NDArray[Any]]
    kinds: list[str]
    widths: list[float]
    features: pd.DataFrame

    @classmethod
    def of(cls, layer: Shapes) -> _Snapshot:
        return cls(
            [outline.copy() for outline in layer.data],
            list(layer.shape_type),
            list(layer.edge_width),
            layer.features.copy(),
        )

    def equals(self, other: _Snapshot) -> bool:
        return (
            self.kinds == other.kinds
            and all(map(np.array_equal, self.data, other.data))
            and self.features.equals(other.features)
        )

    def restore(self, layer: Shapes) -> None:
        mode = layer.mode
        layer.selected_data = set()
        layer.data = []
        if self.data:
            layer.add(self.data, shape_type=self.kinds, edge_width=self.widths)
        layer.features = self.features.copy()
        layer.refresh_colors()
        layer.mode = mode
