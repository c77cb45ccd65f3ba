"""Predict a slide, what is on screen first."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.config import ModelConfig, PredictionConfig
from ..core.data.pyramid import Pyramid
from ..core.data.units import micrometres
from ..core.errors import Cancelled, OutputError
from ..core.geometry import Box
from ..core.model.checkpoint import read_config
from ..core.prediction.areas import ClassArea, class_areas, count_prediction
from ..core.prediction.store import read_marks
from ..core.progress import Progress
from .base import Commands, make_folder
from .commands import Look
from .growing import GrowingLevels, PixelBox, Tile
from .previewing import Overview, can_look, underlaid


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
    areas: tuple[ClassArea, ...] = ()
    """What each class covers, exactly; empty of one that was stopped."""


@dataclass(frozen=True, slots=True)
class PredictTask:
    """Predict a slide; tells `Opened`, `Overview`, each `Tile`; follows `Look`."""

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
        model = read_config(self.model)
        look = self.config.preview and can_look(self.image, model, self.config)
        run, path = self._open(on_progress, should_stop, look)
        with run:
            _focus(run, self.focus)
            threading.Thread(target=_follow, args=(run, commands), daemon=True).start()
            tell(Opened(path, model, underlaid(GrowingLevels.from_store(run.levels))))
            preview = run.make_preview() if look else None
            if preview is not None:
                tell(Overview(preview.labels, preview.scale, preview.translation))
            before, told = read_marks(path), set[PixelBox]()
            for tile in run:
                told.add(tile.box)
                tell(Tile(tile.box, tile.labels))
        if run.stopped:
            for tile in _untold(run, path, before, told):
                tell(tile)
            return PredictionEnd(path, stopped=True)
        return PredictionEnd(
            path, stopped=False, areas=_areas(path, model, self.image, should_stop)
        )

    def _open(
        self,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        look: bool,
    ) -> tuple[Any, Path]:
        from ..core.prediction import predict

        taken: OutputError | None = None
        for path in self.outputs:
            make_folder(path.parent)
            try:
                run = predict(
                    self.image,
                    self.model,
                    dataclasses.replace(self.config, preview=look),
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


def um_of(image: Pyramid) -> tuple[float, ...] | None:
    """Return the edges (y, x) of a pixel in micrometres; None: not known."""
    unit = micrometres(image.unit)
    if image.pixel_size is None or unit is None:
        return None
    return tuple(float(v) * unit for v in image.pixel_size)


def _areas(
    path: Path, model: ModelConfig, image: Pyramid, should_stop: Callable[[], bool]
) -> tuple[ClassArea, ...]:
    """What each class covers; nothing if the user does not want to wait."""
    try:
        counts = count_prediction(path, should_stop=should_stop)
    except Cancelled:
        return ()
    return class_areas(counts, model.names, model.colors, um_of(image))


def _untold(
    run: Any, path: Path, before: NDArray[np.uint8], told: set[PixelBox]
) -> Iterator[Tile]:
    """Tiles that were finished while the run was being stopped."""
    for index in np.flatnonzero((read_marks(path) > 0) & (before == 0)):
        y0, x0, y1, x1 = box = run.plan.tile(int(index)).box
        if box not in told:
            yield Tile(box, np.asarray(run.levels[0][y0:y1, x0:x1]))


def _focus(run: Any, box: Box | None) -> None:
    if box is not None:
        run.focus((*box.lower, *box.upper))


def _follow(run: Any, commands: Commands) -> None:
    """Tell the run where the user looks, until it has ended."""
    seen: Iterator[Any] = iter(commands.get, None)
    for command in seen:
        if isinstance(command, Look):
            _focus(run, command.box)
