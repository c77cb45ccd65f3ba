"""What is common to the tasks."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import OutputError
from ..core.progress import Progress

Commands = queue.SimpleQueue[Any]
"""What the user does meanwhile; None when the task has ended."""


class Task(Protocol):
    """What a job runs, outside the GUI thread."""

    def __call__(
        self,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
        commands: Commands,
    ) -> object:
        """Do the work; ``tell`` hands anything but progress to the GUI thread."""


def make_folder(folder: Path) -> None:
    """Make a folder for results.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made ({error.strerror}), so there is no place for the "
            "result. Make room there, or give yourself the right to write."
        ) from error
