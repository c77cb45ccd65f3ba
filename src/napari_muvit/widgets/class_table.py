"""The list of classes: key, colour and name, number of regions."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import QEvent, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHeaderView,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from .class_amounts import regions
from .state import PanelState
from .ui import Warning_, button, color_icon, row, theme_color

KEY, NAME, COUNT, AREA = range(4)
ROW_HEIGHT = 24
MIN_ROWS, MAX_ROWS = 3, 8


class ClassTable(QWidget):
    """Shows and edits the classes of a `PanelState`."""

    classes_changed = Signal()
    renamed = Signal(str, str)  # old name, new name
    current_changed = Signal()

    def __init__(self, state: PanelState) -> None:
        super().__init__()
        self.state = state
        self._counts: dict[str, int] = {}
        self._areas: dict[str, str] = {}
        self.tree = self._make_tree()
        self._remove = button("Remove", self.remove, "Take this class out")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addWidget(self.tree)
        self.problem = Warning_()
        layout.addWidget(self.problem)
        layout.addWidget(
            row(
                button("Add", self.add, "Add another class"),
                button("Rename", self.rename, "Rename it, or double-click its name"),
                button("Colour", self.recolor, "Choose another colour"),
                self._remove,
            )
        )
        self._paint_background()
        self.rebuild()

    def _make_tree(self) -> QTreeWidget:
        tree = QTreeWidget()
        tree.setColumnCount(4)
        tree.setHeaderHidden(True)
        tree.setRootIsDecorated(False)
        tree.setUniformRowHeights(True)
        tree.setToolTip(
            "The chosen class is drawn next; keys 1 to 9 choose it too. Double-click "
            "a name to change it."
        )
        tree.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
        tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(KEY, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(COUNT, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(AREA, QHeaderView.ResizeMode.ResizeToContents)
        tree.currentItemChanged.connect(self._on_current)
        tree.itemChanged.connect(self._on_edited)
        return tree

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow napari's theme."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.StyleChange:
            self._paint_background()

    def _paint_background(self) -> None:
        style = f"QTreeWidget {{background: {theme_color('foreground').name()};}}"
        if style != self.tree.styleSheet():
            self.tree.setStyleSheet(style)

    def rebuild(self) -> None:
        """Show the state's classes."""
        blocker = QSignalBlocker(self.tree)
        self.tree.clear()
        for index, label_class in enumerate(self.state.classes):
            count = self._counts.get(label_class.name)
            item = QTreeWidgetItem(
                [
                    str(index + 1) if index < 9 else "",
                    label_class.name,
                    "" if count is None else regions(count),
                    self._areas.get(label_class.name, ""),
                ]
            )
            item.setIcon(NAME, color_icon(label_class.color))
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
            self.tree.addTopLevelItem(item)
        self.tree.setCurrentItem(self.tree.topLevelItem(self.state.current))
        self._remove.setEnabled(len(self.state.classes) > 1)
        rows = min(max(len(self.state.classes), MIN_ROWS), MAX_ROWS)
        self.tree.setFixedHeight(rows * ROW_HEIGHT + 8)
        del blocker

    def show_counts(self, counts: dict[str, int] | None) -> None:
        """Show how many regions each class has; None hides the numbers."""
        self._counts = counts or {}
        blocker = QSignalBlocker(self.tree)
        for index, label_class in enumerate(self.state.classes):
            item = self.tree.topLevelItem(index)
            if item is not None:
                known = label_class.name in self._counts
                words = regions(self._counts[label_class.name]) if known else ""
                item.setText(COUNT, words)
        del blocker

    def show_areas(self, areas: Mapping[str, str]) -> None:
        """Show the area of each class, in words."""
        self._areas = dict(areas)
        blocker = QSignalBlocker(self.tree)
        for index, label_class in enumerate(self.state.classes):
            item = self.tree.topLevelItem(index)
            if item is not None:
                item.setText(AREA, self._areas.get(label_class.name, ""))
        del blocker

    def choose(self, index: int) -> None:
        """Make a class the current one."""
        if 0 <= index < len(self.state.classes):
            self.tree.setCurrentItem(self.tree.topLevelItem(index))

    def add(self) -> None:
        """Add a class and let the user type its name."""
        self.state.add_class()
        self._after_change()
        self.rename()

    def rename(self) -> None:
        """Let the user type another name for the current class."""
        item = self.tree.currentItem()
        if item is not None:
            self.tree.editItem(item, NAME)

    def recolor(self) -> None:
        """Let the user choose another colour for the current class."""
        now = QColor(self.state.classes[self.state.current].color)
        chosen = QColorDialog.getColor(now, self, "Colour of the class")
        if chosen.isValid():
            self.state.recolor_class(self.state.current, chosen.name())
            self._after_change()

    def remove(self) -> None:
        """Take the current class out."""
        if len(self.state.classes) > 1:
            self.state.remove_class(self.state.current)
            self._after_change()

    def _after_change(self) -> None:
        self.rebuild()
        self.classes_changed.emit()

    def _on_current(self, item: QTreeWidgetItem | None) -> None:
        index = self.tree.indexOfTopLevelItem(item) if item is not None else -1
        if index >= 0 and index != self.state.current:
            self.state.current = index
            self.current_changed.emit()

    def _on_edited(self, item: QTreeWidgetItem, column: int) -> None:
        if column != NAME:
            return
        index = self.tree.indexOfTopLevelItem(item)
        old, new = self.state.names[index], item.text(NAME).strip()
        if new == old:
            return
        problem = self.state.rename_class(index, new)
        self.problem.say(problem)
        if problem:
            item.setText(NAME, old)
        else:
            self.renamed.emit(old, new)
