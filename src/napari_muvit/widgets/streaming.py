"""A prediction that grows on screen: tiles into a multiscale Labels layer.

napari keeps the coarsest level of a multiscale layer in memory for ever, and dask keeps
every chunk, so a store that grows behind them stays empty on screen. Therefore levels
that are small enough are plain numpy arrays which this module keeps up to date; only
the finest ones are the zarr arrays that the prediction writes.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from .._layers import layer_kwargs, visible_box
from ..core.config import ModelConfig
from ..core.data.zarr_writer import halve_labels
from ..core.geometry import Box
from ..core.prediction.levels import write_levels

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

NUMPY_PIXELS = 6250**2
"""Levels of up to this many pixels are kept as numpy arrays (37 MiB)."""
PREDICTION = "prediction"
"""Mark in the metadata of layers made here."""
OPACITY = 0.6
BACKGROUND_ALPHA = "40"
"""Of the background's colour, two hexadecimal digits."""
REFRESH_MS = 200
DRAIN_SECONDS = 0.04
"""Longest time that one tick may take from the GUI thread."""
THUMBNAIL_SECONDS = 3.0

Pixels = NDArray[np.uint8]


class Tile(Protocol):
    """What a prediction hands out."""

    box: tuple[int, int, int, int]
    labels: Pixels


@dataclass
class GrowingLevels:
    """The levels of a prediction, finest first, of which the coarse ones are numpy."""

    levels: list[Any]
    first: int
    """Index of the finest numpy level."""

    @classmethod
    def from_store(cls, levels: Sequence[Any]) -> GrowingLevels:
        """Read the small levels of a store; call it outside the GUI thread."""
        small = [int(np.prod(level.shape)) <= NUMPY_PIXELS for level in levels]
        first = small.index(True) if any(small) else len(levels) - 1
        kept = [
            level if index < first else np.array(level[:], dtype=np.uint8)
            for index, level in enumerate(levels)
        ]
        return cls(kept, first)

    def put(self, tile: Tile) -> None:
        """Write a tile into the numpy levels as the prediction writes its store."""
        y0, x0, y1, x1 = tile.box
        labels = np.asarray(tile.labels, dtype=np.uint8)
        for _ in range(self.first):
            labels = halve_labels(labels)
            y0, x0, y1, x1 = y0 // 2, x0 // 2, -(-y1 // 2), -(-x1 // 2)
        write_levels(self.levels[self.first :], (y0, x0, y1, x1), labels)


@dataclass
class Output:
    """What the worker tells when a prediction has begun."""

    run: Any
    """The PredictionRun; only its ``focus`` is called here."""
    model: ModelConfig
    """For names and colours."""
    levels: GrowingLevels
    tiles: queue.SimpleQueue[Tile] = field(default_factory=queue.SimpleQueue)


class LivePrediction(QObject):
    """Shows one prediction while it grows and tells it where the user looks."""

    def __init__(
        self,
        viewer: ViewerModel,
        image: Image,
        output: Output,
        name: str,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.image = image
        self.output = output
        self.layer = self._show(name)
        self._thumbnail_at = time.monotonic()
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self._tick)
        self._timer.start()
        self._looked_at: Box | None = None
        self._camera = getattr(viewer, "scene", viewer).camera
        self._moved = True
        self._camera.events.center.connect(self._on_camera)
        self._camera.events.zoom.connect(self._on_camera)

    def _show(self, name: str) -> Labels:
        from napari.layers import Labels

        model = self.output.model
        old = [
            x
            for x in self.viewer.layers
            if x.name == name and x.metadata.get("muvit") == PREDICTION
        ]
        # Going on with a prediction must not undo how the user looks at it.
        look = {"opacity": old[0].opacity, "visible": old[0].visible} if old else {}
        levels = self.output.levels.levels
        several = len(levels) > 1  # napari takes no pyramid of a single level
        layer = Labels(
            levels if several else levels[0],
            multiscale=several,
            name=name,
            colormap=label_colormap(model.colors, model.background),
            features=label_features(model.names),
            metadata={"muvit": PREDICTION},
            **({"opacity": OPACITY} | look),
            **layer_kwargs(self.image),
        )
        layer.editable = False  # what is painted here would not reach the store
        for stale in old:
            self.viewer.layers.remove(stale)
        above = self.viewer.layers.index(self.image) + 1
        self.viewer.layers.insert(above, layer)
        return layer

    def _on_camera(self) -> None:
        # Many events a second while the user pans: looked at in the next tick.
        self._moved = True

    def _tick(self) -> None:
        if self._moved:
            self._moved = False
            box = visible_box(self.viewer, self.image)
            if box is not None and box != self._looked_at:
                self._looked_at = box
                self.output.run.focus((*box.lower, *box.upper))
        if self._drain(DRAIN_SECONDS):
            self._refresh()

    def _drain(self, seconds: float) -> bool:
        """Write waiting tiles for at most ``seconds``; whether there were any."""
        end = time.monotonic() + seconds
        changed = False
        while time.monotonic() < end:
            try:
                tile = self.output.tiles.get_nowait()
            except queue.Empty:
                break
            self.output.levels.put(tile)
            changed = True
        return changed

    def _refresh(self, *, thumbnail: bool = False) -> None:
        if self.layer not in self.viewer.layers:
            return
        now = time.monotonic()
        thumbnail = thumbnail or now - self._thumbnail_at > THUMBNAIL_SECONDS
        if thumbnail:
            self._thumbnail_at = now
        self.layer.refresh(extent=False, thumbnail=thumbnail)

    def finish(self) -> None:
        """Show what is left and let go of the viewer."""
        self._timer.stop()
        self._camera.events.center.disconnect(self._on_camera)
        self._camera.events.zoom.disconnect(self._on_camera)
        self._drain(float("inf"))
        self._refresh(thumbnail=True)


def label_colormap(
    colors: Sequence[str], background: int | None = None
) -> DirectLabelColormap:
    """Return the class colours; what is not predicted is transparent.

    The background is faint: tissue that is of no interest need not be painted over.
    """
    table: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    table.update(enumerate(colors, start=1))
    if background is not None:
        table[background] = f"{table[background]}{BACKGROUND_ALPHA}"
    return DirectLabelColormap(color_dict=table)


def label_features(names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the table from which napari shows the class under the cursor."""
    # Without a row for 0 the status bar would read [No Properties] there.
    return {
        "index": list(range(len(names) + 1)),
        "class": ["not predicted", *names],
    }
