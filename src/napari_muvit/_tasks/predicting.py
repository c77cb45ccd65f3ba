"""Predict a slide, what is on screen first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.config import ModelConfig, PredictionConfig
from ..core.data.pyramid import Pyramid
from ..core.errors import OutputError
from ..core.geometry import Box
from ..core.model.checkpoint import read_config
from ..core.progress import Progress
from .base import Commands, make_folder
from .commands import Look
from .growing import GrowingLevels, Tile


@dataclass(frozen=True, slots=True)
class Opened:
    """A prediction has begun."""

    path: Path
    """Its store."""
    model: ModelConfig
    """For names and colours."""
    levels: GrowingLevels
    """What is there of it already."""


@dataclass(frozen=True, slots=True)
class PredictionEnd:
    """How a prediction ended."""

    path: Path
    stopped: bool
    """Whether the user ended it; predicting again goes on."""


@dataclass(frozen=True, slots=True)
class PredictTask:
    """Predict one slide; tells `Opened`, then each `Tile`; follows `Look`."""

    image: Pyramid
    model: Path
    config: PredictionConfig
    outputs: Sequence[Path]
    """Places for the result, best first; another model's output is left alone."""
    focus: Box | None

    def __str__(self) -> str:
        return "MuViT prediction"

    __repr__ = __str__

    def __call__(
        self,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
        commands: Commands,
    ) -> PredictionEnd:
        """Call `predict` and pass its tiles on."""
        run, path = self._open(on_progress, should_stop)
        with run:
            _focus(run, self.focus)
            threading.Thread(target=_follow, args=(run, commands), daemon=True).start()
            levels = GrowingLevels.from_store(run.levels)
            tell(Opened(path, read_config(self.model), levels))
            for tile in run:
                tell(Tile(tile.box, tile.labels))
        return PredictionEnd(path, run.stopped)

    def _open(
        self,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> tuple[Any, Path]:
        from ..core.prediction import predict

        taken: OutputError | None = None
        for path in self.outputs:
            make_folder(path.parent)
            try:
                run = predict(
                    self.image,
                    self.model,
                    self.config,
                    out=path,
                    on_progress=on_progress,
                    should_stop=should_stop,
                )
            except OutputError as error:
                if not path.exists():
                    raise  # a full or read-only disk, not somebody else's output
                taken = error
            else:
                return run, path
        raise taken or OutputError("There is no place for the result.")


def _focus(run: Any, box: Box | None) -> None:
    if box is not None:
        run.focus((*box.lower, *box.upper))


def _follow(run: Any, commands: Commands) -> None:
    """Tell the run where the user looks, until it has ended."""
    seen: Iterator[Any] = iter(commands.get, None)
    for command in seen:
        if isinstance(command, Look):
            _focus(run, command.box)
