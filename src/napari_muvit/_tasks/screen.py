"""What a model in training makes of the part of the slide that is on screen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.config import PredictionConfig
from ..core.data.pyramid import Pyramid
from ..core.errors import Cancelled, MuvitError
from ..core.geometry import Box
from .growing import PixelBox

LONGEST = 1024
"""Edge of a picture in pixels, at most; on screen they are not smaller."""
FINE_SECONDS = 2.0
"""Time for the finest level; what is not looked at by then stays as coarse levels see
it."""
REST_SHARE = 6.0
"""Time of training behind each picture, in times that it took."""
LEAST_SECONDS = 2.0
"""Of training between two pictures of the same place."""
LEAST_AFTER_LOOK = 0.5
AFTER_STROKE = 4.0
"""Seconds of training behind a new stroke before the screen is looked at again."""


@dataclass(frozen=True, slots=True)
class ScreenPicture:
    """Labels of what is on screen."""

    box: PixelBox
    """(y0, x0, y1, x1) in pixels of the slide's finest level."""
    step: int
    """Slide pixels a pixel of ``labels``."""
    labels: NDArray[np.uint8]
    """(ceil(h / step), ceil(w / step)); 0 where nothing was looked at."""
    trained_steps: int
    """Of the model."""


class Screen:
    """Makes such pictures while a training goes on, and not too often.

    Parameters
    ----------
    image
        The slide.
    box
        What is on screen at first.
    num_threads
        Of torch.
    show
        Told of each picture.
    """

    def __init__(
        self,
        image: Pyramid,
        box: Box | None,
        num_threads: int | None,
        show: Callable[[ScreenPicture], None],
    ) -> None:
        self.image = image
        self._show = show
        self._num_threads = num_threads
        self._box = box
        self._next = 0.0

    def look(self, box: Box | None) -> None:
        """Look at another part from now on."""
        if box == self._box:
            return
        self._box = box
        self._next = min(self._next, time.monotonic() + LEAST_AFTER_LOOK)

    def stroke(self) -> None:
        """Something was drawn: look again when it was learned from for a moment."""
        self._next = min(self._next, time.monotonic() + AFTER_STROKE)

    @property
    def due(self) -> bool:
        """Whether it is time for a picture."""
        return self._box is not None and time.monotonic() >= self._next

    def take(
        self, network: Any, trained_steps: int, should_stop: Callable[[], bool]
    ) -> None:
        """Make a picture by a model and show it; a model that cannot shows nothing.

        Raises
        ------
        Cancelled
            If it was stopped.
        """
        if self._box is None:
            return
        began = time.monotonic()
        canvas = _Canvas.over(self._box, self.image)
        try:
            self._paint(canvas, network, should_stop)
        except Cancelled:
            raise
        except MuvitError:
            # Training says what is wrong with the slide or the model.
            self._next = math.inf
            return
        self._show(ScreenPicture(canvas.box, canvas.step, canvas.labels, trained_steps))
        spent = time.monotonic() - began
        self._next = time.monotonic() + max(LEAST_SECONDS, REST_SHARE * spent)

    def _paint(
        self, canvas: _Canvas, network: Any, should_stop: Callable[[], bool]
    ) -> None:
        from ..core import predict, preview_slide
        from ..core.prediction.contexts import has_preview

        config = PredictionConfig(
            region=canvas.box, overlap=0.0, num_threads=self._num_threads
        )
        if has_preview(network.config):
            coarse = preview_slide(self.image, network, config, should_stop=should_stop)
            canvas.lay_coarse(coarse.labels, coarse.scale, coarse.translation)
        until = time.monotonic() + FINE_SECONDS
        with predict(
            self.image, network, config,
            should_stop=lambda: should_stop() or time.monotonic() > until,
        ) as run:  # fmt: skip
            run.focus(canvas.middle)
            for tile in run:
                canvas.lay(tile.box, tile.labels)
        if should_stop():
            raise Cancelled("Stopped.")


@dataclass(frozen=True)
class _Canvas:
    """A picture in the making."""

    box: PixelBox
    step: int
    labels: NDArray[np.uint8]

    @classmethod
    def over(cls, box: Box, image: Pyramid) -> _Canvas:
        height, width = image.shape
        y0, x0 = (int(max(0, math.floor(v))) for v in box.lower)
        y1, x1 = (
            int(min(n, math.ceil(v)))
            for v, n in zip(box.upper, (height, width), strict=True)
        )
        y1, x1 = max(y1, y0 + 1), max(x1, x0 + 1)
        step = 1
        while max(y1 - y0, x1 - x0) > LONGEST * step:
            step *= 2
        shape = (-(-(y1 - y0) // step), -(-(x1 - x0) // step))
        return cls((y0, x0, y1, x1), step, np.zeros(shape, dtype=np.uint8))

    @property
    def middle(self) -> PixelBox:
        """A small box in the middle: what the user most likely looks at."""
        y0, x0, y1, x1 = self.box
        y, x = (y0 + y1) // 2, (x0 + x1) // 2
        return y, x, y + 1, x + 1

    def _places(self, axis: int) -> NDArray[np.float64]:
        """Slide pixels (edge to edge) of the centres of the pixels along an axis."""
        count = self.labels.shape[axis]
        first, last = self.box[axis], self.box[axis + 2]
        centres = first + (np.arange(count) + 0.5) * self.step
        return np.asarray(np.minimum(centres, last - 0.5), dtype=np.float64)

    def lay_coarse(
        self,
        labels: NDArray[np.uint8],
        scale: tuple[float, float],
        translation: tuple[float, float],
    ) -> None:
        """Fill everything from an image of the whole slide."""
        picks = []
        for axis in range(2):
            # Centres of pixels: where slide pixel 0 has its centre at 0.
            where = (self._places(axis) - 0.5 - translation[axis]) / scale[axis]
            picks.append(
                np.clip(np.round(where).astype(np.intp), 0, labels.shape[axis] - 1)
            )
        self.labels[...] = labels[np.ix_(*picks)]

    def lay(self, box: PixelBox, labels: NDArray[np.uint8]) -> None:
        """Lay a tile of the finest level over it."""
        picks, targets = [], []
        for axis in range(2):
            where = np.floor(self._places(axis)).astype(np.intp) - box[axis]
            inside = np.flatnonzero((where >= 0) & (where < labels.shape[axis]))
            picks.append(where[inside])
            targets.append(inside)
        if all(len(t) for t in targets):
            part = labels[np.ix_(*picks)]
            old = self.labels[np.ix_(*targets)]
            self.labels[np.ix_(*targets)] = np.where(part > 0, part, old)
