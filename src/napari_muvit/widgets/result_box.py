"""What came of a prediction: how it is shown, areas, files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from .._tasks.exporting import ExportTask
from ..core.export import ExportConfig
from ..core.prediction.areas import ClassArea
from .areas_table import AreasTable
from .foldout import Foldout
from .ui import button, form, row

if TYPE_CHECKING:
    from napari.layers import Labels

OUTLINE_WIDTH = 2
LARGEST = 1e9
"""Square micrometres or pixels that a smallest object may be asked for."""


class ResultBox(QWidget):
    """Opacity, outlines, areas, export and the folder of one prediction."""

    wanted = Signal(object)
    """An `ExportTask` that is to be run."""

    def __init__(self) -> None:
        super().__init__()
        self.layer: Labels | None = None
        self.path: Path | None = None
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setToolTip("How much of the slide the prediction covers up.")
        self.outlines = QCheckBox("outlines only")
        self.outlines.setToolTip("Draw the borders of the classes instead of areas.")
        self.areas = AreasTable()
        self.export_button = button(
            "Export …", self.export, "Write objects as GeoJSON (QuPath), and tables"
        )
        self.folder_button = button(
            "Show folder", self.show_folder, "Open the folder that the result lies in"
        )
        self.least = _limit("Objects smaller than this are left out.")
        self.holes = _limit("Holes smaller than this are filled.")
        self.smooth = _limit("By how much outlines may move, to have fewer corners.")
        self._lay_out()
        self.opacity.valueChanged.connect(self._on_opacity)
        self.outlines.toggled.connect(self._on_outlines)
        self.setVisible(False)

    def _lay_out(self) -> None:
        look = QWidget()
        line = QHBoxLayout(look)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.opacity, 1)
        line.addWidget(self.outlines)
        top = form()
        top.addRow("opacity", look)
        limits = form()
        limits.addRow("smallest object", self.least)
        limits.addRow("fill holes below", self.holes)
        limits.addRow("smooth by", self.smooth)
        self.export_options = Foldout(
            "Export options", "What becomes an object, and how exact outlines are"
        )
        self.export_options.content.addLayout(limits)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        layout.addWidget(self.areas)
        layout.addWidget(row(self.export_button, self.folder_button))
        layout.addWidget(self.export_options)

    def set_result(self, layer: Labels, path: Path, micrometres: bool) -> None:
        """Show a prediction that has begun.

        Parameters
        ----------
        layer
            In the viewer.
        path
            On the disk.
        micrometres
            Whether the size of a pixel is known; else limits are in pixels.
        """
        self.layer, self.path = layer, path
        for slider_or_box, value in (
            (self.opacity, round(100 * layer.opacity)),
            (self.outlines, layer.contour > 0),
        ):
            slider_or_box.blockSignals(True)
            _set(slider_or_box, value)
            slider_or_box.blockSignals(False)
        area, length = ("µm²", "µm") if micrometres else ("px²", "px")
        for box, unit in (
            (self.least, area), (self.holes, area), (self.smooth, length),
        ):  # fmt: skip
            box.setSuffix(f" {unit}")
        self.folder_button.setToolTip(f"Open {path.parent}")
        self.setVisible(True)

    def show_areas(self, areas: Sequence[ClassArea]) -> None:
        """Show exact areas."""
        if areas:
            self.areas.show_areas(areas)

    def set_busy(self, busy: bool) -> None:
        """One thing at a time."""
        self.export_button.setEnabled(not busy)

    def _on_opacity(self, value: int) -> None:
        if self.layer is not None:
            self.layer.opacity = value / 100

    def _on_outlines(self, wanted: bool) -> None:
        if self.layer is not None:
            self.layer.contour = OUTLINE_WIDTH if wanted else 0

    def export(self) -> None:
        """Let the user choose a folder, and ask for an export into it."""
        if self.path is None:
            return
        start = str(self.path.parent)
        folder = QFileDialog.getExistingDirectory(
            self, "Folder in which the export's folder is made", start
        )
        if folder:
            self.wanted.emit(self.task(Path(folder)))

    def task(self, folder: Path) -> ExportTask:
        """Return the export that the form asks for."""
        if self.path is None:  # nothing can be clicked then
            raise RuntimeError("There is no prediction.")
        config = ExportConfig(
            min_object=self.least.value(),
            min_hole=self.holes.value(),
            simplify=self.smooth.value(),
        )
        return ExportTask(self.path, folder / f"{self.path.stem}_export", config)

    def show_folder(self) -> None:
        """Open the folder of the result in the file manager."""
        if self.path is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.path.parent)))


def _set(widget: Any, value: Any) -> None:
    if isinstance(widget, QCheckBox):
        widget.setChecked(value)
    else:
        widget.setValue(value)


def _limit(tooltip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(0, LARGEST)
    box.setDecimals(1)
    box.setToolTip(tooltip)
    box.setMinimumWidth(60)
    return box
