"""Places where the model errs most, each a click away."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtWidgets import QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from ..core.geometry import Box
from .ui import text

ROW_HEIGHT = 22
MAX_ROWS = 5


class HardPlaceList(QWidget):
    """Lists places; choosing one goes there.

    Parameters
    ----------
    go
        Called with the number of the slide and a box in its pixels.
    """

    def __init__(self, go: Callable[[int, Box], None]) -> None:
        super().__init__()
        self._go = go
        self._places: list[tuple[int, Box]] = []
        self.list = QListWidget()
        self.list.setToolTip(
            "Annotated places that the model had wrong when it last saw them: look "
            "whether the annotation is right, and annotate more of the kind."
        )
        self.list.itemActivated.connect(self._on_item)
        self.list.itemClicked.connect(self._on_item)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(text("Errs most at (click to go there):"))
        layout.addWidget(self.list)
        self.show_places(())

    def show_places(self, places: Sequence[tuple[int, Box, float]]) -> None:
        """Show (slide, box, share wrong), the worst first; none hides the list."""
        self._places = [(slide, box) for slide, box, _ in places]
        self.list.clear()
        for number, (_, box, wrong) in enumerate(places, start=1):
            y, x = ((a + b) / 2 for a, b in zip(box.lower, box.upper, strict=True))
            self.list.addItem(
                QListWidgetItem(f"{number}.  {wrong:.0%} wrong   at {x:.0f}, {y:.0f}")
            )
        rows = min(max(len(places), 1), MAX_ROWS)
        self.list.setFixedHeight(rows * ROW_HEIGHT + 6)
        self.setVisible(bool(places))

    def _on_item(self, item: QListWidgetItem) -> None:
        self._go(*self._places[self.list.row(item)])
