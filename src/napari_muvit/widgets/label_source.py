"""A Labels layer as annotation: which of its values stands for which class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from .._layer_annotations import label_classes, labels_annotations
from .._layer_items import background_label
from ..core.data.annotations import Annotations
from .label_values import LabelValues, is_painted
from .state import LabelClass, PanelState
from .ui import text
from .value_table import ValueTable

if TYPE_CHECKING:
    from napari.layers import Image, Labels


class LabelSource(QWidget):
    """The table of values, and what is read out of the layer."""

    proposed = Signal()
    """The classes of the layer have become those of the panel."""
    changed = Signal()

    def __init__(self, state: PanelState) -> None:
        super().__init__()
        self.state = state
        self.layer: Labels | None = None
        self.values = ValueTable(state)
        self.values.values_changed.connect(self.changed)
        self._reader = LabelValues(self)
        self._reader.found.connect(self._take_values)
        self._says = text()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._says)
        layout.addWidget(self.values)

    def take(self, layer: Labels | None) -> None:
        """Show the values of another layer, or of none."""
        self.layer = layer
        self.values.forget()
        if layer is not None:
            self._says.setText(
                f"Training uses the label image {layer.name!r} as it is, and nothing "
                "else. What is outlined or painted stays in its file; choose its layer "
                "above to use it."
            )
        self.read(propose=True)

    def read(self, *, propose: bool = False) -> None:
        """Look which values the layer holds.

        Parameters
        ----------
        propose
            Make classes of them, unless the user has a list already. Not while the
            user paints: that would change the classes under the brush.
        """
        if self.layer is not None:
            self._reader.read(self.layer, propose=propose)

    def read_painted(self) -> None:
        """Look again at a layer that may have been painted upon."""
        if self.layer is not None and is_painted(self.layer):
            self.read()

    def _take_values(self, layer: Labels, propose: bool, values: list[int]) -> None:
        if layer is not self.layer:
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
            self.proposed.emit()
        elif not self.state.touched and len(found) == 1 and not any(guesses.values()):
            # A mask of one kind of object.
            guesses = dict.fromkeys(guesses, self._first_object())
        # Where 0 is the background, the user may say so.
        self.values.set_values({0: "", **guesses} if guesses else {})
        self.changed.emit()

    def _first_object(self) -> str:
        names = self.state.names
        background = background_label(names)
        objects = [n for k, n in enumerate(names, start=1) if k != background]
        return next(iter(objects), "")

    def annotations(self, image: Image, point: Sequence[float]) -> Annotations | None:
        """Return the annotations in slide pixels; None without a layer."""
        if self.layer is None:
            return None
        names = self.state.names
        colors = [c.color for c in self.state.classes]
        values = self.values.values()
        return labels_annotations(self.layer, image, values, names, colors, point)
