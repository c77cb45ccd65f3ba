"""A prediction that grows on screen: tiles into a multiscale Labels layer."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, QTimer

from .._layers import layer_kwargs, visible_box
from .._tasks.growing import Tile
from .._tasks.predicting import Opened
from .._tasks.previewing import LOOKED, Overview, clear_look, lay_look
from ..core.errors import PyramidError
from ..core.geometry import Box
from .result_layers import PREDICTION, previews, shown_again

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

OPACITY = 0.6
BACKGROUND_ALPHA, LOOKED_ALPHA, LOOKED_BACKGROUND_ALPHA = "40", "a0", "28"
"""Of the background's colour and of those of a first look, two hexadecimal digits."""
REFRESH_MS = 200
DRAIN_SECONDS = 0.04
"""Longest time that one tick may take from the GUI thread."""
THUMBNAIL_SECONDS = 3.0


class LivePrediction(QObject):
    """Shows one prediction while it grows and tells it where the user looks.

    Parameters
    ----------
    viewer, image
        Where, and upon what.
    opened
        The prediction; its numpy levels are written to here.
    name
        Of the layer.
    look
        Called with what is on screen, in slide pixels, when that has changed.
    parent
        Of this object.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        image: Image,
        opened: Opened,
        name: str,
        look: Callable[[Box], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.image = image
        self.opened = opened
        self._look = look
        self._tiles: deque[Tile] = deque()
        self._overview: Overview | None = None
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

        model = self.opened.model
        old = [
            x
            for x in self.viewer.layers
            if x.name == name and x.metadata.get("muvit") == PREDICTION
        ]
        # Going on with a prediction must not undo how the user looks at it.
        look = (
            {"opacity": old[0].opacity, "visible": shown_again(old[0])} if old else {}
        )
        levels = self.opened.levels.levels
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
        if old:
            layer.contour = old[0].contour
        for stale in [*old, *previews(self.viewer, self.image)]:
            self.viewer.layers.remove(stale)
        above = self.viewer.layers.index(self.image) + 1
        self.viewer.layers.insert(above, layer)
        return layer

    def lay(self, overview: Overview) -> None:
        """Show what coarse levels see wherever nothing is predicted yet."""
        self._overview = overview
        lay_look(self.opened.levels, overview)
        self._name_looked(True)
        self._refresh(thumbnail=True)

    def _name_looked(self, looked: bool) -> None:
        """Colours and names with those of a look, or without them."""
        model = self.opened.model
        self.layer.colormap = label_colormap(model.colors, model.background, looked)
        self.layer.features = label_features(model.names, looked)

    def put(self, tile: Tile) -> None:
        """Take a tile, to be shown soon."""
        self._tiles.append(tile)

    def _on_camera(self) -> None:
        # Many events a second while the user pans: looked at in the next tick.
        self._moved = True

    def _tick(self) -> None:
        if self._moved:
            self._moved = False
            box = None
            with contextlib.suppress(PyramidError):  # turned since the start
                box = visible_box(self.viewer, self.image)
            if box is not None and box != self._looked_at:
                self._looked_at = box
                self._look(box)
        if self._drain(DRAIN_SECONDS):
            self._refresh()

    def _drain(self, seconds: float) -> bool:
        """Write waiting tiles for at most ``seconds``; whether there were any."""
        end = time.monotonic() + seconds
        changed = False
        while time.monotonic() < end:
            if not self._tiles:
                break
            self.opened.levels.put(self._tiles.popleft())
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
        if self._overview is not None:
            # What is not predicted must not look as if it were.
            clear_look(self.opened.levels)
            self._name_looked(False)
        self._refresh(thumbnail=True)


def label_colormap(
    colors: Sequence[str], background: int | None = None, looked: bool = False
) -> DirectLabelColormap:
    """Return the class colours; what is not predicted is transparent.

    The background is faint: tissue that is of no interest need not be painted over.
    With ``looked`` there are fainter ones for a first look, too.
    """
    table: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    table.update(enumerate(colors, start=1))
    if looked:
        for label, color in enumerate(colors, start=1):
            alpha = LOOKED_BACKGROUND_ALPHA if label == background else LOOKED_ALPHA
            table[LOOKED + label] = f"{color}{alpha}"
    if background is not None:
        table[background] = f"{table[background]}{BACKGROUND_ALPHA}"
    return DirectLabelColormap(color_dict=table)


def label_features(names: Sequence[str], looked: bool = False) -> dict[str, list[Any]]:
    """Return the table from which napari shows the class under the cursor."""
    # Without a row for 0 the status bar would read [No Properties] there.
    index, classes = list(range(len(names) + 1)), ["not predicted", *names]
    if looked:
        index += [LOOKED + label for label in range(1, len(names) + 1)]
        classes += [f"{name} (first look)" for name in names]
    return {"index": index, "class": classes}
