"""Which channels of the slide the model reads: layers, or channels of one layer."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QListWidget,
    QListWidgetItem,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from .ui import button, fit_list

MAX_ROWS = 6


class ChannelList(QWidget):
    """A row a channel, with a box to tick; hidden where there is nothing to choose."""

    changed = Signal()
    whole_file = Signal()
    """All channels of the file are wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.list = QListWidget()
        self.list.setToolTip(
            "What is ticked is read as the channels of the slide, in this order."
        )
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.file_button = button(
            "All of this file",
            self.whole_file.emit,
            "Tick the layers that were opened from the same file, and no others",
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.list)
        layout.addWidget(self.file_button)
        self.list.itemChanged.connect(lambda _item: self.changed.emit())
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.offer([], [], of_file=False)

    @property
    def ticked(self) -> list[int]:
        """Indices of the ticked rows."""
        rows = range(self.list.count())
        checked = Qt.CheckState.Checked
        return [k for k in rows if self.list.item(k).checkState() == checked]

    def offer(
        self, names: Sequence[str], ticked: Sequence[int], *, of_file: bool
    ) -> None:
        """Offer channels.

        Parameters
        ----------
        names
            One a row; a single one is no choice.
        ticked
            Rows that are ticked.
        of_file
            Whether several of the rows come from the file of the chosen layer.
        """
        self.setVisible(len(names) > 1)
        self.file_button.setVisible(of_file)
        if self._names == list(names) and self.ticked == sorted(ticked):
            return  # keeps where the user has scrolled to
        self.list.blockSignals(True)
        self.list.clear()
        for row, name in enumerate(names):
            item = QListWidgetItem(name)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            on = Qt.CheckState.Checked if row in ticked else Qt.CheckState.Unchecked
            item.setCheckState(on)
            item.setToolTip(name)
            self.list.addItem(item)
        self.list.blockSignals(False)
        fit_list(self.list, MAX_ROWS)

    @property
    def _names(self) -> list[str]:
        return [self.list.item(k).text() for k in range(self.list.count())]
