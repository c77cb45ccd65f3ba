"""Step 2: the classes, and where they are on the slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtGui import QKeySequence

from .._layer_annotations import shape_classes, shape_colors
from ..core.data.annotations import Annotations
from ..core.data.items import Area
from ..core.errors import AnnotationError, MuvitError
from .annotate_form import AnnotateForm, rest_timer, shortcut
from .brush import BRUSH, IMAGE
from .outline_exchange import export_outlines, import_outlines
from .outline_files import OutlineFiles
from .painting import NUMBER_KEYS
from .result_layers import CONTEXT, PREDICTION
from .shapes import OUTLINES, apply_classes, fit_outlines, show_names
from .slide_annotations import SlideAnnotations
from .state import PanelState
from .tool_control import ToolControl
from .view_boxes import VIEW

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Shapes

REST_MS = 150
"""Zoom and brush are followed when they have rested for this long."""
QUIET_MS = 300
"""Others are told of changes when there were none for this long."""


class AnnotatePage(AnnotateForm):
    """Draw and paint regions upon the slide, or take any Labels layer."""

    classes_changed = Signal()
    annotations_changed = Signal()
    """What `annotations` returns has changed, and rests now."""

    def __init__(self, viewer: ViewerModel, state: PanelState) -> None:
        super().__init__(
            state, OutlineFiles(self.import_outlines, self.export_outlines)
        )
        self.viewer = viewer
        self.state = state
        self.image: Image | None = None
        self.slide: SlideAnnotations | None = None
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        self._look_again = rest_timer(self, REST_MS, self._on_rest)
        self._tell = rest_timer(self, QUIET_MS, self._on_quiet)
        self.hand = ToolControl(
            viewer, state, self.tools, self.classes, self.undo, self.redo
        )
        self._connect()
        self._show_kind()

    def _connect(self) -> None:
        self.layers.layer_changed.connect(self._on_layer)
        self.labels.proposed.connect(self._on_proposed)
        self.labels.changed.connect(self._tell.start)
        self.tools.chosen.connect(self.use_tool)
        self.classes.classes_changed.connect(self._on_classes)
        self.classes.renamed.connect(self._on_renamed)
        self.classes.current_changed.connect(self.hand.draw_current)
        self.names_shown.toggled.connect(self._show_names)
        self.new_button.clicked.connect(lambda _checked=False: self.new_layer())
        self.open_button.clicked.connect(lambda _checked=False: self._open_again())
        self.undo_button.clicked.connect(lambda _checked=False: self.undo())
        self.redo_button.clicked.connect(lambda _checked=False: self.redo())
        for index, key in enumerate(NUMBER_KEYS):
            shortcut(self, key, partial(self.classes.choose, index))
        shortcut(self, QKeySequence.StandardKey.Undo, self.undo)
        shortcut(self, QKeySequence.StandardKey.Redo, self.redo)

    # ---- the slide and its layers

    def set_layers(self, layers: list[Any], image: Image | None) -> None:
        """Offer the viewer's Shapes and Labels layers; ``image`` is the slide."""
        from napari.layers import Labels, Shapes

        if image is not self.image:
            self._take_slide(image)
        own = self.slide.key if self.slide is not None else ""
        kinds = [
            x
            for x in layers[::-1]
            if isinstance(x, Shapes | Labels)
            and x.metadata.get("muvit") not in (PREDICTION, CONTEXT, BRUSH, VIEW)
            and x.metadata.get(IMAGE, own) == own
        ]
        shapes = [x for x in kinds if isinstance(x, Shapes)]
        ours = [x for x in shapes if x.metadata.get("muvit") == OUTLINES]
        self.layers.set_layers(kinds, prefer=next(iter([*ours, *shapes]), None))
        self._show_kind()

    def _take_slide(self, image: Image | None) -> None:
        """Put the annotations of one slide away and bring those of another back."""
        self.layers.set_layers([])
        self.release()
        self.say_saved("")
        self.unsaved.say("")
        self.open_button.setVisible(False)
        self.image = image
        if image is None:
            return
        try:
            slide = SlideAnnotations(self.viewer, self.state, image)
        except MuvitError:
            return  # the Data page says what is wrong with it
        slide.changed.connect(self._on_changed)
        slide.classes_changed.connect(self._on_proposed)
        slide.restored.connect(self._choose)
        slide.said.connect(self.say_saved)
        slide.failed.connect(self._on_failed)
        self.slide = slide
        slide.open()

    def _choose(self, layer: Shapes) -> None:
        if layer in self.viewer.layers:
            self.set_layers(list(self.viewer.layers), self.image)
            self.layers.choose(layer)

    def new_layer(self) -> Shapes | None:
        """Choose the Shapes layer of this slide; without one it is added."""
        if self.slide is None and self.image is not None:
            self._take_slide(self.image)  # its transform may be mended by now
        if self.slide is None:
            self.problem.say(
                "Choose an image on the Data page first."
                if self.image is None
                else f"Nothing can be drawn upon {self.image.name!r}; the Data page "
                "says why."
            )
            return None
        layer = self.slide.own_layer()
        self._choose(layer)
        return layer

    def use_tool(self, name: str) -> None:
        """Start drawing with a tool; without a Shapes layer one is added."""
        if self._shapes() is not None or self.new_layer() is not None:
            try:
                self.hand.use(name)
            except AnnotationError as error:
                self.problem.say(str(error))
        self.hand.show()

    def _shapes(self) -> Shapes | None:
        from napari.layers import Shapes

        layer = self.layers.layer
        return layer if isinstance(layer, Shapes) else None

    def _labels(self) -> Labels | None:
        from napari.layers import Labels

        layer = self.layers.layer
        return layer if isinstance(layer, Labels) else None

    def _on_layer(self, layer: Any) -> None:
        self._let_go()
        shapes, labels = self._shapes(), self._labels()
        camera = getattr(self.viewer, "scene", self.viewer).camera
        self._listen(camera.events.zoom, self._look_again.start)
        self._listen(self.viewer.layers.selection.events.active, self.hand.show)
        if shapes is not None and self.slide is not None:
            self._take_names(shapes)
            apply_classes(shapes, self.state)
            self._listen(shapes.events.mode, self.hand.show)
            self.hand.take(shapes, self.slide)
            self.slide.bind(shapes)
            self._show_names(self.names_shown.isChecked())
        if labels is not None:
            self._listen(labels.events.paint, self._look_again.start)
        self.labels.take(labels)
        self._show_kind()
        self._tell.start()

    def _take_names(self, shapes: Shapes) -> None:
        """Propose the classes of a Shapes layer that came from elsewhere."""
        names = dict.fromkeys(
            n for n in shape_classes(shapes) if n and not n.endswith("*")
        )
        if names and not self.state.touched:
            self.state.classes.clear()
            ours = shapes.metadata.get("muvit") == OUTLINES
            colors = shape_colors(shapes) if ours else {}
            for name in names:
                self.state.add_class(name, colors.get(name))
            self._on_classes()

    def _listen(self, emitter: Any, slot: Callable[..., object]) -> None:
        def heard(_event: Any = None) -> None:
            slot()

        emitter.connect(heard)
        self._connections.append((emitter, heard))

    def _let_go(self) -> None:
        """Let go of the layer, before another one."""
        for emitter, heard in self._connections:
            emitter.disconnect(heard)
        self._connections.clear()
        self.hand.release()
        if self.slide is not None:
            self.slide.unbind()

    def release(self) -> None:
        """Let go of layers and file, before another slide or when napari closes."""
        self._let_go()
        if self.slide is not None:
            self.slide.close()
        self.slide = self.image = None

    # ---- undo, keys

    def undo(self) -> None:
        """Take the last change back."""
        labels = self._labels()
        if labels is not None:
            labels.undo()
        elif self.slide is not None and not self.slide.drawing:
            self.slide.undo()

    def redo(self) -> None:
        """Do the change again that was undone last."""
        labels = self._labels()
        if labels is not None:
            labels.redo()
        elif self.slide is not None and not self.slide.drawing:
            self.slide.redo()

    # ---- classes

    def _on_classes(self) -> None:
        self.classes.rebuild()
        self.labels.values.rebuild()
        self._dress()
        if self.slide is not None:
            self.slide.look()
        self._count()
        self.classes_changed.emit()
        self._tell.start()

    def _on_proposed(self) -> None:
        """The list was changed by the panel, not by the user."""
        self.classes.rebuild()
        self.labels.values.rebuild()
        self._dress()
        self._count()
        self.classes_changed.emit()

    def _on_renamed(self, old: str, new: str) -> None:
        self.labels.values.rename(old, new)
        if self.slide is not None:
            self.slide.brush.rename(old, new)
        self._dress((old, new))
        if self.slide is not None:
            self.slide.look()
        self._count()
        self.classes_changed.emit()
        self._tell.start()

    def _dress(self, renamed: tuple[str, str] | None = None) -> None:
        layer = self._shapes()
        if layer is not None:
            apply_classes(layer, self.state, renamed)
        if self.slide is not None:
            self.slide.brush.apply_classes(self.state)

    # ---- what is shown

    def showEvent(self, event: Any) -> None:
        """Look again at a painted layer whenever the page is opened."""
        super().showEvent(event)
        self.labels.read_painted()

    def _on_rest(self) -> None:
        """Follow the zoom or the brush, once it has rested."""
        self.labels.read_painted()
        if self.slide is None or self.slide.drawing:
            return
        for layer in self.viewer.layers:
            if layer.metadata.get("muvit") == OUTLINES:
                fit_outlines(self.viewer, layer)
        self.hand.follow_zoom()

    def _on_changed(self) -> None:
        """Something was finished."""
        self._count()
        self._tell.start()

    def _on_quiet(self) -> None:
        self._count_amounts()
        self.annotations_changed.emit()

    def _on_failed(self, words: str) -> None:
        self.unsaved.say(words)
        blocked = self.slide is not None and self.slide.autosave.blocked
        self.open_button.setVisible(bool(words) and blocked)

    def _open_again(self) -> None:
        if self.slide is not None:
            self.slide.reopen()

    def _show_kind(self) -> None:
        self.show_kind(labels=self._labels() is not None)
        self._count()
        self.hand.show()

    def _show_names(self, shown: bool) -> None:
        layer = self._shapes()
        if layer is not None:
            show_names(layer, shown)

    def _count(self) -> None:
        slide = self.slide
        self.undo_button.setEnabled(slide is None or slide.history.can_undo)
        self.redo_button.setEnabled(slide is None or slide.history.can_redo)
        self.count(self._shapes(), slide)

    def _count_amounts(self) -> None:
        self.count_amounts(self._shapes(), self.slide)

    # ---- files

    def import_outlines(self, path: Path) -> str:
        """Add the outlines of a GeoJSON file; return what was done, in words."""
        if self.slide is None:
            raise AnnotationError("Choose an image on the Data page first.")
        return import_outlines(path, self.slide, self._flat_layer, self._on_classes)

    def _flat_layer(self) -> Shapes:
        shapes = self._shapes()
        layer = shapes if shapes is not None and shapes.ndim == 2 else self.new_layer()
        if layer is None:
            raise AnnotationError("Choose an image on the Data page first.")
        return layer

    def export_outlines(self, path: Path) -> str:
        """Write outlined or painted regions as GeoJSON; return what was done."""
        annotations = self.annotations()
        if self.image is None:  # then there are no annotations either
            return ""
        point = self.viewer.dims.point
        return export_outlines(path, annotations, self.image, point)

    # ---- result

    def add_annotations(self, items: Sequence[Area], note: str = "") -> None:
        """Add areas to those of the slide, as one step to undo.

        Parameters
        ----------
        items
            In slide pixels; their labels are those of the panel's list of classes.
        note
            What was done, in a line that the page shows.

        Raises
        ------
        AnnotationError
            If there is no slide, or no such class.
        """
        if self.slide is None:
            raise AnnotationError("Choose an image on the Data page first.")
        largest = max((item.label for item in items), default=0)
        if largest > len(self.state.classes):
            raise AnnotationError(
                f"The class {largest} was given, but there are only "
                f"{len(self.state.classes)}. Add the class on the Annotate page."
            )
        if self._shapes() is None or not self.slide.kept:
            self.new_layer()
        self.slide.add(items)
        self.say_saved(note)

    def annotations(self) -> Annotations:
        """Return everything that is annotated, in slide pixels."""
        if self.image is None or self.layers.layer is None:
            raise AnnotationError(
                "There are no annotations. Outline some regions of each class on the "
                "Annotate page, or choose a Labels layer there."
            )
        point = self.viewer.dims.point
        of_labels = self.labels.annotations(self.image, point)
        if of_labels is not None:
            return of_labels
        items = self.slide.areas() if self.slide is not None else []
        if not any(item.label for item in items):
            raise AnnotationError(
                f"The layer {self.layers.layer.name!r} holds no outlined region of the "
                f"classes {', '.join(self.state.names)}. Outline some with Lasso, "
                "Polygon or Box on the Annotate page, or paint some with Brush."
            )
        colors = tuple(c.color for c in self.state.classes)
        return Annotations(tuple(items), self.state.names, colors)
