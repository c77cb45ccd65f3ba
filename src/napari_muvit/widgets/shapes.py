"""The Shapes layer in which regions are outlined: colours by class, and tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers.base import ActionType
from napari.utils.colormaps.standardize_color import transform_color
from numpy.typing import NDArray

from .._layer_annotations import shape_classes
from .._layer_items import ERASED, is_region, is_special
from .._layers import layer_kwargs
from ..core.config import BACKGROUND_COLOR
from ..core.data.geojson import BACKGROUND, REGION
from ..core.errors import AnnotationError
from .brush import IMAGE
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
UNFINISHED = (ActionType.ADDING, ActionType.REMOVING, ActionType.CHANGING)
TOOLS = {
    "Lasso": "add_polygon_lasso",
    "Polygon": "add_polygon",
    "Box": "add_rectangle",
    "Ellipse": "add_ellipse",
    "Erase": "add_polygon_lasso",
    "Background box": "add_rectangle",
}
SPECIAL = {"Erase": ERASED, "Background box": REGION}
"""Tools that draw another class than the current one."""
FAINT = 0.08
Look = tuple[NDArray[Any], NDArray[Any]]
"""Edge and face colour."""
ERASED_EDGE, ERASED_FACE = (1.0, 1.0, 1.0, 0.9), (0.0, 0.0, 0.0, 0.3)


def new_shapes(
    viewer: ViewerModel, image: Image, state: PanelState, key: str = ""
) -> Shapes:
    """Add an empty Shapes layer upon ``image``, in its pixels; ``key`` names it."""
    layer = make_shapes(image, state, key)
    viewer.add_layer(layer)
    return layer


def make_shapes(image: Image, state: PanelState, key: str = "") -> Shapes:
    """Return such a layer that is not in the viewer yet."""
    from napari.layers import Shapes

    layer = Shapes(
        None,
        ndim=2,
        name=LAYER_NAME,
        features=pd.DataFrame({"class": pd.Categorical([], categories=state.names)}),
        opacity=0.9,
        metadata={"muvit": OUTLINES, IMAGE: key},
        **layer_kwargs(image),
    )
    apply_classes(layer, state)
    return layer


def lie_upon(layer: Shapes, image: Image) -> None:
    """Put a layer in the pixels of an image that was given another pixel size."""
    where = layer_kwargs(image)
    layer.scale, layer.translate = where["scale"], where["translate"]
    layer.units = where["units"]


def find_outlines(viewer: ViewerModel, key: str) -> Shapes | None:
    """Return our layer of the slide with this key; None: it is not in the viewer."""
    for layer in viewer.layers:
        ours = layer.metadata.get("muvit") == OUTLINES
        if ours and layer.metadata.get(IMAGE) == key:
            return layer
    return None


def apply_classes(
    layer: Shapes, state: PanelState, renamed: tuple[str, str] | None = None
) -> None:
    """Give a Shapes layer the classes' names and colours, and the current class."""
    names = [
        renamed[1] if renamed and name == renamed[0] else name
        for name in shape_classes(layer)
    ]
    # Names of a foreign layer that are not classes here stay what they are.
    known = list(
        dict.fromkeys([*state.names, *SPECIAL.values(), *(n for n in names if n)])
    )
    looks = {name: _look(name, state) for name in known}
    if renamed is None and _is_dressed(layer, looks):
        set_current(layer, state)  # to colour a thousand shapes again takes a while
        return
    features = layer.features.copy()
    features["class"] = pd.Categorical(
        [name or None for name in names], categories=known
    )
    layer.features = features
    # Setting either one by a column's name rebuilds both colour maps: set both, then
    # fill both maps.
    layer.face_color = "class"
    layer.edge_color = "class"
    for name, (edge, face) in looks.items():
        layer.edge_color_cycle_map[name] = edge
        layer.face_color_cycle_map[name] = face
    layer.refresh_colors()
    set_current(layer, state)


def _is_dressed(layer: Shapes, looks: Mapping[str, Look]) -> bool:
    """Whether the shapes have these classes and colours since they were given last."""
    column = layer.features.get("class")
    if column is None or not isinstance(column.dtype, pd.CategoricalDtype):
        return False  # given by name since
    if list(column.cat.categories) != list(looks):
        return False
    if {str(layer.edge_color_mode), str(layer.face_color_mode)} != {"cycle"}:
        return False
    return all(
        np.array_equal(layer.edge_color_cycle_map.get(name), edge)
        and np.array_equal(layer.face_color_cycle_map.get(name), face)
        for name, (edge, face) in looks.items()
    )


def _look(name: str, state: PanelState) -> tuple[NDArray[Any], NDArray[Any]]:
    """Edge and face colour of a class; boxes of background are faint."""
    if is_special(name) and not is_region(name):
        return transform_color(ERASED_EDGE)[0], transform_color(ERASED_FACE)[0]
    color = state.colors.get(name, "#ffffff")
    if is_region(name):
        background = [c.color for c in state.classes if c.name.lower() == BACKGROUND]
        color = background[0] if background else BACKGROUND_COLOR
    edge = transform_color(color)[0]
    face = edge.copy()
    face[3] = FAINT if is_region(name) else FACE_ALPHA
    return edge, face


def set_current(layer: Shapes, state: PanelState) -> None:
    """Make the state's current class the one that is drawn next."""
    if state.current_name:
        draw_as(layer, state.current_name)


def draw_as(layer: Shapes, name: str) -> None:
    """Give the class ``name`` to what is drawn next."""
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


def choose_tool(
    viewer: ViewerModel, layer: Shapes, tool: str, state: PanelState
) -> None:
    """Make ``layer`` active with a drawing tool (a key of `TOOLS`)."""
    if tool in SPECIAL:
        draw_as(layer, SPECIAL[tool])
    else:
        set_current(layer, state)
    # Neither a hidden layer nor a 3D view can be drawn upon.
    layer.visible = True
    viewer.dims.ndisplay = 2
    viewer.layers.selection.active = layer
    fit_outlines(viewer, layer)
    layer.mode = TOOLS[tool]


def tool_in_hand(layer: Shapes) -> str:
    """Return the tool that the mode of a layer belongs to; empty: none of ours."""
    drawn_as = layer.feature_defaults["class"].iloc[0] if _has_class(layer) else ""
    special = [
        t for t, n in SPECIAL.items() if n == drawn_as and TOOLS[t] == layer.mode
    ]
    plain = [t for t, mode in TOOLS.items() if mode == layer.mode and t not in SPECIAL]
    return next(iter([*special, *plain]), "")


def _has_class(layer: Shapes) -> bool:
    return "class" in layer.feature_defaults and len(layer.feature_defaults) > 0


def fit_outlines(viewer: ViewerModel, layer: Shapes) -> None:
    """Draw outlines as thin at every zoom, so that they never hide the tissue."""
    camera = getattr(viewer, "scene", viewer).camera
    width = max(1e-3, EDGE_PIXELS / camera.zoom / float(layer.scale[-1]))
    with layer.block_update_properties():
        layer.current_edge_width = width
    ours = layer.metadata.get("muvit") == OUTLINES
    if ours and 0 < len(layer.data) <= MAX_REDRAWN:
        layer.edge_width = width


def show_names(layer: Shapes, shown: bool) -> None:
    """Write the class of each region beside it, or not."""
    if shown:
        layer.text = {"string": "{class}", "size": 9, "color": "white"}
    layer.text.visible = shown


class ShapesWatcher:
    """Tells when a Shapes layer has changed.

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
        self.drawing = False
        layer.events.data.connect(self._on_data)
        layer.events.features.connect(self._on_features)

    def _on_data(self, event: Any) -> None:
        action = getattr(event, "action", None)
        self.drawing = action == ActionType.ADDING or (
            self.drawing and action != ActionType.ADDED
        )
        if self.drawing or action in UNFINISHED:
            return
        self._drop_leftover_rows()
        self._on_change()

    def _on_features(self, _event: Any = None) -> None:
        # Half-way through a change another event follows.
        if not self.drawing and len(self.layer.features) == len(self.layer.data):
            self._on_change()

    def _drop_leftover_rows(self) -> None:
        """Drop the features of an outline that was given up after two clicks.

        napari removes the shape only, and would give its class to the next one.
        """
        layer = self.layer
        if len(layer.features) > len(layer.data):
            layer.features = layer.features.iloc[: len(layer.data)]

    def release(self) -> None:
        """Stop watching the layer."""
        self.layer.events.data.disconnect(self._on_data)
        self.layer.events.features.disconnect(self._on_features)
