"""How much of the slide each class covers, in a small table."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
)

from .._tasks.growing import GrowingLevels
from .._tasks.previewing import LOOKED
from ..core.config import ModelConfig
from ..core.prediction.areas import ClassArea, class_areas, count_labels
from .ui import color_icon

COUNTED_PIXELS = 2**20
"""Of the level that is counted while a prediction runs: about a millisecond."""
COUNT_SECONDS = 2.0
"""Between two counts."""
MM2 = 1e5
"""Square micrometres; larger areas are given in square millimetres."""
HEAD = ("class", "area", "share")
ROW_HEIGHT = 22
MOST_ROWS = 8


class AreasTable(QTableWidget):
    """Name, area and share of each class; the colour stands before the name."""

    def __init__(self) -> None:
        super().__init__(0, len(HEAD))
        self.setHorizontalHeaderLabels(HEAD)
        self.setToolTip("What each class covers. Exact once the prediction is done.")
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        columns = self.horizontalHeader()
        columns.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        columns.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self._counted_at = 0.0

    def follow(
        self,
        levels: GrowingLevels,
        model: ModelConfig,
        pixel_size: Sequence[float] | None,
    ) -> None:
        """Count a coarse level of a prediction that grows, now and then.

        Parameters
        ----------
        levels
            Of the prediction.
        model
            For names and colours.
        pixel_size
            Micrometres (y, x) of a pixel of the finest level; None: not known.
        """
        if time.monotonic() - self._counted_at < COUNT_SECONDS:
            return
        index = levels.first
        while (
            index + 1 < len(levels.levels)
            and math.prod(levels.levels[index].shape) > COUNTED_PIXELS
        ):
            index += 1
        counts = count_labels(levels.levels[index])
        # Some pixels may be those of a first look.
        counts[LOOKED:] = 0
        self.show_areas(
            class_areas(counts, model.names, model.colors, pixel_size, 2**index)
        )
        self._counted_at = time.monotonic()

    def show_areas(self, areas: Sequence[ClassArea]) -> None:
        """Show these areas."""
        self._counted_at = 0.0
        self.setRowCount(len(areas))
        for row, area in enumerate(areas):
            name = QTableWidgetItem(color_icon(area.color), area.name)
            name.setToolTip(area.name)
            cells = [
                name,
                QTableWidgetItem(area_text(area)),
                QTableWidgetItem(f"{100 * area.share:.1f} %"),
            ]
            for column, cell in enumerate(cells):
                if column:
                    right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    cell.setTextAlignment(right)
                self.setItem(row, column, cell)
        rows = min(len(areas), MOST_ROWS)
        head = self.horizontalHeader().sizeHint().height()
        self.setFixedHeight(head + rows * ROW_HEIGHT + 2 * self.frameWidth())


def area_text(area: ClassArea) -> str:
    """Return an area as people write it; pixels where their size is not known."""
    if area.um2 is None:
        return f"{area.pixels:,} px".replace(",", "\u202f")
    if area.um2 >= MM2:
        return f"{area.um2 / 1e6:.3g} mm²"
    return f"{area.um2:,.0f} µm²".replace(",", "\u202f")
