"""*Copy script*: the step that is shown, as Python in the clipboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtGui import QGuiApplication

from .._layers import layer_path, shown_planes
from .._tasks.predicting import PredictTask
from ..core.errors import MuvitError
from .scripts import (
    SlideSource,
    annotate_script,
    open_script,
    predict_script,
    train_script,
)
from .training_data import annotated_slides

if TYPE_CHECKING:
    from .panel import MuViTPanel

DATA, ANNOTATE, TRAIN, PREDICT = range(4)


class ScriptCopier:
    """Writes scripts of the panel's pages.

    Parameters
    ----------
    panel
        The panel.
    say
        Told what was done, or why not.
    """

    def __init__(self, panel: MuViTPanel, say: Callable[[str], None]) -> None:
        self._panel = panel
        self._say = say

    def copy(self) -> None:
        """Put the script of the page that is shown into the clipboard."""
        try:
            script = self.script(self._panel.pages.currentIndex())
        except MuvitError as error:
            self._say(str(error))
            return
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(script)
        self._say("Copied: Python that does this step without the window.")

    def script(self, step: int) -> str:
        """Return the script of a step.

        Raises
        ------
        MuvitError
            If something is missing, or lies in memory only.
        """
        if step == TRAIN:
            return train_script(self._panel.train.task(), self._training_sources())
        source = self._shown()
        if step == ANNOTATE:
            return annotate_script(source)
        if step == PREDICT:
            task = self._panel.predict.task()
            if not isinstance(task, PredictTask):
                raise MuvitError(
                    "A script predicts one slide; choose another region than all "
                    "ticked slides."
                )
            return predict_script(task, source)
        return open_script(source)

    def _shown(self) -> SlideSource:
        """Return where the slide of the Data page is from."""
        panel = self._panel
        pyramid, entry = panel.data.pyramid(), panel.state.shown
        image = panel.data.image.layer
        planes = shown_planes(image, panel.viewer.dims.point)
        path = pyramid.path
        if path is None and planes is not None:
            path = layer_path(image)  # one plane of a file
        if entry is None:
            return SlideSource(pyramid.name, path, planes=planes or {})
        return SlideSource(
            pyramid.name, path, entry.channels, planes or {}, entry.pixel_size,
            panel.annotate.slide.path if panel.annotate.slide else None,
        )  # fmt: skip

    def _training_sources(self) -> list[SlideSource]:
        """Return the slides that `TrainPage.task` trains on, in its order."""
        state = self._panel.state
        if state.shown is None or not state.slides:
            return [self._shown()]
        sources = []
        for slide in annotated_slides(state, self._panel.annotate):
            entry = slide.entry
            sources.append(
                self._shown()
                if entry is state.shown
                else SlideSource(
                    entry.name, entry.path, entry.channels, {}, entry.pixel_size,
                    entry.project,
                )
            )  # fmt: skip
        return sources
