"""Step 4: the whole slide, what is on screen first, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from .._layers import visible_box
from .._tasks.base import Task
from .._tasks.commands import Look
from .._tasks.estimating import Estimated, EstimateTask
from .._tasks.growing import Tile
from .._tasks.predicting import Opened, PredictionEnd, PredictTask, um_of
from .._tasks.predicting_many import PredictManyTask, SlideBegun, SlideEnd
from .._tasks.previewing import Overview
from ..core.config import PredictionConfig
from ..core.data.items import Area
from ..core.data.pyramid import Pyramid
from ..core.errors import MuvitError, PyramidError
from ..core.geometry import Box
from ..core.prediction.begun import find_begun
from ..core.progress import Progress
from . import describe
from .correct_box import CorrectBox, Predicted
from .job import JobRunner, worker_threads
from .last_model import remember_model
from .many_slides import as_slides, outputs_of, said_of
from .model_chooser import ModelChooser
from .places import prediction_paths
from .predict_clock import PredictClock
from .predict_options import PredictOptions
from .regions import seen_box, selected_outlines
from .result_box import ResultBox
from .settings import read_settings
from .slides import SlideEntry, prediction_slides
from .state import PanelState
from .streaming import LivePrediction
from .ui import Combo, Warning_, beside, button, form, text

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from ..core.export import Export

WHOLE, VISIBLE = "all, visible part first", "visible part only"
SELECTED, ALL = "selected regions", "all ticked slides"
PARTS = {
    WHOLE: "whole slide", VISIBLE: "visible part", SELECTED: "selected regions",
    ALL: "all slides",
}  # fmt: skip
NO_MODEL = "no model yet"
ESTIMATE_WIDTH = 92


class PredictPage(QWidget):
    """Model, region, the button that segments the slide, its result."""

    def __init__(
        self,
        viewer: ViewerModel,
        state: PanelState,
        runner: JobRunner,
        image: Callable[[], Image | None],
        pyramid: Callable[[], Pyramid],
        take: Callable[[Sequence[Area], str], object],
    ) -> None:
        super().__init__()
        self.viewer = viewer
        self.state = state
        self.runner = runner
        self._image = image
        self._pyramid = pyramid
        self._live: LivePrediction | None = None
        self._clock = PredictClock()
        self.model = ModelChooser(
            state,
            NO_MODEL,
            optional=False,
            tooltip="The model to predict with: trained here, or a saved one.",
        )
        self.region = Combo("Where to predict.")
        self.region.addItems([WHOLE, VISIBLE, SELECTED])
        self.options = PredictOptions()
        self.overlap = self.options.overlap
        self.classes = text()
        self.predict_button = button(
            "Predict whole slide", self.predict, "Segment the slide with this model"
        )
        self.estimate_button = button(
            "How long?", self.estimate, "Try a few crops and say what it will take"
        )
        self.hint = text()
        self.cost = text()
        self.problem = Warning_()
        self.result = text()
        self.shown = ResultBox()
        self.correct = CorrectBox(viewer, state, self._run, take)
        self._pixel_size: Sequence[float] | None = None
        self._others = False
        self._on_screen: list[bool] = []
        self._lay_out()
        self._connect()
        self._on_model()
        for label in (self.cost, self.result):
            _say(label, "")

    def _lay_out(self) -> None:
        top = form()
        top.addRow("model", self.model)
        top.addRow("classes", self.classes)
        top.addRow("region", self.region)
        self.estimate_button.setMaximumWidth(ESTIMATE_WIDTH)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        layout.addWidget(self.options)
        layout.addWidget(beside(self.predict_button, self.estimate_button))
        for widget in (
            self.problem, self.hint, self.cost, self.result, self.shown, self.correct,
        ):  # fmt: skip
            layout.addWidget(widget)
        layout.addStretch(1)

    def _connect(self) -> None:
        self.model.changed.connect(self._on_model)
        self.model.refused.connect(self.problem.say)
        self.region.currentTextChanged.connect(lambda _words: self._on_choice())
        self.options.changed.connect(self._on_choice)
        self.shown.wanted.connect(
            lambda task: self._run(task, self._on_exported, "Exporting …")
        )
        self.runner.busy_changed.connect(self._on_busy)

    def showEvent(self, event: Any) -> None:
        """Look again what lies on the disk whenever the page is opened."""
        super().showEvent(event)
        self.offer_all()
        self._say_what_is_begun()

    def _ticked(self) -> list[SlideEntry]:
        return prediction_slides(self.state.slides, self.state.shown)

    def offer_all(self) -> None:
        """Offer all slides where there are several."""
        index, several = self.region.findText(ALL), len(self._ticked()) > 1
        if several and index < 0:
            self.region.addItem(ALL)
        elif not several and index >= 0:
            self.region.removeItem(index)

    # ---- choices

    def _on_choice(self) -> None:
        _say(self.cost, "")  # that was of other choices
        self._say_what_is_begun()

    def _on_model(self) -> None:
        self.problem.say("")
        _say(self.cost, "")
        model = self.model.chosen
        self._on_busy(self.runner.busy)
        if model is None:
            self.classes.setText("–")
            self.model.combo.setToolTip(
                "Train one on page 3, or choose a folder with …"
            )
        else:
            self.model.combo.setToolTip(str(model.path))
            self.classes.setText(describe.legend(model.config))
        self._say_what_is_begun()

    def _say_what_is_begun(self) -> None:
        """Say whether a click starts or goes on."""
        part = PARTS[self.region.currentText()]
        begun = None
        model = self.model.chosen
        alone = self.region.currentText() != ALL
        if alone and model is not None and not self.runner.busy:
            try:
                pyramid = self._pyramid()
                config = PredictionConfig(**self.options.values(pyramid.shape))
                outputs = prediction_paths(pyramid.name, pyramid.path)
                begun = find_begun(outputs, pyramid, model.path.name, config)
            except (MuvitError, OSError):
                begun = None  # said when it is to be predicted
        verb, words = describe.begun_text(begun)
        self.predict_button.setText(f"{verb} {part}")
        self.hint.setText(words)

    # ---- prediction

    def predict_whole(self) -> None:
        """Predict the whole slide with what is chosen."""
        self.region.setCurrentText(WHOLE)
        self.predict()

    def predict(self) -> None:
        """Start predicting; what an earlier run has done is kept."""
        _say(self.result, "")
        asked = self._asked()
        if asked is None:
            return
        image, shown = asked
        try:
            task, on_success = self._task(image, shown)
        except MuvitError as error:
            self.problem.say(str(error))
            return
        remember_model(shown.model)
        self._clock = PredictClock()
        self.runner.said.emit(describe.PREPARING)
        self.runner.start(
            task,
            on_success=on_success,
            on_progress=self._on_progress,
            on_told=partial(self._on_told, shown),
            on_failed=self.problem.say,
            on_end=self._on_end,
        )

    def _task(
        self, image: Image, shown: Predicted
    ) -> tuple[Task, Callable[[Any], None]]:
        """Return what is to be run, and what takes its result."""
        focus = visible_box(self.viewer, image)
        pyramid = shown.pyramid
        if self.region.currentText() == ALL:
            entries, on_page = self._ticked(), self.state.shown
            slides = as_slides(entries, on_page, pyramid)
            self._on_screen = [e == on_page for e in entries]
            task = PredictManyTask(slides, shown.model, shown.config, focus)
            return task, self._on_all_done
        outputs = outputs_of(pyramid.name, pyramid.path)
        self._others = False
        one = PredictTask(pyramid, shown.model, shown.config, outputs, focus)
        return one, self._on_done

    def task(self) -> Task:
        """Return the prediction that the page describes.

        Raises
        ------
        MuvitError
            If something is missing, in one sentence.
        """
        asked = self._asked()
        if asked is None:
            raise MuvitError(self.problem.text())
        return self._task(*asked)[0]

    def _asked(self) -> tuple[Image, Predicted] | None:
        """What is to be predicted how; None where something is wrong, which is said."""
        self.problem.say("")
        image, model = self._image(), self.model.chosen
        try:
            pyramid = self._pyramid()
            if image is None or model is None:
                raise MuvitError("Train a model on page 3, or choose a saved one.")
            config = self._config(image, pyramid)
        except MuvitError as error:
            self.problem.say(str(error))
            self.runner.said.emit("Not started.")  # not what an earlier run said
            return None
        return image, Predicted(
            image, pyramid, model.path, model.config, config, Path()
        )

    def _config(self, image: Image, pyramid: Pyramid) -> PredictionConfig:
        where: dict[str, Any] = {}
        if self.region.currentText() == VISIBLE:
            seen = seen_box(self.viewer, image)
            where["region"] = (*seen.lower, *seen.upper)
        elif self.region.currentText() == SELECTED:
            where["outlines"] = selected_outlines(self.viewer, image)
        return PredictionConfig(
            **self.options.values(pyramid.shape),
            **where,
            num_threads=worker_threads(),
            device=read_settings().device,
        )

    def _on_told(
        self, asked: Predicted, said: SlideBegun | Opened | Overview | Tile
    ) -> None:
        if isinstance(said, SlideBegun):
            self._on_end()
            self._others = not self._on_screen[said.number]
        elif self._others:
            return  # of a slide that is not on screen
        elif isinstance(said, Opened):
            # Of the image that was predicted: another one may be chosen by now.
            if asked.image in self.viewer.layers:
                self._try_to_show(asked, said)
        elif self._live is None:
            return
        elif isinstance(said, Overview):
            self._live.lay(said)
        else:
            self._live.put(said)

    def _try_to_show(self, asked: Predicted, opened: Opened) -> None:
        try:
            self._begin_to_show(asked, opened)
        except PyramidError as error:  # turned since the start
            self.problem.say(f"The prediction goes on, but is not shown. {error}")

    def _begin_to_show(self, asked: Predicted, opened: Opened) -> None:
        name = f"{asked.image.name} · prediction"
        self._live = LivePrediction(
            self.viewer, asked.image, opened, name, self._look, self
        )
        um = um_of(asked.pyramid)
        self.shown.set_result(self._live.layer, opened.path, um is not None)
        self.shown.areas.follow(opened.levels, opened.model, um)
        self._pixel_size = um
        self.correct.set_result(
            Predicted(
                asked.image, asked.pyramid, asked.model, opened.model, asked.config,
                opened.path,
            )
        )  # fmt: skip

    def _look(self, box: Box) -> None:
        self.runner.send(Look(box))

    def _on_progress(self, events: list[Progress]) -> None:
        message = next((e.message for e in events if e.message), "")
        if message:
            self.problem.say(message)
        self.runner.said.emit(self._clock.words(events[-1]))
        if self._live is not None:
            opened = self._live.opened
            self.shown.areas.follow(opened.levels, opened.model, self._pixel_size)

    def _on_done(self, end: PredictionEnd) -> None:
        self._show_place(end.path)
        if end.stopped:
            self.runner.said.emit("Stopped; what is done is kept.")
        else:
            self.runner.said.emit(f"Done in {describe.duration(self._clock.spent)}.")
            self.shown.show_areas(end.areas)

    def _on_all_done(self, ends: Sequence[SlideEnd]) -> None:
        stopped = any(end.stopped for end in ends)
        spent = describe.duration(self._clock.spent)
        self.runner.said.emit(
            "Stopped; what is done is kept." if stopped else f"Done in {spent}."
        )
        kept, failed = said_of(ends)
        _say(self.result, kept)
        self.problem.say(failed)

    def _show_place(self, path: Path) -> None:
        _say(self.result, f"Kept as {path.name} {describe.place(path)}.")
        self.result.setToolTip(str(path))

    def _on_end(self) -> None:
        if self._live is not None:
            self._live.finish()
            self._live.deleteLater()
            self._live = None

    # ---- shorter pieces of work

    def _run(self, task: Task, on_success: Callable[[Any], None], words: str) -> None:
        """Run a task that shows its result in the page."""
        if self.runner.busy:
            return  # its button is disabled

        def done(result: Any) -> None:
            self.runner.said.emit("Done.")
            on_success(result)

        self.problem.say("")  # of another piece of work
        self.runner.said.emit(words)
        self.runner.start(task, on_success=done, on_failed=self.problem.say)

    def estimate(self) -> None:
        """Measure what the prediction would take."""
        asked = self._asked()
        if asked is not None:
            _, shown = asked
            task = EstimateTask(shown.pyramid, shown.model, shown.config)
            self._run(task, self._on_estimated, "Trying a few crops …")

    def _on_estimated(self, found: Estimated) -> None:
        tiles = "1 tile" if found.tiles == 1 else f"{found.tiles} tiles"
        _say(self.cost, f"It will take {found.words} ({tiles}).")
        self.problem.say(" ".join(found.notes))

    def _on_exported(self, export: Export) -> None:
        count = export.objects
        what = "1 object" if count == 1 else f"{count} objects"
        _say(
            self.result,
            f"{what} exported to {export.folder.name} {describe.place(export.folder)}.",
        )
        self.result.setToolTip(str(export.folder))

    def _on_busy(self, busy: bool) -> None:
        able = not busy and self.model.chosen is not None
        self.predict_button.setEnabled(able)
        self.estimate_button.setEnabled(able)
        self.shown.set_busy(busy)
        self.correct.set_busy(busy)
        if busy:
            _say(self.cost, "")
        else:
            self._say_what_is_begun()


def _say(label: QLabel, words: str) -> None:
    """Show words; an empty line takes no room."""
    label.setText(words)
    label.setVisible(bool(words))
