"""The buttons with which regions are outlined, painted and taken away."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QGridLayout, QPushButton, QWidget

from .ui import MIN_BUTTON, button

PAINT = "Brush"
TIPS = {
    "Lasso": "Outline a region of the chosen class with the button held down",
    "Polygon": "Outline a region of the chosen class by clicking its corners; "
    "double-click the last one",
    "Box": "Draw a box of the chosen class from corner to corner",
    "Ellipse": "Draw an ellipse of the chosen class from corner to corner",
    PAINT: "Paint the chosen class at this zoom. Napari's own tools (fill, erase, "
    "polygon) are in the layer controls; [ and ] change the size",
    "Erase": "Take annotations away under what you draw, outlined or painted",
    "Background box": "Draw a box in which everything that is not marked counts as "
    "background",
}
ROWS = (("Lasso", "Polygon", "Box", "Ellipse"), (PAINT, "Erase", "Background box"))
COLUMNS = 12


class DrawingTools(QWidget):
    """One button a tool; the one that is in hand is down."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        self.buttons: dict[str, QPushButton] = {}
        self._group = QButtonGroup(self)
        for row, names in enumerate(ROWS):
            for column, name in enumerate(names):
                made = button(
                    name, partial(self.chosen.emit, name), TIPS[name], checkable=True
                )
                made.setMinimumWidth(MIN_BUTTON)
                made.setStyleSheet("padding: 4px 2px;")
                self._group.addButton(made)
                width = _width(row, column)
                layout.addWidget(made, row, _start(row, column), 1, width)
                self.buttons[name] = made
        for column in range(COLUMNS):
            layout.setColumnStretch(column, 1)

    def show_tool(self, tool: str) -> None:
        """Press the button of a tool; of others none."""
        self._group.setExclusive(False)
        for name, made in self.buttons.items():
            made.setChecked(name == tool)
        self._group.setExclusive(True)


def _width(row: int, column: int) -> int:
    """Columns that a button takes; the longest name takes as much as two others."""
    return 6 if row == 1 and column == 2 else 3


def _start(row: int, column: int) -> int:
    return sum(_width(row, before) for before in range(column))
