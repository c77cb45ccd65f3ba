"""Step 4: the whole slide, what is on screen first."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from .._layers import visible_box
from .._tasks.commands import Look
from .._tasks.growing import Tile
from .._tasks.predicting import Opened, PredictionEnd, PredictTask
from ..core.config import ModelConfig, PredictionConfig
from ..core.data.pyramid import Pyramid
from ..core.errors import ConfigError, MuvitError
from ..core.geometry import Box
from ..core.progress import Progress
from . import describe
from .job import JobRunner, worker_threads
from .model_chooser import ModelChooser
from .places import prediction_paths
from .state import PanelState
from .streaming import LivePrediction
from .ui import Combo, Warning_, button, form, text

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

WHOLE, VISIBLE = "all, visible part first", "visible part only"
NO_MODEL = "no model yet"
MAX_OUTPUTS = 100
"""Predictions of one image that may lie side by side."""
DEFAULT_OVERLAP = 25
MAX_OVERLAP = 50


class PredictPage(QWidget):
    """Model, region, and the button that segments the slide."""

    def __init__(
        self,
        viewer: ViewerModel,
        state: PanelState,
        runner: JobRunner,
        image: Callable[[], Image | None],
        pyramid: Callable[[], Pyramid],
    ) -> None:
        super().__init__()
        self.viewer = viewer
        self.state = state
        self.runner = runner
        self._image = image
        self._pyramid = pyramid
        self._live: LivePrediction | None = None
        self._started = 0.0
        self._running_since = 0.0
        self._done_before: float | None = None
        self.model = ModelChooser(
            state,
            NO_MODEL,
            optional=False,
            tooltip="The model to predict with: trained here, or a saved one.",
        )
        self.region = Combo("Where to predict.")
        self.region.addItems([WHOLE, VISIBLE])
        self.region.currentTextChanged.connect(self._on_region)
        self.overlap = QSlider(Qt.Orientation.Horizontal)
        self.classes = text()
        self.predict_button = button(
            "Predict whole slide", self.predict, "Segment the slide with this model"
        )
        self.hint = text("What is on screen is computed first; pan and zoom freely.")
        self.result = text()
        self.problem = Warning_()
        self._lay_out()
        self.model.changed.connect(self._on_model)
        self.model.refused.connect(self.problem.say)
        self._on_model()
        runner.busy_changed.connect(self._on_busy)

    def _lay_out(self) -> None:
        top = form()
        top.addRow("model", self.model)
        top.addRow("classes", self.classes)
        top.addRow("region", self.region)
        top.addRow("overlap", self._make_overlap())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        layout.addWidget(self.predict_button)
        layout.addWidget(self.problem)
        layout.addWidget(self.hint)
        layout.addWidget(self.result)
        layout.addStretch(1)

    def _make_overlap(self) -> QWidget:
        self.overlap.setRange(0, MAX_OVERLAP)
        self.overlap.setValue(DEFAULT_OVERLAP)
        tip = "Share that neighbouring views have in common: more hides seams, slower."
        self.overlap.setToolTip(tip)
        number = QLabel(f"{DEFAULT_OVERLAP} %")
        number.setMinimumWidth(34)
        self.overlap.valueChanged.connect(lambda v: number.setText(f"{v} %"))
        holder = QWidget()
        line = QHBoxLayout(holder)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.overlap)
        line.addWidget(number)
        return holder

    # ---- choices

    def _on_model(self) -> None:
        self.problem.say("")
        model = self.model.chosen
        self.predict_button.setEnabled(model is not None and not self.runner.busy)
        if model is None:
            self.classes.setText("–")
            self.model.combo.setToolTip(
                "Train one on page 3, or choose a folder with …"
            )
            return
        self.model.combo.setToolTip(str(model.path))
        self.classes.setText(_legend(model.config))

    def _on_region(self, words: str) -> None:
        visible = words == VISIBLE
        self.predict_button.setText(
            "Predict visible part" if visible else "Predict whole slide"
        )

    # ---- prediction

    def predict(self) -> None:
        """Start predicting; what an earlier run has done is kept."""
        self.problem.say("")
        self.result.setText("")
        image, model = self._image(), self.model.chosen
        try:
            pyramid = self._pyramid()
            if image is None or model is None:
                raise MuvitError("Train a model on page 3, or choose a saved one.")
            seen = visible_box(self.viewer, image)
            task = PredictTask(
                image=pyramid,
                model=model.path,
                config=self._config(seen),
                outputs=self._outputs(pyramid),
                focus=seen,
            )
        except MuvitError as error:
            self.problem.say(str(error))
            self.runner.said.emit("Not started.")  # not what an earlier run said
            return
        self._started = time.monotonic()
        self._done_before = None
        self.runner.said.emit(describe.PREPARING)
        self.runner.start(
            task,
            on_success=self._on_done,
            on_progress=self._on_progress,
            on_told=partial(self._on_told, image),
            on_end=self._on_end,
        )

    def _config(self, seen: Any) -> PredictionConfig:
        region = None
        if self.region.currentText() == VISIBLE:
            if seen is None:
                raise ConfigError(
                    "No part of the slide is on screen; move it into view first."
                )
            region = (*seen.lower, *seen.upper)
        return PredictionConfig(
            overlap=self.overlap.value() / 100,
            region=region,
            num_threads=worker_threads(),
        )

    @staticmethod
    def _outputs(pyramid: Pyramid) -> list[Path]:
        paths = prediction_paths(pyramid.name, pyramid.path)
        return list(islice(paths, MAX_OUTPUTS))

    def _on_told(self, image: Image, said: Opened | Tile) -> None:
        if isinstance(said, Opened):
            # Of the image that was predicted: another one may be chosen by now.
            if image in self.viewer.layers:
                name = f"{image.name} · prediction"
                self._live = LivePrediction(
                    self.viewer, image, said, name, self._look, self
                )
        elif self._live is not None:
            self._live.put(said)

    def _look(self, box: Box) -> None:
        self.runner.send(Look(box))

    def _on_progress(self, events: list[Progress]) -> None:
        event = events[-1]
        message = next((e.message for e in events if e.message), "")
        if message:
            self.problem.say(message)
        if self._done_before is None:
            # The clock for what is left starts when the model is loaded.
            self._done_before, self._running_since = event.done, time.monotonic()
        spent = time.monotonic() - self._running_since
        new = event.done - self._done_before
        words = f"{event.done:.0f} of {event.total:.0f} tiles"
        if new > 0:
            left = spent * (event.total - event.done) / new
            words += f" · {describe.duration(left)} left"
        self.runner.said.emit(words)

    def _on_done(self, end: PredictionEnd) -> None:
        path = end.path
        spent = describe.duration(time.monotonic() - self._started)
        if end.stopped:
            self.runner.said.emit("Stopped; what is done is kept.")
            self._show_place(path, "Predict again to continue.")
        else:
            self.runner.said.emit(f"Done in {spent}.")
            self._show_place(path)

    def _show_place(self, path: Path, more: str = "") -> None:
        self.result.setText(f"Kept as {path.name} {describe.place(path)}. {more}")
        self.result.setToolTip(str(path))

    def _on_end(self) -> None:
        if self._live is not None:
            self._live.finish()
            self._live.deleteLater()
            self._live = None

    def _on_busy(self, busy: bool) -> None:
        self.predict_button.setEnabled(not busy and self.model.chosen is not None)


def _legend(config: ModelConfig) -> str:
    squares = [
        f'<span style="color:{color}">■</span>&nbsp;{name.replace(" ", "&nbsp;")}'
        for name, color in zip(config.names, config.colors, strict=True)
    ]
    return "&nbsp; ".join(squares)
