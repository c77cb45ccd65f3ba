"""The loss curve, drawn with QPainter: no dependency and no second GL context."""

from __future__ import annotations

import math

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from .ui import readable, theme_color

Points = list[tuple[float, float]]

TRAIN_COLOR, VALIDATION_COLOR, DICE_COLOR = "#6080f0", "#f0a040", "#50b090"
SMOOTHING = 0.1
"""Share of a new value in the running mean of the training loss."""
MAX_POINTS = 2000
"""Points kept of a curve; beyond that every second one is dropped."""
MARGIN_LEFT, MARGIN_BOTTOM, MARGIN_TOP, MARGIN_RIGHT = 34, 16, 8, 6
GAP = "   "
"""Between the names of the curves."""


class LossPlot(QWidget):
    """Training loss as a line, validation loss with dots, Dice as a broken line."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(
            QSizePolicy.Policy.Expanding, QSizePolicy.Policy.MinimumExpanding
        )
        self.setMinimumHeight(110)
        self.setMaximumHeight(220)
        self.setToolTip(
            "Loss on the annotated regions (line) and on annotated regions that were "
            "held back (dots). Lower is better; when only the line falls, more "
            "annotations help more than more time. The broken line is the mean Dice "
            "of the classes, from 0 at the bottom to 1 at the top."
        )
        self.train: Points = []
        self.validation: Points = []
        self.dice: Points = []
        self._stride = 1
        self._seen = 0
        self._mean: float | None = None

    def sizeHint(self) -> QSize:
        """Return a shape as in the mock: wide and low."""
        return QSize(280, 150)

    def clear(self) -> None:
        """Forget all curves."""
        self.train, self.validation, self.dice = [], [], []
        self._stride, self._seen, self._mean = 1, 0, None
        self.update()

    def add_train(self, step: float, loss: float) -> None:
        """Add a training loss; shown as a running mean. NaN and inf are left out."""
        if not math.isfinite(loss):
            return
        self._mean = (
            loss if self._mean is None else self._mean + SMOOTHING * (loss - self._mean)
        )
        self._seen += 1
        if self._seen % self._stride == 0:
            self.train.append((step, self._mean))
        if len(self.train) > MAX_POINTS:
            self.train = self.train[::2]
            self._stride *= 2
        self.update()

    def add_validation(self, step: float, loss: float) -> None:
        """Add a validation loss."""
        if math.isfinite(loss):
            self.validation.append((step, loss))
            self.update()

    def add_dice(self, step: float, dice: float) -> None:
        """Add a mean Dice, 0 to 1."""
        if math.isfinite(dice):
            self.dice.append((step, dice))
            if len(self.dice) > MAX_POINTS:
                self.dice = self.dice[::2]
            self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw frame, axis numbers and curves."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), theme_color("foreground"))
        area = QRectF(self.rect()).adjusted(
            MARGIN_LEFT, MARGIN_TOP, -MARGIN_RIGHT, -MARGIN_BOTTOM
        )
        font = painter.font()
        font.setPixelSize(10)
        painter.setFont(font)
        points = self.train + self.validation
        if not points:
            painter.setPen(theme_color("icon"))
            painter.drawText(
                self.rect(),
                Qt.AlignmentFlag.AlignCenter,
                "The loss appears here during training.",
            )
            return
        low, high = _limits([loss for _, loss in points])
        last = max(max(step for step, _ in points + self.dice), 1.0)
        self._draw_axes(painter, area, low, high, last)
        blue = QPen(readable(QColor(TRAIN_COLOR)), 2)
        orange = QPen(readable(QColor(VALIDATION_COLOR)), 2)
        scale = (low, high, last)
        self._draw_curve(painter, area, self.train, scale, blue)
        self._draw_curve(painter, area, self.validation, scale, orange, dots=True)
        green = QPen(readable(QColor(DICE_COLOR)), 1.5, Qt.PenStyle.DashLine)
        self._draw_curve(painter, area, self.dice, (0.0, 1.0, last), green)

    def _draw_axes(
        self, painter: QPainter, area: QRectF, low: float, high: float, last: float
    ) -> None:
        for share in (0.0, 0.5, 1.0):
            y = area.bottom() - share * area.height()
            painter.setPen(QPen(theme_color("secondary"), 1))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(theme_color("text"))
            painter.drawText(
                QRectF(0, y - 7, MARGIN_LEFT - 4, 14),
                Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter,
                f"{low + share * (high - low):.2f}",
            )
        below = QRectF(area.left(), area.bottom() + 1, area.width(), MARGIN_BOTTOM - 1)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, "step 0")
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, f"{last:.0f}")
        self._draw_legend(painter, below)

    def _draw_legend(self, painter: QPainter, area: QRectF) -> None:
        """Name the curves below them: they begin and end in the corners above."""
        shown = [("train", TRAIN_COLOR, self.train),
                 ("validation", VALIDATION_COLOR, self.validation),
                 ("Dice", DICE_COLOR, self.dice)]  # fmt: skip
        shown = [each for each in shown if each[2]]
        wide = painter.fontMetrics().horizontalAdvance
        left = area.center().x() - wide(GAP.join(words for words, *_ in shown)) / 2
        for words, color, _points in shown:
            painter.setPen(readable(QColor(color)))
            place = QRectF(left, area.top(), area.width(), area.height())
            painter.drawText(place, Qt.AlignmentFlag.AlignLeft, words)
            left += wide(words + GAP)

    @staticmethod
    def _draw_curve(
        painter: QPainter,
        area: QRectF,
        points: Points,
        scale: tuple[float, float, float],
        pen: QPen,
        *,
        dots: bool = False,
    ) -> None:
        low, high, last = scale
        placed = [
            QPointF(
                area.left() + step / last * area.width(),
                area.bottom() - (loss - low) / (high - low) * area.height(),
            )
            for step, loss in points
        ]
        painter.setPen(pen)
        painter.drawPolyline(QPolygonF(placed))
        if dots:
            painter.setBrush(pen.color())
            for point in placed:
                painter.drawEllipse(point, 2.5, 2.5)
            painter.setBrush(Qt.BrushStyle.NoBrush)


def _limits(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high - low > 1e-3 else (low - 0.05, high + 0.05)
