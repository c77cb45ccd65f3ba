"""What one training shows while it runs: curves, words, a picture, hard places."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import psutil
from qtpy.QtCore import QObject, QTimer, Signal

from .._layers import visible_box
from .._tasks.commands import Look
from .._tasks.screen import ScreenPicture
from .._tasks.training import Hard
from ..core.errors import PyramidError
from ..core.progress import Progress
from . import describe
from .screen_layer import ScreenLayer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from ..core.config import ModelConfig
    from .hard_places import HardPlaceList
    from .job import JobRunner
    from .loss_plot import LossPlot

REST_MS = 400
"""The camera is followed when it has rested for this long."""
MEMORY_SECONDS = 2.0


class TrainingWatch(QObject):
    """Follows one training and tells it where the user looks.

    Parameters
    ----------
    viewer, image, model
        Where the picture goes.
    runner
        Runs it.
    plot, places
        What it fills.
    live
        Whether figures come with each step, and not with validations only.
    parent
        Of this object.
    """

    said = Signal(str)

    def __init__(
        self,
        viewer: ViewerModel,
        image: Image,
        model: ModelConfig,
        runner: JobRunner,
        plot: LossPlot,
        places: HardPlaceList,
        *,
        live: bool,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.viewer, self.image, self.runner = viewer, image, runner
        self.screen = ScreenLayer(viewer, image, model)
        self._plot, self._places, self._live = plot, places, live
        self._metrics: dict[str, float] = {}
        self._started = time.monotonic()
        self._memory, self._memory_at = "", 0.0
        self.paused = False
        self.shows_picture = True
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self.look)
        self._camera = getattr(viewer, "scene", viewer).camera
        self._camera.events.center.connect(self._on_camera)
        self._camera.events.zoom.connect(self._on_camera)

    def _on_camera(self, _event: Any = None) -> None:
        self._rest.start()

    def look(self) -> None:
        """Tell the training what is on screen."""
        box = None
        if self.shows_picture and self.image in self.viewer.layers:
            try:
                box = visible_box(self.viewer, self.image)
            except PyramidError:
                box = None  # turned since the start
        self.runner.send(Look(box))

    def show_picture(self, shown: bool) -> None:
        """Whether pictures are made."""
        self.shows_picture = shown
        if not shown:
            self.screen.remove()
        self.look()

    def on_told(self, said: Any) -> None:
        """Take what the task tells."""
        if isinstance(said, ScreenPicture):
            if self.shows_picture and self.image in self.viewer.layers:
                with contextlib.suppress(PyramidError):  # turned since the start
                    self.screen.show(said)
        elif isinstance(said, Hard):
            self._places.show_places(said.places)

    def on_progress(self, events: list[Progress]) -> None:
        """Take events, oldest first."""
        left: float | None = None
        message = ""
        for event in events:
            self._metrics.update(event.metrics)
            self._draw(event)
            message = event.message or message
            left = self._seconds_left(event)
        words = describe.training_text(self._metrics, left)
        if words and self.paused:
            words = f"Paused · {words}"
        if words:
            words = f"{words}{self._memory_words()}"
        self.said.emit(words or message or describe.PREPARING)

    def _draw(self, event: Progress) -> None:
        step = self._metrics.get("step", 0.0)
        if event.stage == "train" and "loss" in event.metrics:
            self._plot.add_train(step, event.metrics["loss"])
            if self._live and "mDSC" in event.metrics:
                self._plot.add_dice(step, event.metrics["mDSC"])
        elif event.stage == "validate" and "val_loss" in event.metrics:
            self._plot.add_validation(step, event.metrics["val_loss"])
            if "mDSC" in event.metrics:
                self._plot.add_dice(step, event.metrics["mDSC"])

    def _seconds_left(self, event: Progress) -> float | None:
        if "remaining" in event.metrics:
            return event.metrics["remaining"]
        if event.unit == "s":
            return event.total - event.done
        if event.stage != "train" or event.done <= 0:
            return None
        spent = time.monotonic() - self._started
        return spent * (event.total - event.done) / event.done

    def _memory_words(self) -> str:
        """Memory of the process that trains, looked at every few seconds."""
        child = self.runner.child
        number = None if child is None else child.pid
        now = time.monotonic()
        if number is not None and now - self._memory_at > MEMORY_SECONDS:
            self._memory_at = now
            try:
                used = psutil.Process(number).memory_info().rss
            except psutil.Error:
                return ""
            self._memory = f" · {used / 2**30:.1f} GiB"
        return self._memory

    def finish(self) -> None:
        """Let go of the viewer; the last picture stays."""
        self._rest.stop()
        self._camera.events.center.disconnect(self._on_camera)
        self._camera.events.zoom.disconnect(self._on_camera)
