"""Step 3: train for a few minutes and watch the loss."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QVBoxLayout,
    QWidget,
)

from .._tasks.training import Trained, TrainTask
from ..core.config import ModelConfig
from ..core.data.annotations import Annotations, LabelImage
from ..core.data.pyramid import Pyramid
from ..core.errors import AnnotationError, MuvitError
from ..core.geometry import Box
from ..core.presets import PRESETS
from ..core.progress import Progress
from . import describe
from .job import JobRunner, worker_threads
from .loss_plot import LossPlot
from .model_chooser import ModelChooser
from .places import model_folder
from .state import PanelState, SavedModel
from .ui import Combo, Warning_, button, form, text

NEW_MODEL = "a new model"
DEFAULT_MINUTES = 30.0
"""For presets that name none."""


class TrainPage(QWidget):
    """Preset, start, minutes, and the loss curve."""

    network_changed = Signal()
    trained = Signal(object)  # SavedModel

    def __init__(
        self,
        state: PanelState,
        runner: JobRunner,
        pyramid: Callable[[], Pyramid],
        annotations: Callable[[], Annotations],
    ) -> None:
        super().__init__()
        self.state = state
        self.runner = runner
        self._pyramid = pyramid
        self._annotations = annotations
        self._started = 0.0
        self._metrics: dict[str, float] = {}
        self.start_from = ModelChooser(
            state,
            NEW_MODEL,
            optional=True,
            tooltip="Start from a model that knows similar tissue, or from nothing.",
        )
        self.preset = Combo("How large the model is.")
        self.summary = text()
        self.minutes = self._make_minutes()
        self.minutes.setValue(self._usual_minutes())
        self.train_button = button(
            "Start training", self.train, "Train on the annotated regions"
        )
        self.plot = LossPlot()
        self.result = text()
        self.problem = Warning_()
        self._fill()
        self._lay_out()
        runner.busy_changed.connect(self._on_busy)

    @staticmethod
    def _make_minutes() -> QDoubleSpinBox:
        box = QDoubleSpinBox()
        box.setRange(0.1, 10_000)
        box.setDecimals(1)
        box.setSuffix(" min")
        box.setToolTip(
            "How long to train. You can stop earlier: the best model so far is kept."
        )
        return box

    def _fill(self) -> None:
        for name in PRESETS:
            self.preset.addItem(name, name)
        self.preset.setCurrentIndex(list(PRESETS).index(self.state.preset))
        self.preset.currentIndexChanged.connect(self._on_preset)
        self.start_from.changed.connect(self._on_start_from)
        self.start_from.refused.connect(self.problem.say)
        self._describe()

    def _lay_out(self) -> None:
        top = form()
        top.addRow("start from", self.start_from)
        top.addRow("preset", self.preset)
        top.addRow("time", self.minutes)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        layout.addWidget(self.summary)
        layout.addWidget(self.train_button)
        layout.addWidget(self.problem)
        layout.addWidget(self.plot)
        layout.addWidget(self.result)
        layout.addStretch(1)

    # ---- choices

    def _on_preset(self) -> None:
        self.state.preset = self.preset.currentData()
        self.minutes.setValue(self._usual_minutes())
        self._describe()
        self.network_changed.emit()

    def _usual_minutes(self) -> float:
        training = PRESETS[self.state.preset].training
        return float(training.get("minutes", DEFAULT_MINUTES))

    def _on_start_from(self) -> None:
        self.problem.say("")
        self.state.start = self.start_from.chosen
        self.preset.setEnabled(self.state.start is None)
        self._describe()
        self.network_changed.emit()

    def _describe(self) -> None:
        start = self.start_from.chosen
        model = PRESETS[self.state.preset].model
        factors = start.config.scale_factors if start else model["scale_factors"]
        scales = ", ".join(f"{f:g}×" for f in factors)
        if start is None:
            summary = PRESETS[self.state.preset].summary
            words = f"{summary[0].upper()}{summary[1:]}. Sees every point at {scales}."
        else:
            names = ", ".join(start.config.names)
            words = f"This model knows {names}. Sees every point at {scales}."
        self.summary.setText(words)

    def _model(self, pyramid: Pyramid) -> ModelConfig:
        start = self.start_from.chosen
        wanted = self.state.new_model(pyramid)
        if start is None:
            return wanted
        # The user's classes on the start's network: weights that fit are taken over.
        return dataclasses.replace(
            start.config,
            num_classes=wanted.num_classes,
            class_names=wanted.class_names,
            class_colors=wanted.class_colors,
            background=wanted.background,
            zero_is_background=False,
        )

    # ---- training

    def train(self) -> None:
        """Start training on what the first two pages say."""
        self.problem.say("")
        self.result.setText("")
        try:
            pyramid = self._pyramid()
            start = self.start_from.chosen
            annotations = self._annotations()
            _check_place(annotations, pyramid)
            task = TrainTask(
                images=(pyramid,),
                annotations=(annotations,),
                config=self.state.training(self.minutes.value(), worker_threads()),
                model=self._model(pyramid),
                start=start.path if start else None,
                out=model_folder(pyramid.name, pyramid.path),
            )
        except MuvitError as error:
            self.problem.say(str(error))
            self.runner.said.emit("Not started.")  # not what an earlier run said
            return
        self.problem.say(_missing_classes(annotations, self.state.names))
        self.plot.clear()
        self._metrics = {}
        self._started = time.monotonic()
        self.runner.said.emit(describe.PREPARING)
        self.runner.start(
            task, on_success=self._on_trained, on_progress=self._on_progress
        )

    def _on_progress(self, events: list[Progress]) -> None:
        left: float | None = None
        message = ""
        for event in events:
            self._metrics.update(event.metrics)
            step = self._metrics.get("step", 0.0)
            if event.stage == "train" and "loss" in event.metrics:
                self.plot.add_train(step, event.metrics["loss"])
            elif event.stage == "validate" and "val_loss" in event.metrics:
                self.plot.add_validation(step, event.metrics["val_loss"])
            message = event.message or message
            left = self._seconds_left(event)
        words = describe.training_text(self._metrics, left)
        self.runner.said.emit(words or message or describe.PREPARING)

    def _seconds_left(self, event: Progress) -> float | None:
        if event.unit == "s":
            return event.total - event.done
        if event.stage != "train" or event.done <= 0:
            return None
        spent = time.monotonic() - self._started
        return spent * (event.total - event.done) / event.done

    def _on_trained(self, result: Trained) -> None:
        quality = result.best.get("mDSC")
        known = "" if quality is None else f" · mDSC {quality:.2f}"
        title = f"trained {time.strftime('%H:%M')}{known}"
        model = SavedModel(result.path, result.config, title)
        self.state.remember(model)
        self.start_from.show_models()
        ended = "Stopped" if result.stopped else "Done"
        self.runner.said.emit(f"{ended}{known}")
        self.result.setText(
            f"{ended}. The best model is kept as {model.path.name} "
            f"{describe.place(model.path)}. Go on with 4 Predict."
        )
        self.result.setToolTip(str(model.path))
        self.problem.say("\n".join(result.notes))
        self.trained.emit(model)

    def _on_busy(self, busy: bool) -> None:
        self.train_button.setEnabled(not busy)


def _check_place(annotations: Annotations, pyramid: Pyramid) -> None:
    """Raise `AnnotationError` when no annotation lies upon the slide."""
    slide = Box((0.0, 0.0), tuple(float(n) for n in pyramid.shape))
    if not annotations.touches(slide):
        raise AnnotationError(
            f"All annotations lie outside the image {pyramid.name!r}. Outline regions "
            "upon it, or give the annotation layer the image's scale and translate."
        )


def _missing_classes(annotations: Annotations, names: Sequence[str]) -> str:
    """Return which classes nothing was marked as, in words."""
    marked: set[int] = set()
    for item in annotations.items:
        if isinstance(item, LabelImage):
            marked.update((item.values or {}).values())
        else:
            marked.add(item.label)
    missing = [n for k, n in enumerate(names, start=1) if k not in marked]
    if not missing:
        return ""
    one = len(missing) == 1
    return (
        f"Nothing is annotated as {', '.join(missing)}: the model cannot learn "
        f"{'this class' if one else 'these classes'}."
    )
