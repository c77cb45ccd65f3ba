"""How fast a model predicts on this machine: a few crops through the real engine."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import psutil
import torch
from torch import nn

from ..config import PredictionConfig
from ..data.arrays import ArraySource
from ..data.averaged import AveragedLevel
from ..data.cache_settings import CacheSettings
from ..data.level_cache import dear_levels, with_coarse_levels
from ..data.pyramid import Pyramid
from ..geometry import Box, NestedCrop
from ..model.device import resolve_device
from ..model.live_bytes import LiveBytes
from ..model.segmenter import MuViTSegmenter
from ..model.shared_context import compute_context
from ..progress import StopFn, check_stop, never_stop
from .blocks import count_work
from .checks import PixelBox
from .entry import predict
from .plan import PredictionPlan
from .reader import readable
from .workers import threads_of

QUICK_SECONDS = 2.0
"""A look takes about as long, where the model is not slower than that."""
SLOW_SECONDS = 4.0
"""A first look that takes longer is not repeated."""
SMALL_TILE = 64
"""Edge of the tile of the first look, output pixels."""
MOST_TILES = 16
READ_EDGE = 1024
"""Pixels of the finest level that are read to see how fast that goes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionSpeed:
    """What predicting costs one process on this machine, measured."""

    batch_seconds: float
    """Of a batch of crops, read, computed and added up."""
    context_seconds: float
    """Of computing a context that crops share."""
    pixel_seconds: float
    """Of reading a stored pixel of the finest level."""
    begin_seconds: float
    """Of opening a slide."""
    idle_bytes: int
    """Of the process, with the model and before the first batch."""
    batch_bytes: int
    """Of the tensors of a batch at their peak."""
    context_bytes: int
    """Of a context that is kept."""
    on_gpu: bool
    """Whether passes and contexts are in the memory of a GPU."""


def measure_speed(
    pyramid: Pyramid,
    models: Sequence[nn.Module],
    config: PredictionConfig,
    plan: PredictionPlan,
    *,
    workers: int = 1,
    should_stop: StopFn = never_stop,
    cache: CacheSettings | None = None,
) -> PredictionSpeed:
    """Take a few crops through the engine and see how long they take.

    Takes some seconds, or as long as a few single crops where that is longer.

    Parameters
    ----------
    pyramid
        The slide.
    models
        Whose answers are averaged; one or more.
    config
        What the user asked for.
    plan
        Of the slide: the look is at a place that will be predicted.
    workers
        Processes that will share the processor.
    should_stop
        Asked often.
    cache
        Where coarse levels are kept that the slide lacks.

    Raises
    ------
    Cancelled
        If ``should_stop`` said so.
    PyramidError
        If the slide cannot be read at that place.
    """
    threads = config.num_threads
    if workers > 1:
        threads = threads_of(config, workers)
    alone = dataclasses.replace(
        config, workers=1, scheduler=None, shard=None, outlines=(), tissue=False,
        preview=False, num_threads=threads,
    )  # fmt: skip
    look = _Look(pyramid, models, alone, plan, should_stop, cache)
    idle = psutil.Process().memory_info().rss
    pixel_seconds = look.pixel_seconds()
    single, tensors = look.single()
    context_seconds, context_bytes = look.context()
    one_batch = single * plan.batch_size
    begin_seconds = look.begin_seconds
    if one_batch < QUICK_SECONDS:
        one_batch = look.batches(one_batch, context_seconds)
    return PredictionSpeed(
        batch_seconds=one_batch,
        context_seconds=context_seconds,
        pixel_seconds=pixel_seconds,
        begin_seconds=begin_seconds,
        idle_bytes=idle,
        batch_bytes=tensors * plan.batch_size,
        context_bytes=context_bytes,
        on_gpu=resolve_device(config.device).type != "cpu",
    )


class _Look:
    """Small parts of a slide through the engine."""

    def __init__(
        self,
        pyramid: Pyramid,
        models: Sequence[nn.Module],
        config: PredictionConfig,
        plan: PredictionPlan,
        should_stop: StopFn,
        cache: CacheSettings | None,
    ) -> None:
        self._pyramid = pyramid
        self._models = models
        self._config = config
        self._plan = plan
        self._should_stop = should_stop
        self._cache = cache
        self._seen = _with_stand_ins(pyramid, plan, cache)
        self.begin_seconds = 0.0
        """Of opening the slide, the last time."""
        order = plan.order()
        self._place = plan.tile(int(order[len(order) // 2])).box

    def pixel_seconds(self) -> float:
        """Seconds to read a stored pixel of the finest level."""
        lower = tuple(float(v) for v in self._place[:2])
        shape = tuple(min(READ_EDGE, n) for n in self._pyramid.shape)
        upper = tuple(v + n for v, n in zip(lower, shape, strict=True))
        started = time.perf_counter()
        with readable(self._pyramid):
            self._pyramid.read(Box(lower, upper), 1.0, shape)
        return (time.perf_counter() - started) / math.prod(shape)

    def single(self) -> tuple[float, int]:
        """Seconds of a batch of one crop, and bytes of its tensors at their peak."""
        y, x = ((a + b) // 2 for a, b in zip(self._place[:2], self._place[2:]))  # noqa: B905
        config = dataclasses.replace(
            self._config,
            batch_size=1,
            tile_size=min(SMALL_TILE, self._config.tile_size),
        )
        with LiveBytes(p for m in self._models for p in m.parameters()) as meter:
            seconds, crops, _ = self._run((y, x, y + 1, x + 1), config)
        if seconds < SLOW_SECONDS:
            seconds, crops, _ = self._run((y, x, y + 1, x + 1), config)
        return seconds / crops, meter.peak

    def batches(self, expected: float, context_seconds: float) -> float:
        """Seconds of a full batch, expected to take about as long as it says."""
        tile = self._plan.tile_size
        crops = len(self._plan.crops_of(self._plan.tile(int(self._plan.indices()[0]))))
        each = max(1e-3, math.ceil(crops / self._plan.batch_size) * expected)
        edge = math.ceil(math.sqrt(min(MOST_TILES, math.ceil(QUICK_SECONDS / each))))
        y, x = self._place[:2]
        # To the left and upwards where there is nothing more below.
        y, x = (
            max(0, min(v, (n - 1) // tile * tile - (edge - 1) * tile))
            for v, n in zip((y, x), self._plan.shape, strict=True)
        )
        box = (y, x, y + edge * tile, x + edge * tile)
        seconds, crops, contexts = self._run(box, self._config)
        batches = math.ceil(crops / self._plan.batch_size)
        # Of the contexts that crops share a small place needs more than its share.
        return max(seconds - contexts * context_seconds, seconds / 4) / batches

    def context(self) -> tuple[float, int]:
        """Seconds to compute a context that crops share, and its bytes."""
        grid = self._plan.contexts
        models = [m for m in self._models if isinstance(m, MuViTSegmenter)]
        if grid is None or not models:
            return 0.0, 0
        device = next(models[0].parameters()).device
        config = models[0].config
        boxes = NestedCrop(grid.boxes(0)).as_array()
        edges = (config.crop_size,) * config.ndim
        x = torch.zeros(1, len(boxes), config.in_channels, *edges, device=device)
        local = torch.from_numpy((boxes - boxes[-1, 0]).astype(np.float32))[None]
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(self._config.num_threads or threads)
            with torch.inference_mode():
                compute_context(models[0].eval(), x, local.to(device))
                started = time.perf_counter()
                made = [compute_context(m.eval(), x, local.to(device)) for m in models]
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds = time.perf_counter() - started
                # One for each way a crop is turned.
                views = len(self._plan.views) // len(models)
                return views * seconds, views * sum(one.nbytes for one in made)
        finally:
            torch.set_num_threads(threads)

    def _run(self, box: PixelBox, config: PredictionConfig) -> tuple[float, int, int]:
        """Predict a box; return seconds, crops and contexts."""
        region = cast("tuple[float, float, float, float]", tuple(map(float, box)))
        started = time.perf_counter()
        run = predict(
            self._seen, self._models, dataclasses.replace(config, region=region),
            should_stop=self._should_stop, cache=self._cache,
        )  # fmt: skip
        begun = time.perf_counter()
        self.begin_seconds = begun - started
        for _ in run:
            pass
        check_stop(self._should_stop)
        _, crops, contexts = count_work(run.plan)
        return time.perf_counter() - begun, crops, contexts


def lacking_pixels(
    pyramid: Pyramid, plan: PredictionPlan, cache: CacheSettings | None = None
) -> int:
    """Stored pixels that are averaged to coarse levels before the first crop."""
    lacking = dear_levels(pyramid, plan.scale_factors)
    kept = with_coarse_levels(pyramid, plan.scale_factors, cache=cache, build=False)
    if not lacking or kept.averaged:
        return 0
    return sum(math.prod(pyramid.levels[level.index].shape) for level in lacking)


def _with_stand_ins(
    pyramid: Pyramid, plan: PredictionPlan, cache: CacheSettings | None
) -> Pyramid:
    """Return the slide with empty levels where coarse ones have to be made first."""
    if not lacking_pixels(pyramid, plan, cache):
        return pyramid
    empty = [
        AveragedLevel(
            level.index,
            level.step,
            ArraySource(np.broadcast_to(np.float32(0), level.shape), axes="cyx"),
        )
        for level in dear_levels(pyramid, plan.scale_factors)
    ]
    return dataclasses.replace(pyramid, averaged=tuple(empty))
