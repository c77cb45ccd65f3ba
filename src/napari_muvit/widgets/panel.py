"""The panel: four steps, and a footer that says what is going on."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QShortcut,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from .._child import ChildDied, ChildProcess
from ..core.progress import Progress
from .annotate_page import AnnotatePage
from .copy_script import ScriptCopier
from .data_page import DataPage
from .job import JobRunner
from .model_library import ModelLibrary
from .places import log_file, user_folder
from .predict_page import PredictPage
from .settings import read_settings
from .state import PanelState
from .train_page import TrainPage
from .training_data import gather
from .ui import button

if TYPE_CHECKING:
    import napari.viewer

STEPS = ("Data", "Annotate", "Train", "Predict")
MINIMUM_WIDTH = 288
BAR_STEPS = 1000
BAR_HEIGHT = 5
WARM_UP_MS = 500
"""Until the child process is started: the panel is drawn first."""


def make_child() -> ChildProcess | None:
    """Return the process in which the panel works; it is not started yet."""
    if not sys.executable or not read_settings().own_process:
        return None
    return ChildProcess(log_file(), lambda: read_settings().environment())


class MuViTPanel(QWidget):
    """Plugins > MuViT: choose a slide, annotate, train, predict.

    Parameters
    ----------
    napari_viewer
        The viewer; napari passes it by the name of this parameter.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self._closed = False
        self.state = PanelState(library=ModelLibrary(user_folder()))
        self.state.load_models()
        self.runner = JobRunner(self, make_child())
        self.data = DataPage(napari_viewer, self.state)
        self.annotate = AnnotatePage(napari_viewer, self.state)
        self.train = TrainPage(
            napari_viewer,
            self.state,
            self.runner,
            lambda: self.data.image.layer,
            lambda: [self.data.pyramid()],
            lambda: gather(self.state, self.data, self.annotate),
            self.annotate.annotations,
        )
        self.predict = PredictPage(
            napari_viewer,
            self.state,
            self.runner,
            lambda: self.data.image.layer,
            self.data.pyramid,
            self.annotate.add_annotations,
        )
        self.setMinimumWidth(MINIMUM_WIDTH)
        self._lay_out()
        self._connect()
        self.show_step(0)
        self.reset_choices()
        QTimer.singleShot(WARM_UP_MS, self._warm_up)

    def _warm_up(self) -> None:
        """Let the child import torch before it is needed."""
        if not self._closed and self.runner.child is not None:
            with contextlib.suppress(ChildDied):  # said when there is work for it
                self.runner.child.start()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(8)
        layout.addWidget(self._make_header())
        self.pages = QStackedWidget()
        for page in (self.data, self.annotate, self.train, self.predict):
            self.pages.addWidget(_scrolled(page))
        layout.addWidget(self.pages, 1)
        layout.addWidget(self._make_footer())

    def _make_header(self) -> QWidget:
        holder = QWidget()
        line = QHBoxLayout(holder)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(2)
        group = QButtonGroup(self)
        self.step_buttons: list[QPushButton] = []
        for index, name in enumerate(STEPS):
            made = button(
                f"{index + 1}  {name}",
                partial(self.show_step, index),
                f"Step {index + 1} of {len(STEPS)}: {name} (Ctrl+{index + 1})",
                checkable=True,
            )
            keys = QShortcut(QKeySequence(f"Ctrl+{index + 1}"), self)
            keys.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            keys.activated.connect(partial(self.show_step, index))
            made.setStyleSheet("padding: 4px 2px;")
            group.addButton(made)
            line.addWidget(made, 1)
            self.step_buttons.append(made)
        return holder

    def _make_footer(self) -> QWidget:
        self.status = QElidingLabel("Ready.")
        self.status.setElideMode(Qt.TextElideMode.ElideRight)
        self.stop_button = button("Stop", self.stop, "Stop now; what is done is kept.")
        self.stop_button.setEnabled(False)
        copier = ScriptCopier(self, self._say)
        self.script_button = button(
            "Script",
            copier.copy,
            "Copy Python that does this step without the window, for the command line "
            "or a cluster",
        )
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(BAR_HEIGHT)
        self.bar.setRange(0, BAR_STEPS)
        holder = QWidget()
        layout = QVBoxLayout(holder)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        line = QHBoxLayout()
        line.addWidget(self.status, 1)
        line.addWidget(self.script_button)
        line.addWidget(self.stop_button)
        layout.addLayout(line)
        layout.addWidget(self.bar)
        return holder

    def _connect(self) -> None:
        self.data.image_changed.connect(self._on_image)
        self.data.model.chosen.connect(self._on_start)
        self.data.model.edited.connect(self._show_models)
        self.train.network_changed.connect(self.data.refresh)
        self.annotate.annotations_changed.connect(self.train.annotations_changed)
        self.train.trained.connect(self._on_trained)
        self.predict.correct.classes_added.connect(
            self.annotate.classes.classes_changed
        )
        self.runner.busy_changed.connect(self._on_busy)
        self.runner.progressed.connect(self._on_progress)
        self.runner.said.connect(self._say)
        self.viewer.dims.events.current_step.connect(self._on_plane)
        # A function, because Qt calls no methods of what it is destroying.
        runner, annotate, boxes = self.runner, self.annotate, self.data.boxes

        def let_go() -> None:
            boxes.close()
            runner.close()
            annotate.release()

        self.destroyed.connect(let_go)

    def event(self, event: QEvent | None) -> bool:
        """Notice that the dock is closed: napari takes the panel out of it."""
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self.parentWidget() is None:
                self.let_go()
            else:
                self.come_back()
        return bool(super().event(event))

    def let_go(self) -> None:
        """Stop the work and leave the layers, which live longer than the panel."""
        self._closed = True
        self.data.hide_boxes()
        self.runner.close()
        self.annotate.set_layers([], None)
        self.annotate.release()

    def come_back(self) -> None:
        """Follow the layers again, docked once more."""
        if self._closed:
            self._closed = False
            self.reset_choices()

    def reset_choices(self, event: Any = None) -> None:
        """Follow the viewer's layers; napari calls it when they change."""
        if self._closed:
            return
        layers = list(self.viewer.layers)
        self.data.set_layers(layers)
        self.annotate.set_layers(layers, self.data.image.layer)

    def show_step(self, index: int) -> None:
        """Show a page."""
        self.step_buttons[index].setChecked(True)
        self.pages.setCurrentIndex(index)
        if index == 0:
            self.data.refresh()
        if index == 2:
            self.train.refresh()
        self._show_models()

    def _show_models(self) -> None:
        self.train.start_from.show_models()
        self.predict.model.show_models()

    def _on_start(self, model: Any) -> None:
        """Take the model of the Data page on all pages."""
        self.train.start_from.choose(model)
        if model is not None:
            self.predict.model.choose(model)

    def _on_image(self, image: Any) -> None:
        self.annotate.set_layers(list(self.viewer.layers), image)

    def _on_plane(self, _event: Any = None) -> None:
        # The Data page says which plane of a stack is used.
        if not self._closed and self.pages.currentIndex() == 0:
            self.data.refresh()

    def _on_trained(self, model: Any) -> None:
        self.predict.model.show_models(model.path)

    def stop(self) -> None:
        """Stop what is under way; what is done is kept."""
        if not self.runner.busy:
            return
        self.stop_button.setEnabled(False)
        self._say("Stopping …")
        self.runner.stop()

    def _on_busy(self, busy: bool) -> None:
        self.stop_button.setEnabled(busy)
        # Moving to and fro until the first number is there.
        self.bar.setRange(0, 0 if busy else BAR_STEPS)
        if not busy:
            self.bar.setValue(0)

    def _on_progress(self, events: list[Progress]) -> None:
        event = events[-1]
        if event.stage == "prepare" or event.done == 0:
            return
        self.bar.setRange(0, BAR_STEPS)
        self.bar.setValue(round(event.fraction * BAR_STEPS))

    def _say(self, words: str) -> None:
        self.status.setText(words)
        self.status.setToolTip(words)


def _scrolled(page: QWidget) -> QScrollArea:
    """Let a page scroll where the window is low."""
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(page)
    return area
