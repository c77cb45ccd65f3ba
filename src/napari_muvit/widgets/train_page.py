"""Step 3: train for a few minutes and watch it learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from .._layers import visible_box
from .._tasks.commands import Annotate, Discard, Pause
from .._tasks.training import LiveTrainTask, Trained, TrainTask
from ..core.config import ModelConfig
from ..core.data.annotations import Annotations
from ..core.data.pyramid import Pyramid
from ..core.errors import MuvitError
from ..core.geometry import Box
from ..core.presets import PRESETS
from . import describe
from .hard_places import HardPlaceList
from .job import JobRunner, worker_threads
from .loss_plot import LossPlot
from .model_chooser import ModelChooser
from .option_changes import OptionChanges
from .places import model_folder
from .pretrain_part import PretrainPart
from .settings import read_settings
from .state import PanelState
from .train_options import TrainOptions, minutes_box
from .train_summary import summary
from .trained import TrainingNotes, remember_trained
from .training_checks import check_place, missing_classes
from .training_data import TrainingData
from .training_watch import TrainingWatch
from .ui import Combo, Warning_, button, form, row, text
from .view import go_to

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

NEW_MODEL = "a new model"
DEFAULT_MINUTES = 30.0
"""For presets that name none."""
LIVE, THOROUGH = "live", "thorough"
WAYS = {
    LIVE: "live, as you draw",
    THOROUGH: "thorough",
}
MINUTES_TIP = "How long to train. You can stop earlier: what was learned is kept."
WAY_TIP = (
    "Live: what you draw meanwhile counts from the next step on, and the slide shows "
    "what the model makes of it. Thorough: a part of the annotations is held back to "
    "judge the model by, and the best one is kept; for the last training."
)


class TrainPage(QWidget):
    """Size, minutes, start, and what happens meanwhile."""

    network_changed = Signal()
    trained = Signal(object)  # SavedModel

    def __init__(
        self,
        viewer: ViewerModel,
        state: PanelState,
        runner: JobRunner,
        image: Callable[[], Image | None],
        pyramids: Callable[[], Sequence[Pyramid]],
        data: Callable[[], TrainingData],
        marked: Callable[[], Annotations],
    ) -> None:
        super().__init__()
        self.viewer = viewer
        self.state = state
        self.runner = runner
        self._image = image
        self._data = data
        self._pyramids = pyramids
        self._marked = marked
        self._shown_first = False
        self.watch: TrainingWatch | None = None
        self.start_from = ModelChooser(
            state,
            NEW_MODEL,
            optional=True,
            tooltip="Start from a model that knows similar tissue, or from nothing.",
        )
        self.preset = Combo("How large the model is.")
        self.way = Combo(WAY_TIP)
        self.summary = text()
        self.minutes = minutes_box(MINUTES_TIP)
        self.options = TrainOptions()
        self.changes = OptionChanges(state, self.options)
        self.pretraining = PretrainPart(state, runner, pyramids)
        self._make_buttons()
        self.plot = LossPlot()
        self.places = HardPlaceList(self._go)
        self.result = text()
        self.problem = Warning_()
        self.notes = TrainingNotes()
        self._fill()
        self._lay_out()
        self.minutes.setValue(self._usual_minutes())
        runner.busy_changed.connect(self._on_busy)
        self._on_busy(False)

    def _make_buttons(self) -> None:
        self.train_button = button(
            "Start training", self.train, "Train on the annotated regions"
        )
        self.continue_button = button(
            "Continue", self._continue, "Go on from the model that was saved last"
        )
        self.pause_button: QPushButton = button(
            "Pause", self._pause, "Hold the training, or go on", checkable=True
        )
        self.discard_button = button(
            "Discard…", self._discard, "Stop, and keep no model of this training"
        )
        self.picture = QCheckBox("live preview on the slide")
        self.picture.setChecked(True)
        self.picture.setToolTip(
            "While it trains, show what the model makes of the part that is on screen. "
            "It takes about a seventh of the time."
        )
        self.picture.toggled.connect(self._on_picture)
        self.running = row(self.pause_button, self.discard_button)

    def _fill(self) -> None:
        for name in PRESETS:
            self.preset.addItem(name, name)
        self.preset.setCurrentIndex(list(PRESETS).index(self.state.preset))
        self.preset.currentIndexChanged.connect(self._on_preset)
        for way, words in WAYS.items():
            self.way.addItem(words, way)
        self.start_from.changed.connect(self._on_start_from)
        self.start_from.refused.connect(self.problem.say)
        self.options.changed.connect(self._on_options)
        self._show_options()
        self._describe()
        self.continue_button.setVisible(self.notes.unfinished is not None)
        if (unfinished := self.notes.unfinished) is not None:
            self.problem.say(
                f"The last training, of {unfinished.slide}, was cut off. What it had "
                "saved is kept: Continue goes on from there."
            )

    def _lay_out(self) -> None:
        top = form()
        top.addRow("start from", self.start_from)
        top.addRow("size", self.preset)
        top.addRow("way", self.way)
        top.addRow("time", self.minutes)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        for widget in (
            self.summary, self.options, self.pretraining, self.train_button,
            self.continue_button, self.running, self.picture, self.problem, self.plot,
            self.result, self.places,
        ):  # fmt: skip
            layout.addWidget(widget)
        layout.addStretch(1)

    # ---- choices

    def _on_preset(self) -> None:
        self.state.preset = self.preset.currentData()
        self.minutes.setValue(self._usual_minutes())
        self._show_options()
        self._describe()
        self.network_changed.emit()

    def _usual_minutes(self) -> float:
        training = PRESETS[self.state.preset].training
        return float(training.get("minutes", DEFAULT_MINUTES))

    def _show_options(self) -> None:
        """Show the preset's settings; what was changed before is forgotten."""
        self.changes.forget()
        training = self.state.training(self._usual_minutes(), worker_threads())
        self.options.show_values(training.to_dict(), self.state.network_values)

    def _on_options(self) -> None:
        problem = self.changes.take(self.minutes.value())
        self.problem.say(problem)
        if not problem:
            self._describe()
            self.network_changed.emit()

    def _on_start_from(self) -> None:
        self.problem.say("")
        self.state.start = self.start_from.chosen
        self.preset.setEnabled(self.state.start is None)
        self.options.model_part.setVisible(self.state.start is None)
        self._describe()
        self.network_changed.emit()

    def _describe(self) -> None:
        start = self.start_from.chosen
        self.summary.setText(summary(self.state, start, self._pyramids))

    def refresh(self) -> None:
        """Say again what it will do: another slide or other scales may be chosen."""
        self._describe()

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
            data = self._data()
            task = self._task(data)
        except MuvitError as error:
            self.problem.say(str(error))
            self.runner.said.emit("Not started.")  # not of an earlier run
            return
        self._shown_first = data.shown
        missing = missing_classes(task.annotations, self.state.names)
        self.problem.say(missing)
        self.continue_button.setVisible(False)
        self.plot.clear()
        self.places.show_places(())
        self._follow(task)
        self.notes.begin(task.out, task.images[0].name, missing)
        self.runner.said.emit(describe.PREPARING)
        self.runner.start(
            task, on_success=self._on_trained, on_failed=self._on_failed,
            on_progress=self.watch.on_progress if self.watch else None,
            on_told=self.watch.on_told if self.watch else None, on_end=self._on_end,
        )  # fmt: skip

    def task(self) -> TrainTask | LiveTrainTask:
        """Return the training that the panel describes.

        Raises
        ------
        MuvitError
            If something is missing or does not fit, in one sentence.
        """
        return self._task(self._data())

    def _task(self, data: TrainingData) -> TrainTask | LiveTrainTask:
        self.changes.check()
        self.state.device = read_settings().device
        pyramid = data.pyramids[0]
        for one, marked in zip(data.pyramids, data.annotations, strict=True):
            check_place(marked, one)
        start = self.start_from.chosen
        return (TrainTask if self.way.currentData() == THOROUGH else LiveTrainTask)(
            images=data.pyramids,
            annotations=data.annotations,
            config=self.state.training(self.minutes.value(), worker_threads()),
            model=self._model(pyramid),
            start=start.path if start else self.pretraining.encoder,
            out=model_folder(pyramid.name, pyramid.path),
            look=self._seen() if data.shown else None,
        )

    def _seen(self) -> Box | None:
        if (image := self._image()) is None or not self.picture.isChecked():
            return None
        return visible_box(self.viewer, image)

    def _follow(self, task: TrainTask | LiveTrainTask) -> None:
        image = self._image()
        if image is None or task.model is None:
            return
        if self.watch is not None:
            self.watch.screen.remove()
            self.watch.deleteLater()
        self.watch = TrainingWatch(
            self.viewer, image, task.model, self.runner, self.plot, self.places,
            live=isinstance(task, LiveTrainTask), parent=self,
        )  # fmt: skip
        self.watch.shows_picture = self.picture.isChecked()
        self.watch.said.connect(self.runner.said)

    def annotations_changed(self) -> None:
        """Let a live training learn from new strokes."""
        if self.watch is None or not (self.busy_training and self._shown_first):
            return
        try:
            marked = self._marked()
        except MuvitError:
            return  # such as all regions taken back, for the moment
        if self._image() is self.watch.image:
            self.runner.send(Annotate(0, marked))

    @property
    def busy_training(self) -> bool:
        """Whether a training of this page is under way."""
        return self.notes.running

    def _continue(self) -> None:
        if (unfinished := self.notes.unfinished) is not None:
            self.start_from.use(Path(unfinished.out))
            self.train()
            if self.busy_training:
                self.notes.drop()

    def _pause(self) -> None:
        held = self.pause_button.isChecked()
        self.pause_button.setText("Go on" if held else "Pause")
        if self.watch is not None:
            self.watch.paused = held
        self.runner.send(Pause(held))
        self.runner.said.emit("Paused." if held else describe.PREPARING)

    def _discard(self) -> None:
        if self._sure():
            self.runner.said.emit("Stopping …")
            self.runner.send(Discard())

    def _sure(self) -> bool:
        answer = QMessageBox.question(
            self, "MuViT", "Stop, and keep no model of this training?"
        )
        return bool(answer == QMessageBox.StandardButton.Yes)

    def _on_picture(self, shown: bool) -> None:
        if self.watch is not None:
            self.watch.show_picture(shown)

    def _go(self, slide: int, box: Box) -> None:
        image = self.watch.image if self.watch is not None else None
        if slide == 0 and image is not None and image in self.viewer.layers:
            go_to(self.viewer, image, box)
        else:
            self.problem.say("This place lies on another slide; choose it on page 1.")

    def _on_trained(self, result: Trained) -> None:
        model, known = remember_trained(self.state, result)
        self.start_from.show_models()
        ended = "Stopped" if result.stopped else "Done"
        self.runner.said.emit(f"{ended}{known}")
        self.result.setText(
            f"{ended}. The model is kept as {model.path.name} "
            f"{describe.place(model.path)}. Go on with 4 Predict."
        )
        self.result.setToolTip(str(model.path))
        self.problem.say("\n".join(filter(None, (self.notes.warning, *result.notes))))
        self.trained.emit(model)

    def _on_failed(self, words: str) -> None:
        self.problem.say(words + self.notes.fail())
        self.continue_button.setVisible(self.notes.unfinished is not None)

    def _on_end(self) -> None:
        self.notes.end()
        if self.watch is not None:
            self.watch.finish()

    def _on_busy(self, busy: bool) -> None:
        for start in (self.train_button, self.continue_button):
            start.setEnabled(not busy)
        training = busy and self.busy_training
        self.train_button.setVisible(not training)
        self.running.setVisible(training)
        self.pause_button.setChecked(False)
        self.pause_button.setText("Pause")
