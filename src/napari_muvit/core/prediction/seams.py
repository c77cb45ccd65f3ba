"""Seam score: whether the borders of crops show in a prediction.

A slide is predicted twice, on two grids of crops (and of shared contexts) that lie
half a core apart. What a pixel is does not depend on the grid, so every difference
comes from where its crops lie. If more of the pixels near seams differ than of those
away from them (`seam_zones`), seams show.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..config import PredictionConfig
from ..errors import PyramidError
from ..progress import Progress, ProgressFn, StopFn, ignore_progress, never_stop
from .engine import Engine, Work
from .ensemble import config_of
from .execution import StopCheck
from .filled import FilledTile
from .plan import plan_prediction
from .schedule import Schedule
from .seam_result import SeamScore
from .seam_zones import SeamZones, count_pairs
from .standalone import prepare_work

if TYPE_CHECKING:
    from torch import nn

    from ..data.arrays import ArrayLike
    from ..data.cache_settings import CacheSettings
    from ..data.pyramid import Pyramid

MOST_TILES = 16
ROUNDS = 4
"""So many times the tiles are looked at for some that have a border of two classes."""
GOLDEN = 0.6180339887498949
DEFAULTS = PredictionConfig()

Labels = NDArray[np.uint8]


def seam_score(
    pyramid: Pyramid,
    model: nn.Module | Sequence[nn.Module],
    config: PredictionConfig = DEFAULTS,
    *,
    labels: ArrayLike | None = None,
    most_tiles: int = MOST_TILES,
    cache: CacheSettings | None = None,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> SeamScore:
    """Compare a prediction with that of the same slide on a shifted grid.

    Near and away are defined at the top of this module. Tiles are chosen evenly over
    those that are asked for, the same ones each time: those with more than one label if
    there are enough.

    Parameters
    ----------
    pyramid
        The slide.
    model
        The segmenter, or several that answer together.
    config
        How the slide is predicted: overlap, context, region and so on.
    labels
        (y, x) labels of a finished prediction of the same slide by the same model and
        settings, so that only the shifted grid is computed; pixels without a label are
        not compared. None: both are.
    most_tiles
        Tiles that are compared, at most.
    cache, on_progress, should_stop
        As `predict` takes them.

    Raises
    ------
    Cancelled
        If ``should_stop`` said so.
    PyramidError
        If none of the tiles can be read.
    MuvitError
        Whatever else `predict` raises.
    """
    models = tuple(model) if isinstance(model, Sequence) else (model,)
    edge = max(config.tile_size, _power_of_two(2 * config_of(models[0]).crop_size))
    config = dataclasses.replace(
        config, tile_size=edge, workers=1, scheduler=None, outputs=()
    )
    work = prepare_work(
        pyramid, models, config,
        cache=cache, on_progress=on_progress, should_stop=should_stop,
    )  # fmt: skip
    configs = [config_of(each) for each in models]
    # Of the whole slide: the tiles to compare are chosen already.
    everywhere = dataclasses.replace(
        work.config, region=None, outlines=(), tissue=False
    )
    other = plan_prediction(work.pyramid, configs, everywhere, shifted=True)
    stop = StopCheck(should_stop)
    total = 2 * min(most_tiles, len(work.plan))

    def tell(done: int) -> None:
        on_progress(
            Progress(stage="evaluate", done=min(done, total), total=total, unit="tile")
        )

    tell(0)
    usual = _chosen(work, labels, most_tiles, stop)
    tell(len(usual))
    zones = SeamZones(work.plan.axes, other.axes)
    classes = work.model_config.num_classes
    near = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    away = near.copy()
    compared = []
    shifted = dataclasses.replace(work, plan=other)
    for filled in _predicted(shifted, list(usual), stop):
        tile, found = filled.tile, filled.labels
        first = usual[tile.index]
        # A tile that is compared may be larger than one that was predicted.
        known = (first > 0) | (labels is None)
        for counts, zone in zip((near, away), zones.of(tile), strict=True):
            counted = zone & known
            counts += count_pairs(first[counted], found[counted], classes)
        compared.append(tile.box)
        tell(len(usual) + len(compared))
    if not compared:
        raise PyramidError(
            f"None of the places of {work.pyramid.name} that are compared can be read; "
            "repair the file, or choose a region."
        )
    return SeamScore(
        near_confusion=near,
        away_confusion=away,
        class_names=work.model_config.names,
        tiles=tuple(sorted(compared)),
        overlap=config.overlap,
        context="own" if work.plan.contexts is None else "shared",
    )


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _chosen(
    work: Work, labels: ArrayLike | None, most: int, stop: StopCheck
) -> dict[int, Labels]:
    """Labels of the tiles to compare, by their place in the slide's grid."""
    # Neighbours in this order are neighbours on the slide, and every k-th number times
    # the golden ratio falls into the same small interval: evenly spread.
    order = work.plan.order()
    order = order[np.argsort(np.arange(len(order)) * GOLDEN % 1, kind="stable")]
    mixed: dict[int, Labels] = {}
    plain: dict[int, Labels] = {}
    for start in range(0, min(len(order), most * ROUNDS), most):
        indices = [int(i) for i in order[start : start + most]]
        for filled in _labels_of(work, indices, labels, stop):
            found = filled.labels
            several = len(np.unique(found[found > 0])) > 1
            (mixed if several else plain)[filled.tile.index] = found
        if len(mixed) >= most:
            break
        plain = dict(list(plain.items())[:most])
    return dict(list((mixed | plain).items())[:most])


def _labels_of(
    work: Work, indices: Sequence[int], labels: ArrayLike | None, stop: StopCheck
) -> Iterator[FilledTile]:
    if labels is None:
        yield from _predicted(work, indices, stop)
        return
    for tile in map(work.plan.tile, indices):
        stop.check()
        y0, x0, y1, x1 = tile.box
        yield FilledTile(tile, np.asarray(labels[y0:y1, x0:x1], dtype=np.uint8))


def _predicted(
    work: Work, indices: Sequence[int], stop: StopCheck
) -> Iterator[FilledTile]:
    """Predict some tiles; those that cannot be read are left out."""
    wanted = np.zeros(work.plan.num_tiles, dtype=bool)
    wanted[list(indices)] = True
    schedule = Schedule(work.plan, ~wanted)
    return iter(Engine(work, schedule, wanted, None, stop, lambda _text: None))
