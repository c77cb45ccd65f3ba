"""Small stock-Qt pieces that the pages share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qtpy.QtCore import QEvent, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QPushButton,
    QSizePolicy,
    QWidget,
)

MIN_BUTTON = 48
MIDDLE_LIGHTNESS = 128


class Combo(QComboBox):
    """A combo box that does not widen the panel for a long entry."""

    def __init__(self, tooltip: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setToolTip(tooltip)
        self.setMinimumContentsLength(5)
        self.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


class LayerCombo(Combo):
    """Chooses one of the viewer's layers and keeps it while layers come and go."""

    layer_changed = Signal(object)

    def __init__(self, tooltip: str = "", parent: QWidget | None = None) -> None:
        super().__init__(tooltip, parent)
        self._layers: list[Any] = []
        self._chosen: Any = None
        self.currentIndexChanged.connect(self._on_index)

    @property
    def layer(self) -> Any:
        """The chosen layer, or None."""
        return self._chosen

    def set_layers(self, layers: Sequence[Any], prefer: Any = None) -> None:
        """Offer ``layers``; keep the chosen one, else take ``prefer`` or the first."""
        wanted = self._chosen if self._chosen in layers else prefer
        if wanted not in layers:
            wanted = layers[0] if layers else None
        self.blockSignals(True)
        self._layers = list(layers)
        self.clear()
        self.addItems([layer.name for layer in layers])
        if wanted is not None:
            self.setCurrentIndex(self._layers.index(wanted))
        self.blockSignals(False)
        if wanted is not self._chosen:
            self._chosen = wanted
            self.layer_changed.emit(wanted)

    def choose(self, layer: Any) -> None:
        """Choose one of the offered layers."""
        self.setCurrentIndex(self._layers.index(layer))

    def _on_index(self, index: int) -> None:
        chosen = self._layers[index] if 0 <= index < len(self._layers) else None
        if chosen is not self._chosen:
            self._chosen = chosen
            self.layer_changed.emit(chosen)


def form() -> QFormLayout:
    """Return a form with the labels on the right of their column."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setHorizontalSpacing(8)
    layout.setVerticalSpacing(6)
    layout.setLabelAlignment(Qt.AlignmentFlag.AlignRight)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return layout


def text(words: str = "", tooltip: str = "") -> QLabel:
    """Return a label that wraps and can be copied from."""
    label = QLabel(words)
    label.setWordWrap(True)
    label.setToolTip(tooltip)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    # A wrapping label asks for its longest word only; let the panel stay narrow.
    label.setMinimumWidth(40)
    return label


class Warning_(QLabel):
    """Says what is wrong, in the theme's warning colour; hidden while all is well."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWordWrap(True)
        self.setMinimumWidth(40)
        self.setVisible(False)
        self._recolor()

    def say(self, words: str) -> None:
        """Show ``words``, or nothing."""
        self.setText(words)
        self.setVisible(bool(words))

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow napari's theme."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.StyleChange:
            self._recolor()

    def _recolor(self) -> None:
        style = f"color: {readable(theme_color('warning')).name()}"
        if style != self.styleSheet():
            self.setStyleSheet(style)


def button(
    words: str, clicked: Callable[[], object], tooltip: str, *, checkable: bool = False
) -> QPushButton:
    """Return a push button."""
    made = QPushButton(words)
    made.setToolTip(tooltip)
    made.setCheckable(checkable)
    made.clicked.connect(lambda _checked=False: clicked())
    return made


def row(*widgets: QWidget) -> QWidget:
    """Return widgets side by side, of equal width."""
    holder = QWidget()
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(6)
    for widget in widgets:
        # Buttons ask for more room than their words need; the panel stays narrow.
        widget.setMinimumWidth(MIN_BUTTON)
        layout.addWidget(widget)
    return holder


def beside(wide: QWidget, narrow: QWidget) -> QWidget:
    """Return a widget that takes the room which another one beside it leaves."""
    holder = QWidget()
    line = QHBoxLayout(holder)
    line.setContentsMargins(0, 0, 0, 0)
    line.setSpacing(6)
    line.addWidget(wide, 1)
    line.addWidget(narrow)
    return holder


def color_icon(color: str, size: int = 14) -> QIcon:
    """Return a filled square."""
    pixmap = QPixmap(QSize(size, size))
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.fillRect(1, 1, size - 2, size - 2, QColor(color))
    painter.end()
    icon = QIcon(pixmap)
    # Else Qt tints it in a chosen row, and it is another colour.
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon


def readable(color: QColor) -> QColor:
    """Return a colour that stands out from the theme's background."""
    light = theme_color("background").lightness() > MIDDLE_LIGHTNESS
    return color.darker(150) if light else color.lighter(110)


def theme_color(name: str) -> QColor:
    """Return a colour of napari's theme: text, current, foreground, warning, ..."""
    from napari.settings import get_settings
    from napari.utils.theme import get_theme

    theme = get_theme(get_settings().appearance.theme)
    return QColor(getattr(theme, name).as_hex())


def fit_list(rows: QListWidget, most: int) -> None:
    """Make a list as high as its rows, of which it shows ``most`` at once."""
    shown = min(max(rows.count(), 1), most)
    height = rows.sizeHintForRow(0) if rows.count() else rows.fontMetrics().height()
    rows.setFixedHeight(shown * height + 2 * rows.frameWidth() + 2)
