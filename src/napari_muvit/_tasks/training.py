"""Train on annotated slides: live, with the user's strokes, or thoroughly."""

from __future__ import annotations

import queue
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.config import ModelConfig, TrainingConfig
from ..core.data.annotations import Annotations
from ..core.data.pyramid import Pyramid
from ..core.errors import Cancelled
from ..core.geometry import Box
from ..core.progress import Progress
from .base import Commands, make_folder
from .commands import Annotate, Discard, Look, Pause
from .screen import Screen

if TYPE_CHECKING:
    from ..core import InteractiveTrainer

SAVE_SECONDS = 30.0
"""Between two times at which the model is saved, in case of a crash."""
FIRST_SAVE_STEPS = 20
HELD_SECONDS = 0.05
"""Between two looks for the end of a pause."""
HARD_PLACES = 8
HARD_SECONDS = 10.0
"""Between two times at which the places of most errors are told."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A model in a folder, and how it came about."""

    path: Path
    config: ModelConfig
    best: Mapping[str, float]
    """``mDSC`` and ``Dice NAME``."""
    stopped: bool
    """Whether the user ended it."""
    steps: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hard:
    """Where the model errs most: slide number, box in its pixels, share wrong."""

    places: tuple[tuple[int, Box, float], ...]


@dataclass(frozen=True, slots=True)
class _Training:
    """What is to be trained on, how, and where the model goes."""

    images: tuple[Pyramid, ...]
    annotations: tuple[Annotations, ...]
    config: TrainingConfig
    model: ModelConfig | None
    start: Path | None
    out: Path
    look: Box | None = None

    def __str__(self) -> str:
        return "MuViT training"

    __repr__ = __str__


@dataclass(frozen=True, slots=True, repr=False)
class TrainTask(_Training):
    """Train with validation on held-out places; the best weights are kept.

    A run at the same folder that was stopped or killed is continued. Follows `Pause`
    and `Discard`, and `Look` with pictures by the best weights so far.
    """

    def __call__(
        self,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
        commands: Commands,
    ) -> Trained:
        """Call `finetune`."""
        from ..core.training import finetune

        make_folder(self.out.parent)
        screen = Screen(self.images[0], self.look, self.config.num_threads, tell)
        user = User(commands, should_stop, screen)

        def follow(event: Progress) -> None:
            on_progress(event)
            user.listen()
            if event.stage == "validate" and event.done and screen.due:
                _show_saved(screen, self.out, event, user.should_stop)

        result = finetune(
            list(self.images),
            list(self.annotations),
            self.config,
            model=self.model,
            start=self.start,
            out=self.out,
            resume=self.out.exists(),
            on_progress=follow,
            should_stop=user.should_stop,
        )
        user.drop_if_unwanted(self.out)
        return Trained(
            Path(result.model_path), result.config, result.best,
            result.stopped == "stopped", result.steps, tuple(result.notes),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class LiveTrainTask(_Training):
    """Train on annotations that change; the averaged weights are kept.

    Follows `Annotate`, `Look`, `Pause` and `Discard`; tells `ScreenPicture` and `Hard`.
    """

    def __call__(
        self,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
        commands: Commands,
    ) -> Trained:
        """Run an `InteractiveTrainer`."""
        from ..core import InteractiveTrainer

        make_folder(self.out.parent)
        trainer = InteractiveTrainer(
            list(self.images), list(self.annotations), self.config,
            model=self.model, start=self.start,
        )  # fmt: skip
        screen = Screen(self.images[0], self.look, self.config.num_threads, tell)
        user = User(commands, should_stop, screen, trainer)
        watch = _Watch(trainer, screen, user, on_progress, tell, self.out)
        stopped = False
        try:
            trainer.run(watch, user.should_stop)
        except Cancelled:
            user.drop_if_unwanted(self.out)
            if trainer.steps == 0:
                raise
            stopped = True
        watch.save()
        return Trained(self.out, trainer.config, watch.figures, stopped, trainer.steps)


class User:
    """Does what the user asks for in the midst of a training."""

    def __init__(
        self,
        commands: Commands,
        should_stop: Callable[[], bool],
        screen: Screen | None = None,
        trainer: InteractiveTrainer | None = None,
    ) -> None:
        self._commands = commands
        self._asked = should_stop
        self._screen = screen
        self._trainer = trainer
        self._held = self._unwanted = False

    def should_stop(self) -> bool:
        """Whether to end; also before the first step, where nothing else listens."""
        self._take_all()
        return self._unwanted or self._asked()

    def listen(self) -> None:
        """Take what has come, and wait while the user holds the training."""
        self._take_all()
        while not self.should_stop() and self._held:
            time.sleep(HELD_SECONDS)

    def drop_if_unwanted(self, folder: Path) -> None:
        """Delete the model of a discarded training.

        Raises
        ------
        Cancelled
            If it was discarded.
        """
        if self._unwanted:
            shutil.rmtree(folder, ignore_errors=True)
            raise Cancelled("Discarded; no model was kept.")

    def _take_all(self) -> None:
        while True:
            try:
                self._take(self._commands.get_nowait())
            except queue.Empty:
                return

    def _take(self, command: Any) -> None:
        if isinstance(command, Pause):
            self._held = command.held
        elif isinstance(command, Discard):
            self._unwanted = True
        elif isinstance(command, Look) and self._screen is not None:
            self._screen.look(command.box)
        elif isinstance(command, Annotate) and self._trainer is not None:
            self._trainer.annotate(command.slide, command.annotations)
            if self._screen is not None:
                self._screen.stroke()


class _Watch:
    """What happens between two steps of a live training."""

    def __init__(
        self,
        trainer: InteractiveTrainer,
        screen: Screen,
        user: User,
        on_progress: Callable[[Progress], None],
        tell: Callable[[object], None],
        out: Path,
    ) -> None:
        self.figures: dict[str, float] = {}
        self._trainer, self._screen, self._user = trainer, screen, user
        self._on_progress, self._tell, self._out = on_progress, tell, out
        self._saved_at = self._told_at = time.monotonic()

    def __call__(self, event: Progress) -> None:
        if event.stage == "train":
            self.figures = {
                k: v for k, v in event.metrics.items() if k == "mDSC" or "Dice" in k
            }
        self._on_progress(event)
        self._user.listen()
        if event.stage != "train" or self._user.should_stop():
            return
        now = time.monotonic()
        if self._screen.due:
            self._screen.take(
                self._trainer.snapshot(), self._trainer.steps, self._user.should_stop
            )
        if now - self._told_at > HARD_SECONDS:
            self._told_at = now
            worst = self._trainer.hard_places(HARD_PLACES)
            self._tell(Hard(tuple((p.slide, p.box, p.wrong) for p in worst)))
        if (
            now - self._saved_at > SAVE_SECONDS
            and self._trainer.steps >= FIRST_SAVE_STEPS
        ):
            self.save()

    def save(self) -> None:
        """Write the model as it is."""
        self._saved_at = time.monotonic()
        self._trainer.save(self._out)


def _show_saved(
    screen: Screen, folder: Path, event: Progress, should_stop: Callable[[], bool]
) -> None:
    """Show what the best model so far, which lies in a folder, makes of the screen."""
    from ..core.model.checkpoint import load_model

    if (folder / "config.json").exists():
        steps = int(event.metrics.get("step", 0))
        screen.take(load_model(folder), steps, should_stop)
