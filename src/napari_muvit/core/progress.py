"""Progress and cancelling: two plain callables; core knows no user interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .errors import Cancelled

Stage = Literal[
    "prepare", "levels", "train", "validate", "preview", "predict", "evaluate",
    "export", "write",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One event of a long piece of work."""

    stage: Stage
    """What is being done."""
    done: float
    """Finished amount; ``done <= total``."""
    total: float
    """Whole amount in the same unit (steps, tiles, seconds of a time budget)."""
    unit: str = ""
    """What is counted, for display: ``step``, ``tile``, ``s``."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Numbers to show, such as ``loss``, ``val_loss``, ``mDSC``, ``step``."""
    subject: str = ""
    """Which of several things it is about, such as the name of a slide."""
    message: str = ""
    """A sentence for the user, when there is something to say."""

    @property
    def fraction(self) -> float:
        """Finished share between 0 and 1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0


ProgressFn = Callable[[Progress], None]
StopFn = Callable[[], bool]


def ignore_progress(_event: Progress) -> None:
    """Drop the event; the default of every ``on_progress``."""


def never_stop() -> bool:
    """Go on; the default of every ``should_stop``."""
    return False


def check_stop(should_stop: StopFn) -> None:
    """Raise `Cancelled` when the user asked to stop."""
    if should_stop():
        raise Cancelled("Stopped on request; what was finished is kept.")
