"""The buttons with which regions are outlined."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QPushButton, QWidget

from .shapes import TOOLS
from .ui import button


class DrawingTools(QWidget):
    """One button a tool; the one that napari's mode belongs to is down."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        self.buttons: dict[str, QPushButton] = {}
        self._group = QButtonGroup(self)
        for name in TOOLS:
            made = button(
                name,
                partial(self.chosen.emit, name),
                f"Outline a region of the chosen class ({name.lower()})",
                checkable=True,
            )
            self._group.addButton(made)
            layout.addWidget(made)
            self.buttons[name] = made

    def show_mode(self, mode: str) -> None:
        """Press the button of a mode of the Shapes layer; of others none."""
        self._group.setExclusive(False)
        for name, made in self.buttons.items():
            made.setChecked(mode == TOOLS[name])
        self._group.setExclusive(True)
