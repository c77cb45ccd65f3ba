"""The two pieces of long work: calls into the core, made in a worker thread.

torch and lightning take seconds to import, so the core's training and prediction are
imported here and only when a task runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.config import ModelConfig, PredictionConfig, TrainingConfig
from ..core.data.annotations import Annotations
from ..core.data.pyramid import Pyramid
from ..core.errors import OutputError
from ..core.geometry import Box
from ..core.model.checkpoint import read_config
from ..core.progress import Progress
from .streaming import GrowingLevels, Output

if TYPE_CHECKING:
    from ..core.training import TrainingResult

MAX_OUTPUTS = 100
"""Predictions of one image that may lie side by side."""


@dataclass(frozen=True, slots=True)
class TrainTask:
    """Train a model on one slide."""

    image: Pyramid
    annotations: Annotations
    config: TrainingConfig
    model: ModelConfig | None
    start: Path | None
    out: Path

    def __str__(self) -> str:
        return "MuViT training"

    __repr__ = __str__

    def __call__(
        self,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
    ) -> TrainingResult:
        """Call `finetune`."""
        from ..core.training import finetune

        _make_folder(self.out.parent)
        return finetune(
            [self.image],
            [self.annotations],
            self.config,
            model=self.model,
            start=self.start,
            out=self.out,
            on_progress=on_progress,
            should_stop=should_stop,
        )


@dataclass(frozen=True, slots=True)
class PredictTask:
    """Predict one slide, what is on screen first."""

    image: Pyramid
    model: Path
    config: PredictionConfig
    outputs: Iterator[Path]
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
    ) -> Path:
        """Call `predict` and pass its tiles on."""
        run, path = self._open(on_progress, should_stop)
        if self.focus is not None:
            run.focus((*self.focus.lower, *self.focus.upper))
        levels = GrowingLevels.from_store(run.levels)
        output = Output(run, read_config(self.model), levels)
        tell(output)
        for tile in run:
            output.tiles.put(tile)
        return path

    def _open(
        self,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> tuple[Any, Path]:
        from ..core.prediction import predict

        taken: OutputError | None = None
        for path in islice(self.outputs, MAX_OUTPUTS):
            _make_folder(path.parent)
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


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made ({error.strerror}), so there is no place for the "
            "result. Make room there, or give yourself the right to write."
        ) from error
