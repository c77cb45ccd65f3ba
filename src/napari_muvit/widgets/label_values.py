"""Which values a label image holds, read without holding the panel up."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from .._layer_annotations import value_array, values_of

if TYPE_CHECKING:
    from napari.layers import Labels

logger = logging.getLogger(__name__)


class LabelValues(QObject):
    """Reads the values of Labels layers: at once from memory, else in a thread."""

    found = Signal(object, bool, object)  # layer, propose, values

    def read(self, layer: Labels, *, propose: bool) -> None:
        """Look for the values of a layer; `found` tells them with ``propose``."""
        array = value_array(layer)
        if isinstance(array, np.ndarray):
            self.found.emit(layer, propose, values_of(array))
            return
        # A store on disk is read in a thread; it does not change under the brush.
        # A plain thread: napari waits for its workers before it closes, but closing
        # removes the layers one by one, and that starts a reading.
        reading = threading.Thread(
            target=self._read, args=(layer, propose, array), daemon=True
        )
        reading.start()

    def _read(self, layer: Labels, propose: bool, array: Any) -> None:
        try:
            values = values_of(array)
        except Exception:
            logger.warning("%r cannot be read.", layer.name, exc_info=True)
            return
        with suppress(RuntimeError):  # the panel was closed meanwhile
            self.found.emit(layer, propose, values)


def is_painted(layer: Labels) -> bool:
    """Whether it may change under the brush: napari paints on single arrays only."""
    return isinstance(value_array(layer), np.ndarray)
