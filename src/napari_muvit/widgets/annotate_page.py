"""Step 2: the classes, and where they are on the slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QHBoxLayout, QShortcut, QVBoxLayout, QWidget

from .._layer_annotations import (
    count_shapes,
    label_classes,
    labels_annotations,
    shape_classes,
    shape_data,
    shapes_annotations,
)
from .._layers import shown_plane
from ..core.data.annotations import Annotations
from ..core.data.geojson import Outline, read_geojson, write_geojson
from ..core.data.items import Area
from ..core.data.polygons import Polygon
from ..core.errors import AnnotationError
from .class_table import ClassTable, regions
from .drawing_tools import DrawingTools
from .label_values import LabelValues, is_painted
from .outline_files import OutlineFiles, take_classes
from .shapes import (
    OUTLINES,
    ShapesWatcher,
    add_outlines,
    apply_classes,
    choose_tool,
    fit_outlines,
    give_class,
    new_shapes,
    set_current,
)
from .state import LabelClass, PanelState
from .streaming import CONTEXT, PREDICTION
from .ui import LayerCombo, Warning_, button, form, text
from .value_table import ValueTable

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Shapes

SELECTING_MODES = ("select", "direct")
UNDO_KEY = "Control-Z"
REST_MS = 150
"""Zoom and brush are followed when they have rested for this long."""
NUMBER_KEYS = [str(n) for n in range(1, 10)]


class AnnotatePage(QWidget):
    """Draw regions in a Shapes layer, or take any Labels layer."""

    classes_changed = Signal()

    def __init__(self, viewer: ViewerModel, state: PanelState) -> None:
        super().__init__()
        self.viewer = viewer
        self.state = state
        self.image: Image | None = None
        self._watcher: ShapesWatcher | None = None
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        self._look_again = QTimer(self)
        self._look_again.setSingleShot(True)
        self._look_again.setInterval(REST_MS)
        self._look_again.timeout.connect(self._on_rest)
        self.layers = LayerCombo(
            "The layer that holds the annotations: outlined regions (Shapes) or a "
            "painted or read label image (Labels)."
        )
        self.layers.layer_changed.connect(self._on_layer)
        self.classes = ClassTable(state)
        self.values = ValueTable(state)
        self.files = OutlineFiles(self.import_outlines, self.export_outlines)
        self.problem = Warning_()
        self.tools = DrawingTools()
        self.tool_buttons = self.tools.buttons
        self._reader = LabelValues(self)
        self.hint = text(
            "Keys 1–9 choose a class, Ctrl+Z takes the last region back. Tissue "
            "without a region is ignored in training."
        )
        self._connect()
        self._lay_out()
        self._show_kind()

    def _connect(self) -> None:
        self._reader.found.connect(self._take_values)
        self.tools.chosen.connect(self.use_tool)
        self.classes.classes_changed.connect(self._on_classes)
        self.classes.renamed.connect(self._on_renamed)
        self.classes.current_changed.connect(self._on_current)
        for index, key in enumerate(NUMBER_KEYS):
            shortcut = QShortcut(QKeySequence(key), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(partial(self.classes.choose, index))

    def _lay_out(self) -> None:
        new = button("New", self.new_layer, "Add an empty Shapes layer to draw in")
        new.setMaximumWidth(60)
        chooser = QWidget()
        line = QHBoxLayout(chooser)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.layers)
        line.addWidget(new)
        top = form()
        top.addRow("annotations", chooser)
        top.addRow("GeoJSON", self.files)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        layout.addWidget(self.classes)
        layout.addWidget(self.tools)
        layout.addWidget(self.values)
        layout.addWidget(self.hint)
        layout.addWidget(self.problem)
        layout.addStretch(1)

    # ---- layers

    def set_layers(self, layers: list[Any], image: Image | None) -> None:
        """Offer the viewer's Shapes and Labels layers; ``image`` is the slide."""
        from napari.layers import Labels, Shapes

        self.image = image
        kinds = [
            x
            for x in layers[::-1]
            if isinstance(x, Shapes | Labels)
            and x.metadata.get("muvit") not in (PREDICTION, CONTEXT)
        ]
        shapes = [x for x in kinds if isinstance(x, Shapes)]
        self.layers.set_layers(kinds, prefer=shapes[0] if shapes else None)
        self._show_kind()

    def new_layer(self) -> Shapes | None:
        """Add an empty Shapes layer and choose it."""
        if self.image is None:
            self.problem.say("Choose an image on the Data page first.")
            return None
        layer = new_shapes(self.viewer, self.image, self.state)
        self.set_layers(list(self.viewer.layers), self.image)
        self.layers.choose(layer)
        return layer

    def use_tool(self, name: str) -> None:
        """Start drawing with a tool; without a Shapes layer one is added."""
        layer = self._shapes() or self.new_layer()
        if layer is None:
            self._show_mode()
            return
        choose_tool(self.viewer, layer, name)

    @property
    def _drawing(self) -> bool:
        return self._watcher is not None and self._watcher.drawing

    def _shapes(self) -> Shapes | None:
        from napari.layers import Shapes

        layer = self.layers.layer
        return layer if isinstance(layer, Shapes) else None

    def _labels(self) -> Labels | None:
        from napari.layers import Labels

        layer = self.layers.layer
        return layer if isinstance(layer, Labels) else None

    def _on_layer(self, layer: Any) -> None:
        self.release()
        shapes, labels = self._shapes(), self._labels()
        if shapes is not None:
            self._take_names(shapes)
            apply_classes(shapes, self.state)
            self._listen(shapes.events.features, self._count)
            self._listen(shapes.events.mode, self._show_mode)
            self._bind_keys(shapes)
            self._watcher = ShapesWatcher(shapes, self._count)
        if shapes is not None:
            camera = getattr(self.viewer, "scene", self.viewer).camera
            self._listen(camera.events.zoom, self._look_again.start)
        if labels is not None:
            self._listen(labels.events.paint, self._look_again.start)
        self.values.forget()
        self.read_values(propose=True)
        self._show_kind()

    def _take_names(self, shapes: Shapes) -> None:
        """Propose the classes of a Shapes layer that came from elsewhere."""
        names = dict.fromkeys(n for n in shape_classes(shapes) if n)
        if names and not self.state.touched:
            self.state.classes.clear()
            for name in names:
                self.state.add_class(name)
            self._on_classes()

    def _listen(self, emitter: Any, slot: Callable[..., object]) -> None:
        def heard(_event: Any = None) -> None:
            slot()

        emitter.connect(heard)
        self._connections.append((emitter, heard))

    def release(self) -> None:
        """Let go of the layer, before another one or when the panel is closed."""
        for emitter, heard in self._connections:
            emitter.disconnect(heard)
        self._connections.clear()
        if self._watcher is None:
            return
        for key in (*NUMBER_KEYS, UNDO_KEY):
            self._watcher.layer.bind_key(key, None, overwrite=True)
        self._watcher.release()
        self._watcher = None

    def _bind_keys(self, layer: Shapes) -> None:
        # On the layer, not the viewer: napari's own layer keys come before the
        # viewer's, and other layers keep theirs.
        for index, key in enumerate(NUMBER_KEYS):
            layer.bind_key(
                key, lambda _layer, index=index: self._on_number(index), overwrite=True
            )
        layer.bind_key(UNDO_KEY, lambda _layer: self.undo(), overwrite=True)

    def _on_number(self, index: int) -> None:
        self.classes.choose(index)
        layer = self._shapes()
        if layer is not None and layer.mode in SELECTING_MODES and layer.selected_data:
            give_class(layer, sorted(layer.selected_data), self.state)
            self._count()

    def undo(self) -> None:
        """Take the last change of the Shapes layer back."""
        if self._watcher is not None:
            self._watcher.undo()

    # ---- classes

    def _on_classes(self) -> None:
        self.classes.rebuild()
        self.values.rebuild()
        self._colour()
        self._count()
        self.classes_changed.emit()

    def _on_renamed(self, old: str, new: str) -> None:
        self.values.rename(old, new)
        self._colour((old, new))
        self._count()
        self.classes_changed.emit()

    def _on_current(self) -> None:
        layer = self._shapes()
        if layer is not None:
            set_current(layer, self.state)

    def _colour(self, renamed: tuple[str, str] | None = None) -> None:
        layer = self._shapes()
        if layer is not None:
            apply_classes(layer, self.state, renamed)

    def read_values(self, *, propose: bool = False) -> None:
        """Look which values the chosen label image holds.

        Parameters
        ----------
        propose
            Make classes of them, unless the user has a list already. Not while the
            user paints: that would change the classes under the brush.
        """
        layer = self._labels()
        if layer is None:
            return
        self._reader.read(layer, propose=propose)

    def _take_values(self, layer: Labels, propose: bool, values: list[int]) -> None:
        if layer is not self._labels():
            return  # another one was chosen meanwhile
        found = label_classes(layer, values)
        guesses = {value: name or "" for value, (name, _) in found.items()}
        if propose and not self.state.touched and len(found) > 1:
            guesses = {
                value: name or f"class {value}" for value, name in guesses.items()
            }
            colors = [color for _, color in found.values()]
            self.state.propose_classes(
                [
                    LabelClass(n, c)
                    for n, c in zip(guesses.values(), colors, strict=True)
                ]
            )
            self.classes.rebuild()
            self.classes_changed.emit()
        self.values.set_values(guesses)

    # ---- what is shown

    def showEvent(self, event: Any) -> None:
        """Look again at a painted layer whenever the page is opened."""
        super().showEvent(event)
        self._read_painted()

    def _on_rest(self) -> None:
        """Follow the zoom or the brush, once it has rested."""
        self._read_painted()
        if not self._drawing:
            for layer in self.viewer.layers:
                if layer.metadata.get("muvit") == OUTLINES:
                    fit_outlines(self.viewer, layer)

    def _read_painted(self) -> None:
        layer = self._labels()
        if layer is not None and is_painted(layer):
            self.read_values()

    def _show_kind(self) -> None:
        labels = self._labels() is not None
        self.tools.setVisible(not labels)
        self.hint.setVisible(not labels)
        self.values.setVisible(labels)
        self._count()
        self._show_mode()

    def _show_mode(self, _event: Any = None) -> None:
        layer = self._shapes()
        self.tools.show_mode(layer.mode if layer is not None else "")

    def _count(self, _event: Any = None) -> None:
        layer = self._shapes()
        if layer is None:
            self.classes.show_counts(None)
            self.problem.say("")
            return
        if len(layer.features) != len(layer.data):
            return  # half-way through a change; another event follows
        counts, problem = count_shapes(layer, self.state.names)
        self.classes.show_counts(counts)
        self.problem.say(problem)

    # ---- files

    def import_outlines(self, path: Path) -> str:
        """Add the outlines of a GeoJSON file; return what was done, in words.

        They go to the chosen Shapes layer, or to a new one.
        """
        if self.image is None:
            raise AnnotationError("Choose an image on the Data page first.")
        file = read_geojson(path, shown_plane(self.image, self.viewer.dims.point))
        if not file.outlines:
            left_out = f" ({file.note})" if file.note else ""
            raise AnnotationError(
                f"{path.name} holds no outlined area with a class{left_out}; give the "
                "annotations a class, and export them again."
            )
        shapes = self._shapes()
        drawn = shapes is not None and len(shapes.data) > 0
        names = take_classes(
            self.state, file, replace=not self.state.touched and not drawn
        )
        layer = shapes if shapes is not None and shapes.ndim == 2 else self.new_layer()
        if layer is None:
            return ""
        fit_outlines(self.viewer, layer)
        outlines = shape_data(file.outlines, layer, self.image)
        try:
            add_outlines(layer, outlines, names, self.state)
        finally:
            if self._watcher is not None:
                self._watcher.accept()
            self._on_classes()
        said = f"{regions(len(outlines))} imported from {path.name}"
        return f"{said}; {file.note}." if file.note else f"{said}."

    def add_annotations(self, items: Sequence[Area], note: str) -> str:
        """Add areas, labelled in the order of the classes, to the chosen Shapes layer.

        Parameters
        ----------
        items
            Polygons in slide pixels.
        note
            Where they are from.
        """
        shapes = self._shapes()
        layer = shapes if shapes is not None and shapes.ndim == 2 else self.new_layer()
        if layer is None or self.image is None:
            return ""
        polygons = [item for item in items if isinstance(item, Polygon)]
        names = [self.state.names[item.label - 1] for item in polygons]
        found = [
            Outline(name, polygon.vertices, polygon.holes)
            for name, polygon in zip(names, polygons, strict=True)
        ]
        fit_outlines(self.viewer, layer)
        try:
            add_outlines(layer, shape_data(found, layer, self.image), names, self.state)
        finally:
            if self._watcher is not None:
                self._watcher.accept()
            self._on_classes()
        return f"{regions(len(names))} added from {note}."

    def export_outlines(self, path: Path) -> str:
        """Write outlined or painted regions as GeoJSON; return what was done."""
        annotations = self.annotations()
        if self.image is None:  # then there are no annotations either
            return ""
        plane = shown_plane(self.image, self.viewer.dims.point)
        write_geojson(annotations, path, plane)
        if self._labels() is not None:
            return f"The painted classes were exported to {path.name}."
        return f"{regions(len(annotations.items))} exported to {path.name}."

    # ---- result

    def annotations(self) -> Annotations:
        """Return the annotations in slide pixels."""
        if self.image is None or self.layers.layer is None:
            raise AnnotationError(
                "There are no annotations. Outline some regions of each class on the "
                "Annotate page, or choose a Labels layer there."
            )
        names = self.state.names
        colors = [c.color for c in self.state.classes]
        point = self.viewer.dims.point
        labels = self._labels()
        if labels is not None:
            values = self.values.values()
            return labels_annotations(labels, self.image, values, names, colors, point)
        return shapes_annotations(self.layers.layer, self.image, names, colors, point)
