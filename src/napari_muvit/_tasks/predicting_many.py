"""Predict the slides of a project, one after the other.

Each goes its own way (`PredictTask`): it is gone on with where it was begun, has its
own place for the result, and shows its tiles. A slide that cannot be read does not keep
the others from being done.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..core.config import PredictionConfig
from ..core.data.open import open_pyramid
from ..core.data.pyramid import Pyramid
from ..core.errors import Cancelled, MuvitError
from ..core.geometry import Box
from ..core.progress import Progress
from .base import Commands
from .predicting import PredictTask


@dataclass(frozen=True, slots=True)
class Slide:
    """A slide to be predicted."""

    name: str
    source: Pyramid | Path
    """Opened already, or a file that is opened when it is due."""
    outputs: tuple[Path, ...]
    """Places for the result, best first."""
    channels: tuple[int, ...] | None = None
    """Of the file; None: all."""
    pixel_size: float | None = None
    """Micrometres, instead of what the file says."""

    def open(self) -> Pyramid:
        """Open the slide.

        Raises
        ------
        PyramidError
            If it cannot be read.
        """
        if isinstance(self.source, Pyramid):
            return self.source
        return open_pyramid(
            self.source, channels=self.channels, pixel_size=self.pixel_size
        )


@dataclass(frozen=True, slots=True)
class SlideBegun:
    """What is told from now on is of another slide."""

    number: int
    """From 0."""


@dataclass(frozen=True, slots=True)
class SlideEnd:
    """What became of a slide."""

    name: str
    path: Path | None
    """Of its prediction; None where there is none."""
    stopped: bool = False
    error: str = ""
    """Why it could not be done; empty where it could."""


@dataclass(frozen=True, slots=True)
class PredictManyTask:
    """Predict slides; tells `SlideBegun`, then what `PredictTask` tells."""

    slides: tuple[Slide, ...]
    model: Path
    config: PredictionConfig
    focus: Box | None
    """What is on screen of the first slide."""

    def __str__(self) -> str:
        return "MuViT prediction of several slides"

    __repr__ = __str__

    def __call__(
        self,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
        commands: Commands,
    ) -> tuple[SlideEnd, ...]:
        """Predict one slide after the other, until all are done or it is stopped."""
        ends: list[SlideEnd] = []
        with _Relay(commands) as relay:
            for number, slide in enumerate(self.slides):
                tell(SlideBegun(number))
                title = f"{slide.name} ({number + 1} of {len(self.slides)})"

                def hear(event: Progress, title: str = title) -> None:
                    on_progress(dataclasses.replace(event, subject=title))

                focus = None if number else self.focus
                with relay.of_one() as mine:
                    ends.append(self._one(slide, focus, hear, should_stop, tell, mine))
                if ends[-1].stopped:
                    break
        return tuple(ends)

    def _one(
        self,
        slide: Slide,
        focus: Box | None,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
        commands: Commands,
    ) -> SlideEnd:
        try:
            task = PredictTask(
                slide.open(), self.model, self.config, slide.outputs, focus
            )
            end = task(
                on_progress=on_progress, should_stop=should_stop, tell=tell,
                commands=commands,
            )  # fmt: skip
        except Cancelled:
            return SlideEnd(slide.name, None, stopped=True)
        except MuvitError as error:
            return SlideEnd(slide.name, None, error=" ".join(str(error).split()))
        return SlideEnd(slide.name, end.path, end.stopped)


class _Relay:
    """Gives what the user does to the slide that is at work."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._lock = threading.Lock()
        self._mine: Commands | None = None

    def __enter__(self) -> _Relay:
        threading.Thread(target=self._pass_on, daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        # The thread ends with the commands.
        self._mine = None

    @contextmanager
    def of_one(self) -> Iterator[Commands]:
        """Commands for one slide, which end with it."""
        mine: Commands = queue.SimpleQueue()
        with self._lock:
            self._mine = mine
        try:
            yield mine
        finally:
            with self._lock:
                self._mine = None
            mine.put(None)

    def _pass_on(self) -> None:
        for command in iter(self._commands.get, None):
            with self._lock:
                if self._mine is not None:
                    self._mine.put(command)
