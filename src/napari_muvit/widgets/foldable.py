"""A heading that shows or hides what is below it."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QSizePolicy, QToolButton, QVBoxLayout, QWidget


class Foldable(QWidget):
    """Hides what few users need.

    Parameters
    ----------
    title
        Of the heading.
    content
        What is shown or hidden.
    tooltip
        Of the heading.
    """

    def __init__(self, title: str, content: QWidget, tooltip: str = "") -> None:
        super().__init__()
        self.content = content
        self.heading = QToolButton()
        self.heading.setText(title)
        self.heading.setToolTip(tooltip)
        self.heading.setCheckable(True)
        self.heading.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.heading.setSizePolicy(
            QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed
        )
        self.heading.toggled.connect(self._show)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.heading)
        layout.addWidget(content)
        self._show(False)

    def _show(self, shown: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow
        self.heading.setArrowType(arrow)
        self.content.setVisible(shown)

    def unfold(self, shown: bool = True) -> None:
        """Show or hide the content."""
        self.heading.setChecked(shown)
