"""Step 1: which slide, and what the model sees of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from .._layers import layer_pyramid
from ..core.data.pyramid import Pyramid
from ..core.errors import MuvitError
from . import describe
from .state import PanelState
from .ui import LayerCombo, Warning_, form, text

if TYPE_CHECKING:
    from napari.components import ViewerModel

FACTS = {
    "size": describe.size_text,
    "pixel size": describe.pixel_text,
    "channels": describe.channel_text,
    "levels": describe.level_text,
}
ROW_HEIGHT = 26


class DataPage(QWidget):
    """Chooses the image layer and says what there is to know about it."""

    image_changed = Signal(object)

    def __init__(self, viewer: ViewerModel, state: PanelState) -> None:
        super().__init__()
        self.viewer = viewer
        self.state = state
        self.image = LayerCombo("The slide: an image layer, RGB or grey.")
        self.image.layer_changed.connect(self._on_image)
        self._facts = {name: text() for name in FACTS}
        self.heading = text()
        self.table = self._make_table()
        self.problem = Warning_()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        top = form()
        top.addRow("image", self.image)
        for name, label in self._facts.items():
            top.addRow(name, label)
        layout.addLayout(top)
        layout.addSpacing(6)
        layout.addWidget(self.heading)
        layout.addWidget(self.table)
        layout.addWidget(self.problem)
        layout.addStretch(1)

    @staticmethod
    def _make_table() -> QTableWidget:
        table = QTableWidget(0, 3)
        table.setToolTip(
            "The model looks at every point of the slide at these scales at once: fine "
            "detail close by, and the tissue around it."
        )
        table.setHorizontalHeaderLabels(["scale", "µm / px", "field of view"])
        header = table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        return table

    def pyramid(self) -> Pyramid:
        """Return the chosen layer as the core sees it."""
        layer = self.image.layer
        if layer is None:
            raise MuvitError(
                "There is no image. Open a slide, or try File > Open Sample > MuViT."
            )
        return layer_pyramid(layer, self.viewer.dims.point)

    def set_layers(self, layers: list[Any]) -> None:
        """Offer the viewer's image layers."""
        from napari.layers import Image

        self.image.set_layers([x for x in layers if isinstance(x, Image)][::-1])
        self.refresh()

    def _on_image(self, layer: object) -> None:
        self.refresh()
        self.image_changed.emit(layer)

    def refresh(self) -> None:
        """Say again what there is to know."""
        try:
            pyramid = self.pyramid()
        except MuvitError as error:
            self._show(None, str(error))
        else:
            model = self.state.network[1]
            self._show(pyramid, "\n".join(describe.problems(model, pyramid)))

    def _show(self, pyramid: Pyramid | None, problem: str) -> None:
        for name, label in self._facts.items():
            label.setText("–" if pyramid is None else FACTS[name](pyramid))
        name, model = self.state.network
        rows = [] if pyramid is None else describe.scale_rows(model, pyramid)
        self.heading.setText(f"Scales the model ({name}) sees around every point:")
        self.heading.setVisible(bool(rows))
        self.table.setVisible(bool(rows))
        self.table.setRowCount(len(rows))
        for index, cells in enumerate(rows):
            for column, words in enumerate(cells):
                self.table.setItem(index, column, QTableWidgetItem(words))
        header = self.table.horizontalHeader().sizeHint().height()
        self.table.setFixedHeight(header + ROW_HEIGHT * len(rows) + 4)
        self.problem.say(problem)
