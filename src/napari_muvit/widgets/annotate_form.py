"""What the Annotate page shows: its pieces, where they lie, and the numbers on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QPushButton,
    QShortcut,
    QVBoxLayout,
    QWidget,
)

from .._layer_annotations import count_shapes, shape_classes
from .._layer_items import is_region, is_special
from .._layers import layer_pixel_size
from ..core.data.amounts import Amount, AmountCounter
from ..core.errors import PyramidError
from .class_amounts import area_words, special_words, too_little
from .class_table import ClassTable
from .drawing_tools import DrawingTools
from .label_source import LabelSource
from .outline_files import OutlineFiles
from .slide_annotations import SlideAnnotations
from .state import PanelState
from .ui import LayerCombo, Warning_, button, form, row, text

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

HINT = (
    "Keys 1–9 choose a class, Ctrl+Z takes the last change back. Later regions lie "
    "over earlier ones, paint over all of them. Tissue without a region is ignored in "
    "training, except in a background box: there, what is not marked is background."
)


class AnnotateForm(QWidget):
    """The widgets of the page."""

    def __init__(self, state: PanelState, files: OutlineFiles) -> None:
        super().__init__()
        self._state = state
        self._counter = AmountCounter()
        self.layers = LayerCombo(
            "The layer that holds the annotations: outlined regions (Shapes) or a "
            "painted or read label image (Labels)."
        )
        self.new_button = _flat_button(
            "New",
            "Choose the Shapes layer of this image, or add one to draw in; brings back "
            "what was taken out of the list of layers",
        )
        self.new_button.setMaximumWidth(60)
        self.classes = ClassTable(state)
        self.labels = LabelSource(state)
        self.values = self.labels.values
        self.files = files
        self.tools = DrawingTools()
        self.tool_buttons = self.tools.buttons
        self.undo_button = _flat_button("Undo", "Take the last change back (Ctrl+Z)")
        self.redo_button = _flat_button(
            "Redo", "Do what was taken back again (Ctrl+Shift+Z)"
        )
        self.names_shown = QCheckBox("names on the slide")
        self.names_shown.setToolTip(
            "Write its class upon each outlined region; as in QuPath, Region* is a "
            "background box and Ignore* an erased place"
        )
        self.enough = text(
            tooltip="A region wider than what the model sees at once counts as several."
        )
        self.saved = text(tooltip="Annotations are saved by themselves")
        self.saved.setVisible(False)
        self.unsaved = Warning_()
        self.open_button = _flat_button(
            "Open again", "Try again to open the file of the annotations"
        )
        self.open_button.setVisible(False)
        self.problem = Warning_()
        self.hint = text(HINT)
        self._lay_out()

    def _lay_out(self) -> None:
        chooser = QWidget()
        line = QHBoxLayout(chooser)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.layers)
        line.addWidget(self.new_button)
        top = form()
        top.addRow("annotations", chooser)
        top.addRow("GeoJSON", self.files)
        self.steps = QWidget()
        steps = QHBoxLayout(self.steps)
        steps.setContentsMargins(0, 0, 0, 0)
        steps.addWidget(row(self.undo_button, self.redo_button), 1)
        steps.addWidget(self.names_shown)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        for piece in (
            self.classes, self.tools, self.steps, self.labels, self.problem,
            self.enough, self.saved, self.unsaved, self.open_button, self.hint,
        ):  # fmt: skip
            layout.addWidget(piece)
        layout.addStretch(1)

    def say_saved(self, words: str) -> None:
        """Say what became of the annotations, in a line."""
        self.saved.setText(words)
        self.saved.setVisible(bool(words))

    def show_kind(self, *, labels: bool) -> None:
        """Show what belongs to a label image, or to outlines."""
        for piece in (self.tools, self.steps, self.hint):
            piece.setVisible(not labels)
        self.enough.setVisible(not labels and bool(self.enough.text()))
        self.labels.setVisible(labels)

    def count(self, layer: Shapes | None, slide: SlideAnnotations | None) -> None:
        """Show how many regions there are, outlined or painted."""
        if layer is None or slide is None:
            self.classes.show_counts(None)
            self.problem.say("")
            return
        if len(layer.features) != len(layer.data):
            return  # half-way through a change; another event follows
        _, problem = count_shapes(layer, self._state.names)
        self.problem.say(problem)
        amounts = self._amounts(slide)
        names = self._state.names
        self.classes.show_counts(
            {n: a.regions for n, a in zip(names, amounts, strict=True)}
        )

    def _amounts(self, slide: SlideAnnotations) -> list[Amount]:
        return self._counter.count(slide.areas(), len(self._state.classes))[1:]

    def count_amounts(
        self, layer: Shapes | None, slide: SlideAnnotations | None
    ) -> None:
        """Show the area of each class, and of which there is still too little."""
        if layer is None or slide is None:
            self.classes.show_areas({})
            self._say_enough("")
            return
        amounts = self._amounts(slide)
        names = self._state.names
        pixel = _pixel_area(slide.image)
        self.classes.show_areas(
            {
                n: area_words(a.pixels, pixel) if a.regions else ""
                for n, a in zip(names, amounts, strict=True)
            }
        )
        special = Counter(
            "boxes" if is_region(name) else "erased"
            for name in shape_classes(layer)
            if is_special(name)
        )
        words = (too_little(names, amounts), special_words(special))
        self._say_enough(" ".join(filter(None, words)))

    def _say_enough(self, words: str) -> None:
        self.enough.setText(words)
        self.enough.setVisible(bool(words))


def _pixel_area(image: Image) -> float | None:
    """Square micrometres of a pixel; None where they are unknown."""
    try:
        size = layer_pixel_size(image)
    except PyramidError:
        return None  # turned in the midst, which the Data page says
    return None if size is None else size[0] * size[1]


def _flat_button(words: str, tooltip: str) -> QPushButton:
    """Return a button that the page connects."""
    made = button(words, lambda: None, tooltip)
    made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return made


def rest_timer(parent: QWidget, interval: int, call: Callable[[], None]) -> QTimer:
    """Return a timer that calls once it was not started again for ``interval`` ms."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(interval)
    timer.timeout.connect(call)
    return timer


def shortcut(page: QWidget, key: Any, call: Callable[[], object]) -> None:
    """Give a page a key, for when the focus is in it."""
    made = QShortcut(QKeySequence(key), page)
    made.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
    made.activated.connect(lambda: call())
