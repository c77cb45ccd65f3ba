"""Pretraining on the slide itself, without annotations: a folded part of step 3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from qtpy.QtWidgets import QVBoxLayout, QWidget

from .._tasks.pretraining import PretrainTask
from .._tasks.training import Trained
from ..core.config import TrainingConfig
from ..core.data.pyramid import Pyramid
from ..core.errors import MuvitError
from ..core.presets import preset
from ..core.progress import Progress
from . import describe
from .foldout import Foldout
from .job import JobRunner, worker_threads
from .places import model_folder
from .settings import read_settings
from .state import PanelState
from .train_options import minutes_box
from .ui import Warning_, button, form, text

DEFAULT_MINUTES = 10.0


class PretrainPart(QWidget):
    """Lets the model look at the slide while the user draws.

    Parameters
    ----------
    state
        Size and classes.
    runner
        Runs it.
    pyramids
        The slides, the one on screen first.
    """

    def __init__(
        self,
        state: PanelState,
        runner: JobRunner,
        pyramids: Callable[[], Sequence[Pyramid]],
    ) -> None:
        super().__init__()
        self.state = state
        self.runner = runner
        self._pyramids = pyramids
        self.encoder: Path | None = None
        """The model that new trainings start from."""
        self.minutes = minutes_box("How long to look at the slide.")
        self.minutes.setValue(DEFAULT_MINUTES)
        self.start_button = button(
            "Pretrain on this slide", self.start, "Go on drawing meanwhile"
        )
        self.forget_button = button(
            "Do not use it", self.forget, "Let the next training begin from nothing"
        )
        self.said = text(
            "Without annotations: the model learns to fill in hidden parts of the "
            "slide. Go on drawing meanwhile. It pays after hours, not minutes."
        )
        self.problem = Warning_()
        self.part = Foldout("Pretraining", "Learn from the slide alone first")
        self.part.content.addWidget(self.said)
        top = form()
        top.addRow("time", self.minutes)
        self.part.content.addLayout(top)
        for widget in (self.start_button, self.forget_button, self.problem):
            self.part.content.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.part)
        self.forget_button.setVisible(False)
        runner.busy_changed.connect(self._on_busy)

    def task(self) -> PretrainTask:
        """Return the pretraining that the panel describes.

        Raises
        ------
        MuvitError
            If there is no slide.
        """
        pyramids = tuple(self._pyramids())
        values = {
            **preset(self.state.preset).pretraining,
            "minutes": self.minutes.value(),
            "num_threads": worker_threads(),
            "device": read_settings().device,
        }
        return PretrainTask(
            images=pyramids,
            config=TrainingConfig(**values),
            model=self.state.new_model(pyramids[0]),
            out=model_folder(f"{pyramids[0].name} pretrained", pyramids[0].path),
        )

    def start(self) -> None:
        """Start pretraining."""
        self.problem.say("")
        try:
            task = self.task()
        except MuvitError as error:
            self.problem.say(str(error))
            return
        self.runner.said.emit(describe.PREPARING)
        self.runner.start(
            task,
            on_success=self._on_done,
            on_progress=self._on_progress,
            on_failed=self.problem.say,
        )

    def _on_progress(self, events: list[Progress]) -> None:
        event = events[-1]
        words = describe.training_text(event.metrics, event.metrics.get("remaining"))
        self.runner.said.emit(f"Pretraining · {words or event.message}")

    def _on_done(self, result: Trained) -> None:
        self.encoder = result.path
        ended = "Pretraining stopped" if result.stopped else "Pretrained"
        self.runner.said.emit(f"{ended}; the next training starts from it.")
        self.said.setText(
            f"{ended}, {result.steps} steps, kept as {result.path.name}. The next "
            "new model of this size starts from it."
        )
        self.forget_button.setVisible(True)

    def forget(self) -> None:
        """Begin from nothing again."""
        self.encoder = None
        self.forget_button.setVisible(False)
        self.said.setText("The next training begins from nothing.")

    def _on_busy(self, busy: bool) -> None:
        self.start_button.setEnabled(not busy)
