"""What a training leaves: a model in the list, and a note while it runs."""

from __future__ import annotations

import time
from pathlib import Path

from .._tasks.training import Trained
from .places import user_folder
from .state import PanelState, SavedModel
from .unfinished import Unfinished, find, forget, remember


def remember_trained(state: PanelState, result: Trained) -> tuple[SavedModel, str]:
    """Put a new model first in the list; return it and how good it is, in words."""
    quality = result.best.get("mDSC")
    known = "" if quality is None else f" · mDSC {quality:.2f}"
    title = f"trained {time.strftime('%H:%M')}{known}"
    model = SavedModel(result.path, result.config, title)
    state.remember(model)
    return model, known


class TrainingNotes:
    """Knows whether a training runs, and which one was cut off."""

    def __init__(self) -> None:
        self.unfinished: Unfinished | None = find(user_folder())
        self._now: Unfinished | None = None
        self.warning = ""

    @property
    def running(self) -> bool:
        """Whether a training runs here."""
        return self._now is not None

    def begin(self, out: Path, slide: str, warning: str = "") -> None:
        """A training begins, of which something is to be said again at its end."""
        self.warning = warning
        self._now = remember(user_folder(), out, slide)

    def fail(self) -> str:
        """It has failed; what it had saved can be gone on with, as is said."""
        if self._now is None or not self._now.has_model:
            return ""
        self.unfinished = self._now
        return " Continue goes on from what was saved."

    def end(self) -> None:
        """It has ended, in whatever way."""
        if self._now is not None and self._now is not self.unfinished:
            forget(user_folder(), self._now)
        self._now = None

    def drop(self) -> None:
        """Forget the one that was cut off."""
        if self.unfinished is not None:
            forget(user_folder(), self.unfinished)
        self.unfinished = None
