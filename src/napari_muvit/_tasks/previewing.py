"""The look of the coarse levels beneath a prediction, until its tiles are there.

A pixel of the look has the value of its label plus `LOOKED`, so that it is told from
what is predicted: by its colour, by its name under the cursor, and when it is taken
away again. None of it gets into the store.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.config import ModelConfig, PredictionConfig
from ..core.data.pyramid import Pyramid
from ..core.prediction.contexts import has_preview
from .growing import GrowingLevels, PixelBox, as_slices

LOOKED = 128
"""Added to the labels of a look; models with as many classes have none."""
MOST_CROPS = 300
"""For which a look takes a few seconds; the first tile must not wait longer."""
CORE = 0.75
"""Share of the edge of a coarse crop that it speaks for."""


@dataclass(frozen=True, eq=False, slots=True)
class Overview:
    """Labels of a slide as coarse levels see it."""

    labels: NDArray[np.uint8]
    """(h, w), 0 where nothing was seen."""
    scale: tuple[float, float]
    """Slide pixels per pixel."""
    translation: tuple[float, float]
    """Centre of pixel 0, where slide pixel 0 has its centre at 0."""

    def at(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp], step: int
    ) -> NDArray[np.uint8]:
        """Values of pixels of a level of ``step`` slide pixels, `LOOKED` added."""
        picks = []
        for axis, places in enumerate((rows, columns)):
            centres = (places + 0.5) * step - 0.5
            at = np.round((centres - self.translation[axis]) / self.scale[axis])
            last = self.labels.shape[axis] - 1
            picks.append(np.clip(at, 0, last).astype(np.intp))
        seen = self.labels[np.ix_(*picks)]
        return np.where(seen > 0, seen + np.uint8(LOOKED), np.uint8(0))


def can_look(image: Pyramid, model: ModelConfig, config: PredictionConfig) -> bool:
    """Whether a model has a look, and it takes a few seconds only."""
    if not has_preview(model) or model.num_classes >= LOOKED:
        return False
    view = image.viewed_at(model.pixel_size)
    shape = view.extent.shape
    if config.region is not None:
        y0, x0, y1, x1 = config.region
        shape = ((y1 - y0) * view.zoom[0], (x1 - x0) * view.zoom[1])
    edge = CORE * model.crop_size * model.scale_factors[-1]
    # The parts of the region need not lie on the edges of crops.
    return math.prod(math.ceil(n / edge) + 1 for n in shape) <= MOST_CROPS


class UnderlaidLevel:
    """A level on the disk that shows a look where nothing is predicted.

    Parameters
    ----------
    level
        (h, w) uint8.
    step
        Slide pixels along the edge of one of its pixels.
    """

    def __init__(self, level: Any, step: int) -> None:
        self.level = level
        self.step = step
        self.look: Overview | None = None
        self.shape: tuple[int, int] = level.shape
        self.dtype = level.dtype
        self.ndim = 2
        self.chunks: tuple[int, int] = level.chunks

    @property
    def size(self) -> int:
        """Pixels."""
        return math.prod(self.shape)

    def lay(self, box: PixelBox, labels: NDArray[np.uint8]) -> None:
        """Show a tile until the level has it."""
        self.level.lay(box, labels)

    def __getitem__(self, key: Any) -> Any:
        out = np.asarray(self.level[key])
        if self.look is None:
            return out
        rows, columns = (
            np.arange(length)[part]
            for part, length in zip(as_slices(key), self.shape, strict=True)
        )
        return np.where(out > 0, out, self.look.at(rows, columns, self.step))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:, :], dtype=dtype)


def underlaid(levels: GrowingLevels) -> GrowingLevels:
    """Return levels that can show a look; the numpy ones are the same arrays."""
    shown = [
        level if index >= levels.first else UnderlaidLevel(level, 2**index)
        for index, level in enumerate(levels.levels)
    ]
    return GrowingLevels(shown, levels.first)


def lay_look(levels: GrowingLevels, look: Overview) -> None:
    """Show a look wherever nothing is predicted."""
    for index, level in enumerate(levels.levels):
        if isinstance(level, UnderlaidLevel):
            level.look = look
        elif index >= levels.first:
            rows, columns = (np.arange(n) for n in level.shape)
            np.copyto(level, look.at(rows, columns, 2**index), where=level == 0)


def clear_look(levels: GrowingLevels) -> None:
    """Take a look away again."""
    for index, level in enumerate(levels.levels):
        if isinstance(level, UnderlaidLevel):
            level.look = None
        elif index >= levels.first:
            level[level > LOOKED] = 0
