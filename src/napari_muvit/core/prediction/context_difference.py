"""Where a prediction rests on its context: the same region with and without it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import Cancelled, ConfigError
from ..progress import Progress, ProgressFn, StopFn, ignore_progress, never_stop
from .checks import PixelBox
from .entry import Model, load_models, predict
from .hidden_context import WithoutContext
from .suggestions import Suggestion, best_places

if TYPE_CHECKING:
    from torch import nn

    from ..config import PredictionConfig
    from ..data.cache_settings import CacheSettings
    from ..data.pyramid import Pyramid

MOST_PIXELS = 4096**2
"""Of a region: it is held in memory, and predicted twice."""
TILE = 128
"""Edge of a tile, so that little around the region is predicted with it."""

Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False, slots=True)
class ContextDifference:
    """What a model says of a region with and without the surroundings."""

    box: PixelBox
    """(y0, x0, y1, x1) in pixels of the slide's finest level."""
    with_context: Labels
    """(h, w) uint8, 1..K; 0 where there is no answer."""
    without: Labels
    """The same, with the context hidden (see `WithoutContext`)."""
    places: tuple[Suggestion, ...]
    """Where most changed, first; empty where nothing did."""

    @property
    def changed(self) -> NDArray[np.bool_]:
        """(h, w): where the two differ."""
        both = (self.with_context > 0) & (self.without > 0)
        return np.asarray(both & (self.with_context != self.without))

    @property
    def share(self) -> float:
        """Share of the pixels that changed."""
        return float(self.changed.mean())


def context_difference(
    pyramid: Pyramid,
    model: Model | Sequence[Model],
    config: PredictionConfig,
    region: Sequence[float],
    *,
    size: int = 256,
    count: int = 5,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
    cache: CacheSettings | None = None,
) -> ContextDifference:
    """Predict a region twice: as it is, and with the context hidden.

    Both times each crop has coarser crops of its own, so that nothing but the context
    differs.

    Parameters
    ----------
    pyramid
        The slide.
    model
        One or several as `predict` takes them.
    config
        How to predict; region, processes and outputs of it do not matter.
    region
        (y0, x0, y1, x1) in pixels of the slide's finest level.
    size, count
        Edge of the places to name, pixels of the finest level, and how many at most.
    on_progress, should_stop, cache
        As `predict` takes them.

    Raises
    ------
    ConfigError
        If the region is too large or outside the slide, or the model has no context.
    Cancelled
        If ``should_stop`` said so.
    MuvitError
        As `predict` does.
    """
    box = _whole_pixels(region, pyramid)
    models = load_models(model).models
    hidden = [WithoutContext(each) for each in models]
    settings = dataclasses.replace(
        config, region=box, outlines=(), tissue=False, context="own", outputs=(),
        preview=False, workers=1, scheduler=None, shard=None,
        tile_size=min(config.tile_size, TILE),
    )  # fmt: skip
    answers = []
    for half, asked in enumerate((models, hidden)):

        def tell(event: Progress, half: int = half) -> None:
            done = event.done + half * event.total
            on_progress(dataclasses.replace(event, done=done, total=2 * event.total))

        answers.append(_labels(pyramid, asked, settings, box, tell, should_stop, cache))
    found = ContextDifference(box, answers[0], answers[1], ())
    return dataclasses.replace(found, places=_places(found, size, count))


def _whole_pixels(region: Sequence[float], pyramid: Pyramid) -> PixelBox:
    """Cut a region to the slide and to whole pixels."""
    y0, x0, y1, x1 = region
    rows, columns = pyramid.shape
    box = (
        max(0, math.floor(y0)), max(0, math.floor(x0)),
        min(rows, math.ceil(y1)), min(columns, math.ceil(x1)),
    )  # fmt: skip
    height, width = box[2] - box[0], box[3] - box[1]
    if height <= 0 or width <= 0:
        raise ConfigError(
            f"The region {tuple(region)} lies outside {pyramid.name}, which has "
            f"{rows} x {columns} pixels.",
            "region",
        )
    if height * width > MOST_PIXELS:
        edge = math.isqrt(MOST_PIXELS)
        raise ConfigError(
            f"The region has {height} x {width} pixels; at most as many as {edge} x "
            f"{edge} can be compared at once. Choose a smaller one.",
            "region",
        )
    return box


def _labels(
    pyramid: Pyramid,
    models: Sequence[nn.Module],
    config: PredictionConfig,
    box: PixelBox,
    on_progress: ProgressFn,
    should_stop: StopFn,
    cache: CacheSettings | None,
) -> Labels:
    """Predict a region into an array."""
    top, left, bottom, right = box
    out = np.zeros((bottom - top, right - left), dtype=np.uint8)
    run = predict(
        pyramid, models, config,
        on_progress=on_progress, should_stop=should_stop, cache=cache,
    )  # fmt: skip
    for tile in run:
        y0, x0 = tile.box[:2]
        inside, own = zip(
            _overlap(y0, tile.box[2], top, bottom),
            _overlap(x0, tile.box[3], left, right),
            strict=True,
        )
        out[inside] = tile.labels[own]
    if run.stopped:
        raise Cancelled("Stopped.")
    return out


def _overlap(first: int, last: int, low: int, high: int) -> tuple[slice, slice]:
    """Return the common part of two spans, counted from ``low`` and from ``first``."""
    start, stop = max(first, low), min(last, high)
    return slice(start - low, stop - low), slice(start - first, stop - first)


def _places(found: ContextDifference, size: int, count: int) -> tuple[Suggestion, ...]:
    known = (found.with_context > 0) & (found.without > 0)
    scores = found.changed.astype(np.float32)
    top, left, bottom, right = found.box
    return tuple(
        Suggestion(
            (
                top + row, left + column,
                min(top + row + size, bottom), min(left + column + size, right),
            ),
            share,
            "context",
        )
        for row, column, share in best_places(scores, known, (size, size), count)
    )  # fmt: skip
