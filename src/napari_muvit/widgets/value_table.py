"""Which value of a label image stands for which class."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from .state import PanelState
from .ui import color_icon, text

NOT_USED = "not used"
ROW_HEIGHT = 28
MAX_ROWS = 8


class ValueTable(QWidget):
    """One row a value, one combo of classes a row."""

    values_changed = Signal()

    def __init__(self, state: PanelState) -> None:
        super().__init__()
        self.state = state
        self._found: dict[int, str] = {}
        self._boxes: dict[int, QComboBox] = {}
        self._chosen: dict[int, str] = {}
        self._message = text("Values that are not used count as not annotated.")
        self.table = QTableWidget(0, 2)
        self.table.setToolTip(
            "Which class each value of the label image stands for. Pixels of a value "
            "that is not used are ignored in training."
        )
        self.table.setHorizontalHeaderLabels(["value", "class"])
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self.table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addWidget(self._message)

    def set_values(self, found: Mapping[int, str]) -> None:
        """Offer the values found, each with the class name it probably means."""
        self._found = {v: self._found.get(v) or name for v, name in found.items()}
        self.rebuild()

    def forget(self) -> None:
        """Forget what the user chose, for another layer."""
        self._chosen, self._found = {}, {}
        self.rebuild()

    def _choose(self, value: int, box: QComboBox, _index: int) -> None:
        self._chosen[value] = box.currentText()
        self.values_changed.emit()

    def rebuild(self) -> None:
        """Show the values and the state's classes; keep what the user chose."""
        self._boxes = {}
        self.table.setRowCount(len(self._found))
        for index, (value, guess) in enumerate(list(self._found.items())):
            self.table.setItem(index, 0, _read_only(str(value)))
            box = QComboBox()
            box.addItem(NOT_USED)
            for label_class in self.state.classes:
                box.addItem(color_icon(label_class.color), label_class.name)
            label = self._guess(value, self._chosen.get(value, guess))
            box.setCurrentIndex(label)
            if label:
                # From now on by name, so that taking out a class moves no other value.
                self._found[value] = self.state.names[label - 1]
            box.currentIndexChanged.connect(partial(self._choose, value, box))
            self.table.setCellWidget(index, 1, box)
            self._boxes[value] = box
        header = self.table.horizontalHeader().sizeHint().height()
        rows = min(max(len(self._found), 1), MAX_ROWS)
        self.table.setFixedHeight(header + rows * ROW_HEIGHT + 4)
        self._message.setText(
            "Values that are not used count as not annotated."
            if self._found
            else "This layer holds no values yet. Paint some, then come back."
        )

    def rename(self, old: str, new: str) -> None:
        """Follow a class to its new name."""
        for box in self._boxes.values():
            where = box.findText(old)
            if where > 0:
                box.setItemText(where, new)
        self._found = {v: new if g == old else g for v, g in self._found.items()}
        self._chosen = {v: new if g == old else g for v, g in self._chosen.items()}

    def _guess(self, value: int, name: str) -> int:
        if name in self.state.names:
            return self.state.names.index(name) + 1
        if name:  # not used, or of a class that has been taken out
            return 0
        return value if 0 < value <= len(self.state.classes) else 0

    def values(self) -> dict[int, int]:
        """Return the label (from 1) of each value that is used."""
        return {
            value: box.currentIndex()
            for value, box in self._boxes.items()
            if box.currentIndex() > 0
        }


def _read_only(words: str) -> QTableWidgetItem:
    item = QTableWidgetItem(words)
    item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
    return item
