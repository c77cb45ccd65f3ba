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
    """Knows whether a training runs, here or until a crash."""

    def __init__(self) -> None:
        self.running = False
        self.unfinished: Unfinished | None = find(user_folder())

    def begin(self, out: Path, slide: str) -> None:
        """A training begins."""
        self.running = True
        remember(user_folder(), out, slide)

    def end(self) -> None:
        """It has ended, in whatever way."""
        if self.running:
            forget(user_folder())
        self.running = False

    def drop(self) -> None:
        """Forget the one that a crash has ended."""
        self.unfinished = None
        forget(user_folder())
