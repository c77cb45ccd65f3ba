"""What a prediction will cost: seconds and bytes, from how fast it goes here."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..data.block_cache import CACHE_BYTES
from ..data.cache_settings import CacheSettings
from ..data.pyramid import Pyramid
from . import canvases, context_cache, levels
from .blocks import count_work
from .reader import READ_AHEAD, READERS
from .speed import PredictionSpeed, lacking_pixels

if TYPE_CHECKING:
    from ..config import ModelConfig, PredictionConfig
    from .plan import PredictionPlan

LOST = 1.1
"""What a batch takes over its tensors at their peak: gaps between them, and what
kernels take for themselves; measured with the GNU C library."""
AT_WORK = 40_000_000
"""Bytes of libraries and threads, once they are at work; measured on Linux."""
BORDER = 1.125
"""What crops at the borders of blocks cost that several processes do (see `blocks`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionEstimate:
    """What predicting a slide will cost, about."""

    tiles: int
    crops: int
    contexts: int
    """That crops share; 0: each has its own."""
    batches: int
    """Of crops; each goes through the model, in all views of it."""
    seconds: float
    """From the beginning to the end, with all processes."""
    bytes: int
    """Of main memory at the peak, all processes together."""
    gpu_bytes: int
    """Of each GPU; 0 without."""

    def __add__(self, other: PredictionEstimate) -> PredictionEstimate:
        """Return what one slide after the other costs."""
        return PredictionEstimate(
            tiles=self.tiles + other.tiles,
            crops=self.crops + other.crops,
            contexts=self.contexts + other.contexts,
            batches=self.batches + other.batches,
            seconds=self.seconds + other.seconds,
            bytes=max(self.bytes, other.bytes),
            gpu_bytes=max(self.gpu_bytes, other.gpu_bytes),
        )

    @property
    def words(self) -> str:
        """For people: ``about 12 min and 1.3 GB of memory``."""
        gpu = f", {_size(self.gpu_bytes)} of a GPU's" if self.gpu_bytes else ""
        return f"about {_duration(self.seconds)} and {_size(self.bytes)} of memory{gpu}"


def estimate_prediction(
    pyramid: Pyramid,
    model: ModelConfig,
    config: PredictionConfig,
    plan: PredictionPlan,
    speed: PredictionSpeed,
    *,
    workers: int = 1,
    cache: CacheSettings | None = None,
) -> PredictionEstimate:
    """Work out what predicting a slide will cost.

    Parameters
    ----------
    pyramid
        The slide.
    model
        What the model reads.
    config
        What the user asked for.
    plan
        What `plan_prediction` made of it.
    speed
        What was measured, on this slide or on one like it.
    workers
        Processes that do it together, each as fast as what was measured.
    cache
        Where coarse levels are kept that the slide lacks.
    """
    tiles, crops, contexts = count_work(plan, config.shard)
    border = BORDER if workers > 1 else 1.0
    batches = math.ceil(crops * border / plan.batch_size)
    work = batches * speed.batch_seconds + contexts * border * speed.context_seconds
    view = pyramid.viewed_at(model.pixel_size)
    first = speed.begin_seconds + speed.pixel_seconds * lacking_pixels(
        view, plan, cache
    )
    passing = round(LOST * speed.batch_bytes) + _kept_bytes(
        plan, model, speed, tiles, contexts, config.outputs
    )
    reading = _reading_bytes(view, model, plan, tiles)
    each = speed.idle_bytes + AT_WORK + reading + (0 if speed.on_gpu else passing)
    writing = _writing_bytes(plan)
    # Several: this process writes coarse levels only.
    total = each if workers == 1 else speed.idle_bytes + workers * each
    return PredictionEstimate(
        tiles=tiles,
        crops=crops,
        contexts=contexts,
        batches=batches,
        seconds=first + work / workers,
        bytes=total + writing,
        gpu_bytes=passing if speed.on_gpu else 0,
    )


def _kept_bytes(
    plan: PredictionPlan,
    model: ModelConfig,
    speed: PredictionSpeed,
    tiles: int,
    contexts: int,
    outputs: Collection[str],
) -> int:
    """Open tiles and contexts."""
    blends = any(axis.margin for axis in plan.axes)
    size = plan.tile_size * plan.tile_size * plan.zoom[0] * plan.zoom[1]
    planes = 1 + len(outputs)
    if "probabilities" in outputs:
        planes += model.num_classes - 1
    each = round(size * (4 * model.num_classes if blends else planes))
    # Open are those along the edge of what is done.
    count = min(tiles, 2 * max(plan.grid))
    opened = count * each
    if blends:
        opened = min(opened, max(canvases.BUDGET_BYTES, canvases.LEAST * each))
    most = max(context_cache.BUDGET_BYTES, context_cache.LEAST * speed.context_bytes)
    return opened + min(contexts * speed.context_bytes, most)


def _reading_bytes(
    view: Pyramid, model: ModelConfig, plan: PredictionPlan, tiles: int
) -> int:
    """Decoded pixels, and batches that are being read or wait."""
    stored = sum(math.prod(level.shape) for level in view.levels)
    part = tiles / plan.num_tiles
    decoded = round(part * stored * view.num_channels * view.dtype.itemsize)
    shared = plan.contexts is not None
    count = 1 if shared else len(plan.scale_factors)
    level = model.in_channels * model.crop_size**2 * 4
    # One in work, one that waits, one in each thread.
    batches = (2 + READERS) * plan.batch_size * count * level
    ahead = READ_AHEAD * (len(plan.scale_factors) - 1) * level if shared else 0
    return min(decoded, CACHE_BYTES) + batches + ahead


def _writing_bytes(plan: PredictionPlan) -> int:
    """Chunks of the output's coarse levels."""
    found, shape = 0, plan.shape
    while max(shape) > plan.tile_size:
        shape = (-(-shape[0] // 2), -(-shape[1] // 2))
        most = levels.KEPT_CHUNKS * plan.tile_size**2
        found += min(shape[0] * shape[1], most)
    return found


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{round(hours)} h"


def _size(count: float) -> str:
    if count < 0.95e9:
        return f"{round(count / 1e6, -1):.0f} MB"
    return f"{count / 1e9:.1f} GB"
