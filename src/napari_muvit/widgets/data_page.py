"""Step 1: which slide, which model, and what the model sees of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ..core.data.crops import resolve_mode
from ..core.data.pyramid import Pyramid
from ..core.errors import MuvitError
from ..core.model.checkpoint import is_model_folder
from . import describe
from .channel_list import ChannelList
from .model_card import MODES
from .model_fit import fit_problems
from .model_part import ModelPart
from .pixel_size import PixelSize
from .scale_choice import ScaleChoice
from .slide_choice import SlideChoice
from .slide_list import SlideList
from .slides import put
from .state import PanelState
from .ui import Combo, LayerCombo, Warning_, button, form, text
from .view_boxes import Sight, ViewBoxes

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

FACTS = {
    "size": describe.size_text,
    "channels": describe.channel_text,
    "levels": describe.level_text,
}
ROW_HEIGHT = 26


class DataPage(QWidget):
    """Chooses the slide and the model, and says how they fit."""

    image_changed = Signal(object)

    def __init__(self, viewer: ViewerModel, state: PanelState) -> None:
        super().__init__()
        self.viewer = viewer
        self.state = state
        self.slide = SlideChoice(viewer)
        self.image = LayerCombo("The slide: an image layer, RGB or grey.")
        self.channels = ChannelList()
        self.pixel = PixelSize()
        self.model = ModelPart(state)
        self.scales = ScaleChoice()
        self.normalisation = Combo("How pixel values become those that the model reads")
        self._facts = {name: text() for name in FACTS}
        self._facts["pixel size"] = self.pixel.label
        self.heading = text()
        self.table = self._make_table()
        self.boxes = ViewBoxes(viewer, self._sight)
        self.boxes_button = button(
            "Show what the model sees",
            self._on_boxes,
            "Draw the views around the cursor, each with its size",
            checkable=True,
        )
        self.problem = Warning_()
        self.slides = SlideList(state)
        self.setAcceptDrops(True)
        self._lay_out()
        self._connect()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        top = form()
        top.addRow("image", self.image)
        for name in ("size", "channels"):
            top.addRow(name, self._facts[name])
        top.addRow("", self.channels)
        top.addRow("pixel size", self.pixel)
        top.addRow("levels", self._facts["levels"])
        top.addRow("model", self.model.chooser)
        top.addRow("", self.model.all_button)
        top.addRow(self.model.card)
        top.addRow("scales", self.scales.combo)
        top.addRow("values", self.normalisation)
        layout.addLayout(top)
        layout.addWidget(self.problem)
        layout.addSpacing(6)
        layout.addWidget(self.heading)
        layout.addWidget(self.table)
        layout.addWidget(self.scales.why)
        layout.addWidget(self.boxes_button)
        layout.addSpacing(6)
        layout.addWidget(text("Slides of this project:"))
        layout.addWidget(self.slides)
        layout.addStretch(1)

    def _connect(self) -> None:
        self.image.layer_changed.connect(self._on_image)
        self.image.activated.connect(lambda _index: self._keep_slide())
        self.channels.changed.connect(self._on_channels)
        self.channels.whole_file.connect(self._on_file)
        self.pixel.typed.connect(self._on_pixel_size)
        self.scales.changed.connect(self._on_scales)
        self.normalisation.activated.connect(self._on_normalisation)
        for part in (self.pixel, self.scales, self.model):
            part.refused.connect(self.problem.say)
        self.slides.said.connect(self.problem.say)

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
        """Return the chosen slide as the core sees it."""
        return self.slide.pyramid()

    def set_layers(self, layers: list[Any]) -> None:
        """Offer the viewer's image layers."""
        from napari.layers import Image

        self.image.set_layers([x for x in layers if isinstance(x, Image)][::-1])
        self.state.slides = [e for e in self.state.slides if e.alive]
        self.refresh()

    # ---- what the user does

    def _on_image(self, layer: Any) -> None:
        self.slide.image = layer
        self.refresh()
        self.image_changed.emit(layer)

    def _on_channels(self) -> None:
        self.slide.tick(self.channels.ticked)
        self._keep_slide()

    def _on_file(self) -> None:
        self.slide.tick_file()
        self._keep_slide()

    def _on_pixel_size(self, micrometres: float | None) -> None:
        self.slide.set_pixel_size(micrometres)
        self._keep_slide()

    def _on_scales(self) -> None:
        self.state.levels = self.scales.chosen
        self.refresh()

    def _on_normalisation(self) -> None:
        self.state.normalisation = self.normalisation.currentData()
        self.refresh()

    def _on_boxes(self) -> None:
        if not self.boxes_button.isChecked():
            self.boxes.hide()
            return
        try:
            self.boxes.show()
        except MuvitError as error:
            self.boxes_button.setChecked(False)
            self.problem.say(str(error))

    def hide_boxes(self) -> None:
        """Take the boxes away, with the panel."""
        self.boxes_button.setChecked(False)
        self.boxes.close()

    def dragEnterEvent(self, event: Any) -> None:
        """Take model folders that are dropped upon the page."""
        if _dropped_model(event) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Choose the model that was dropped."""
        folder = _dropped_model(event)
        if folder is not None:
            event.acceptProposedAction()
            self.model.use(folder)

    # ---- what is shown

    def _keep_slide(self) -> None:
        """Take what the user chose over into the list of slides."""
        self.refresh()
        if self.state.shown is not None:
            self.state.slides = put(self.state.slides, self.state.shown)
            self.slides.show_slides()

    def refresh(self) -> None:
        """Say again what there is to know."""
        self.slide.image = self.image.layer
        self.model.show_models()
        names, ticked, of_file = self.slide.rows()
        self.channels.offer(names, ticked, of_file=of_file)
        try:
            pyramid = self.pyramid()
        except MuvitError as error:
            self.state.shown = None
            self._show(None, str(error))
        else:
            self.state.shown = entry = self.slide.entry(pyramid)
            known = (e.project for e in self.state.slides)
            if entry is not None and entry.project not in known:
                self.state.slides = put(self.state.slides, entry)
            self._show(pyramid, "\n".join(self._problems(pyramid)))
        self.slides.show_slides()
        self.boxes.refresh()
        self.boxes_button.setChecked(self.boxes.shown)

    def _problems(self, pyramid: Pyramid) -> list[str]:
        found = describe.problems(self.state.model_for(pyramid), pyramid)
        if self.state.start is None:
            return found
        names = self.state.names if self.state.touched else ()
        return [*fit_problems(self.state.start.config, pyramid, names), *found]

    def _show(self, pyramid: Pyramid | None, problem: str) -> None:
        for name, words in FACTS.items():
            self._facts[name].setText("–" if pyramid is None else words(pyramid))
        self.pixel.show_size(pyramid, self.slide.pixel_size)
        self._show_scales(pyramid)
        self._show_normalisation(pyramid)
        self._show_table(pyramid)
        self.problem.say(problem)

    def _show_scales(self, pyramid: Pyramid | None) -> None:
        start = self.state.start
        if start is not None:
            self.scales.fix(start.config.scale_factors)
            return
        model = self.state.network[1]
        usual = tuple(model["scale_factors"])
        suggested = usual if pyramid is None else self.state.suggested(pyramid)
        self.scales.offer(suggested, model["crop_size"], pyramid)

    def _show_normalisation(self, pyramid: Pyramid | None) -> None:
        box, start = self.normalisation, self.state.start
        box.clear()
        if start is not None:
            box.addItem(f"as in the model: {MODES[start.config.normalisation]}", "auto")
        else:
            usual = "auto" if pyramid is None else resolve_mode("auto", pyramid)
            box.addItem(f"as usual: {MODES[usual]}", "auto")
            box.addItem(MODES["percentile"], "percentile")
            if pyramid is not None and pyramid.dtype == np.uint8:
                box.addItem(MODES["uint8"], "uint8")
            box.addItem(MODES["none"], "none")
            box.setCurrentIndex(max(0, box.findData(self.state.normalisation)))
        box.setEnabled(start is None)

    def _show_table(self, pyramid: Pyramid | None) -> None:
        name = self.state.network[0]
        rows = []
        if pyramid is not None:
            rows = describe.scale_rows(self.state.model_for(pyramid), pyramid)
        self.heading.setText(f"Scales the model ({name}) sees around every point:")
        self.heading.setVisible(bool(rows))
        self.table.setVisible(bool(rows))
        self.boxes_button.setEnabled(bool(rows))
        self.table.setRowCount(len(rows))
        for index, cells in enumerate(rows):
            for column, words in enumerate(cells):
                self.table.setItem(index, column, QTableWidgetItem(words))
        header = self.table.horizontalHeader().sizeHint().height()
        self.table.setFixedHeight(header + ROW_HEIGHT * len(rows) + 4)

    def _sight(self) -> tuple[Sight, Image]:
        pyramid, image = self.pyramid(), self.image.layer
        model = self.state.model_for(pyramid)
        start = self.state.start
        own = None if start is None else start.config.pixel_size
        factors = tuple(float(f) for f in model["scale_factors"])
        return Sight.of(pyramid, factors, int(model["crop_size"]), own), image


def _dropped_model(event: Any) -> Path | None:
    """Return the model folder that is dragged, by itself or by a file in it."""
    urls = event.mimeData().urls()
    if len(urls) != 1 or not urls[0].isLocalFile():
        return None
    path = Path(urls[0].toLocalFile())
    return next((p for p in (path, path.parent) if is_model_folder(p)), None)
