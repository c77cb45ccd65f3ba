"""How to predict: what most people leave as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QSlider, QWidget

from ..core.prediction_config import OUTPUTS
from .foldout import Foldout
from .ui import Combo, form

DEFAULT_OVERLAP = 25
MAX_OVERLAP = 50
TILE, LARGE_TILE = 256, 512
"""Edge of what is handed out at a time, pixels. A small one is on screen sooner; of a
large slide there would be too many files."""
LARGE = 2**30
"""Pixels of a large slide."""
AVERAGES = {
    "none": "one pass",
    "flips": "mirrored, 4 passes",
    "all": "mirrored and turned, 8 passes",
}
PLACEMENTS = {
    "inside": "inside the slide",
    "centred": "centred, padded outside",
    "averaged": "five places, 5 passes",
}
TIPS = {
    "tissue": "Leave out tiles without tissue; they stay unpredicted.",
    "confidence": "Keep how sure the model is of each pixel. Suggestions where to "
    "annotate next need it.",
    "probabilities": "Keep the probability of each class of each pixel; needs much "
    "more room on the disk.",
    "preview": "Show at once what the coarse levels see, and refine it tile by tile. "
    "For models whose coarse levels stand alone (the presets tiny and small).",
}
TITLES = {
    "tissue": "tissue only",
    "confidence": "confidence",
    "probabilities": "probabilities",
    "preview": "quick look first",
}
CHECKED = ("confidence", "preview")


class PredictOptions(Foldout):
    """The fields of `PredictionConfig` that decide quality, time and room."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__("More options", "Quality, time, and what is written")
        self.overlap = QSlider(Qt.Orientation.Horizontal)
        self.average = _choice(
            AVERAGES, "More views of each place, averaged: steadier, slower."
        )
        self.placement = _choice(
            PLACEMENTS, "Where the wider views lie at the border of the slide."
        )
        self.boxes: dict[str, QCheckBox] = {}
        rows = form()
        rows.addRow("overlap", self._make_overlap())
        rows.addRow("average", self.average)
        rows.addRow("wider views", self.placement)
        self.content.addLayout(rows)
        for name, title in TITLES.items():
            box = QCheckBox(title)
            box.setToolTip(TIPS[name])
            box.setChecked(name in CHECKED)
            box.toggled.connect(lambda _on: self.changed.emit())
            self.boxes[name] = box
            self.content.addWidget(box)
        for combo in (self.average, self.placement):
            combo.currentIndexChanged.connect(lambda _index: self.changed.emit())

    def _make_overlap(self) -> QWidget:
        self.overlap.setRange(0, MAX_OVERLAP)
        self.overlap.setValue(DEFAULT_OVERLAP)
        tip = "Share that neighbouring views have in common: more hides seams, slower."
        self.overlap.setToolTip(tip)
        number = QLabel(f"{DEFAULT_OVERLAP} %")
        number.setMinimumWidth(34)
        self.overlap.valueChanged.connect(lambda v: number.setText(f"{v} %"))
        self.overlap.valueChanged.connect(lambda _value: self.changed.emit())
        holder = QWidget()
        line = QHBoxLayout(holder)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.overlap)
        line.addWidget(number)
        return holder

    def values(self, shape: Sequence[int]) -> dict[str, Any]:
        """Return fields of a `PredictionConfig` for a slide of so many pixels."""
        large = math.prod(shape) > LARGE
        return {
            "tile_size": LARGE_TILE if large else TILE,
            "overlap": self.overlap.value() / 100,
            "average": self.average.currentData(),
            "placement": self.placement.currentData(),
            "tissue": self.boxes["tissue"].isChecked(),
            "preview": self.boxes["preview"].isChecked(),
            "outputs": tuple(n for n in OUTPUTS if self.boxes[n].isChecked()),
        }


def _choice(entries: dict[str, str], tooltip: str) -> Combo:
    combo = Combo(tooltip)
    for value, words in entries.items():
        combo.addItem(words, value)
    return combo
