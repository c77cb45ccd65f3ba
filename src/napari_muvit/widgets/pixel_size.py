"""The pixel size of the slide: shown, and typed where it is unknown or wrong."""

from __future__ import annotations

import math
import re

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLineEdit, QWidget

from ..core.data.pyramid import Pyramid
from . import describe
from .ui import text

EDIT_WIDTH = 68
MOST = 10_000.0
"""Micrometres; larger pixels are a mistake in typing."""
MICROMETRES = {"": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "nm": 1e-3, "mm": 1e3}


def parse_pixel_size(words: str) -> float | None:
    """Return micrometres, or None where the words are no pixel size.

    Parameters
    ----------
    words
        Such as ``0.25``, ``0,25``, ``250 nm``.
    """
    found = re.fullmatch(r"([0-9.,]+)\s*([µμunm]*)", words.strip().lower())
    if found is None or found[2] not in MICROMETRES:
        return None
    try:
        value = float(found[1].replace(",", ".")) * MICROMETRES[found[2]]
    except ValueError:
        return None
    return value if 0 < value <= MOST and math.isfinite(value) else None


class PixelSize(QWidget):
    """What the pixel size is and where it is from, and a field for another one."""

    typed = Signal(object)
    """Micrometres; None: what the layer says."""
    refused = Signal(str)
    """What was typed is no pixel size; why not."""

    def __init__(self) -> None:
        super().__init__()
        self.label = text(tooltip="By the scale and the units of the layer")
        self.label.setWordWrap(False)
        self.edit = QLineEdit()
        self.edit.setPlaceholderText("other")
        self.edit.setFixedWidth(EDIT_WIDTH)
        self.edit.setToolTip(
            "Type the pixel size in micrometres where it is unknown or wrong, such as "
            "0.25. Empty: what the layer says. The layer itself is not changed."
        )
        self.edit.editingFinished.connect(self._on_typed)
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(6)
        line.addWidget(self.label, 1)
        line.addWidget(self.edit)

    def show_size(self, pyramid: Pyramid | None, typed: float | None) -> None:
        """Show the size of a slide; ``typed`` is what the user said, if anything."""
        self.edit.setEnabled(pyramid is not None)
        words = "–" if pyramid is None else describe.pixel_text(pyramid)
        if pyramid is not None and typed is not None:
            words = f"{typed:.4g} µm  (typed)"
        self.label.setText(words)
        if not self.edit.hasFocus():
            self.edit.setText("" if typed is None else f"{typed:.6g}")

    def _on_typed(self) -> None:
        words = self.edit.text().strip()
        size = parse_pixel_size(words)
        if words and size is None:
            self.refused.emit(
                f"{words!r} is no pixel size. Type micrometres, such as 0.25, or "
                "nothing for what the layer says."
            )
            return
        self.typed.emit(size)
