"""Which scales a new model sees: suggested by the slide, or chosen."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qtpy.QtCore import QObject, Signal

from ..core.config import ModelConfig
from ..core.data.pyramid import Pyramid
from ..core.data.suggested_levels import LADDER, ROOM
from ..core.errors import ConfigError
from . import describe
from .ui import Combo, text

Factors = tuple[float, ...]
SUGGESTED = " (auto)"


def factor_words(factors: Sequence[float]) -> str:
    """Return scale factors as people write them."""
    return ", ".join(f"{f:g}×" for f in factors)


def parse_factors(words: str) -> Factors:
    """Return the scale factors in a text such as ``1, 8, 32``.

    Raises
    ------
    ConfigError
        If a model cannot have them, in one line.
    """
    numbers = re.findall(r"\d+(?:\.\d+)?", words)
    if not numbers:
        raise ConfigError(
            f"{words!r} names no scales. Type factors from 1 upwards, such as 1, 8, 32."
        )
    return ModelConfig(scale_factors=tuple(float(n) for n in numbers)).scale_factors


def reason(factors: Factors, crop_size: int, pyramid: Pyramid) -> str:
    """Return why these scales suit a slide, or why not."""
    widest, side = crop_size * factors[-1], min(pyramid.shape)
    wide = f"{widest:,.0f} px".replace(",", "\u202f")
    if pyramid.pixel_size is not None:
        wide = f"{wide} ({describe.length(widest * pyramid.pixel_size[0])})"
    if widest > side:
        return f"The widest view, {wide}, is larger than the slide."
    times = side / widest
    if times >= ROOM:
        return (
            f"The widest view, {wide}, fits {times:.0f} times into the shorter side of "
            "the slide."
        )
    return f"The widest view, {wide}, is nearly as large as the slide."


class ScaleChoice(QObject):
    """A list of scales to choose from or to type into, and one line on why.

    The page places both: a wrapped text in a widget of its own gets no height.
    """

    changed = Signal()
    refused = Signal(str)
    """What was typed is no list of scales; why not."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen: Factors | None = None
        """By the user; None: what the slide suggests."""
        self.combo = Combo(
            "How far the model sees: 1× is fine detail, 32× the tissue around it. "
            "Choose, or type factors such as 1, 8, 32."
        )
        self.combo.setEditable(True)
        self.combo.setInsertPolicy(Combo.InsertPolicy.NoInsert)
        self.why = text()
        self.combo.activated.connect(self._on_chosen)
        edit = self.combo.lineEdit()
        if edit is not None:
            edit.editingFinished.connect(self._on_typed)

    def offer(
        self, suggested: Factors, crop_size: int, pyramid: Pyramid | None
    ) -> None:
        """Offer scales for a new model.

        Parameters
        ----------
        suggested
            For this slide.
        crop_size
            Edge of a view in its own pixels.
        pyramid
            The slide, if there is one.
        """
        self.combo.setEnabled(True)
        others = [f for f in (*reversed(LADDER), (1.0,)) if f != suggested]
        others.sort()
        offered: list[Factors | None] = [None, *others]
        if self.chosen is not None and self.chosen not in offered:
            offered.append(self.chosen)
        self.combo.blockSignals(True)
        self.combo.clear()
        for factors in offered:
            words = factor_words(factors or suggested)
            self.combo.addItem(words if factors else f"{words}{SUGGESTED}", factors)
        self.combo.setCurrentIndex(offered.index(self.chosen))
        self._show_start()
        self.combo.blockSignals(False)
        now = self.chosen or suggested
        self.why.setText("" if pyramid is None else reason(now, crop_size, pyramid))

    def fix(self, factors: Factors) -> None:
        """Show the scales of a model that has been trained, which stay."""
        self.combo.blockSignals(True)
        self.combo.clear()
        self.combo.addItem(factor_words(factors), factors)
        self.combo.blockSignals(False)
        self.combo.setEnabled(False)
        self.why.setText("The model was trained with these scales.")

    def _show_start(self) -> None:
        """Show the beginning of a long entry."""
        edit = self.combo.lineEdit()
        if edit is not None:
            edit.setCursorPosition(0)

    def _on_chosen(self, index: int) -> None:
        self._take(self.combo.itemData(index))

    def _on_typed(self) -> None:
        words = self.combo.currentText()
        index = self.combo.findText(words)
        if index >= 0:
            self._take(self.combo.itemData(index))
            return
        try:
            self._take(parse_factors(words))
        except ConfigError as error:
            self.refused.emit(str(error))

    def _take(self, factors: Factors | None) -> None:
        factors = None if factors is None else tuple(factors)
        if factors != self.chosen:
            self.chosen = factors
            self.changed.emit()
