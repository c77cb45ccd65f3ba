"""Many outlines into a layer, piece by piece, so that nobody has to wait for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

from .outline_snapshot import Snapshot, set_classes
from .shapes import apply_classes

if TYPE_CHECKING:
    from napari.layers import Shapes

    from .state import PanelState

PIECE = 100
"""Shapes that are added at once; napari needs about 0.3 ms each."""


class Filling(QObject):
    """Fills a layer that is not in the viewer yet, in which nobody draws meanwhile.

    Parameters
    ----------
    layer
        Without shapes.
    held
        What it is to hold.
    state
        Has the classes.
    done
        Called at the end.
    parent
        Of this object.
    """

    def __init__(
        self,
        layer: Shapes,
        held: Snapshot,
        state: PanelState,
        done: Callable[[], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._layer = layer
        self._held = held
        self._state = state
        self._done = done
        self._named = False
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._step)
        self._timer.start(0)

    def _step(self) -> None:
        first = self._layer.nshapes
        new = self._held.drawn[first : first + PIECE]
        if not new and not self._named:
            self._named = True
            set_classes(self._layer, self._held.names)
            apply_classes(self._layer, self._state)
            return
        if not new:
            self.stop()
            self._done()
            return
        self._layer.add(
            [d.vertices for d in new],
            shape_type=[d.kind for d in new],
            edge_width=self._layer.current_edge_width,
        )

    def stop(self) -> None:
        """Leave it as it is."""
        self._timer.stop()
