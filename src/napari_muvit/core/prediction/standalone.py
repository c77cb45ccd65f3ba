"""Putting a slide, a model and a configuration together without an output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..data.crops import estimate_normalisation
from ..data.level_cache import with_coarse_levels
from ..model.device import resolve_device
from ..progress import ProgressFn, StopFn, ignore_progress, never_stop
from .engine import Work
from .execution import settled_precision
from .plan import plan_prediction
from .reader import readable

if TYPE_CHECKING:
    from ..config import PredictionConfig
    from ..data.cache_settings import CacheSettings
    from ..data.pyramid import Pyramid
    from ..model.segmenter import MuViTSegmenter


def prepare_work(
    pyramid: Pyramid,
    model: MuViTSegmenter,
    config: PredictionConfig,
    *,
    cache: CacheSettings | None = None,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> Work:
    """Return what a run by the same settings would do, as it would do it.

    Parameters
    ----------
    pyramid
        The slide; it is viewed at the model's pixel size here.
    model, config, cache, on_progress, should_stop
        As `predict` takes them.

    Raises
    ------
    MuvitError
        As `predict` does.
    """
    view = pyramid.viewed_at(model.config.pixel_size)
    plan = plan_prediction(view, model.config, config)
    device = resolve_device(config.device)
    with readable(view):
        normalisation = estimate_normalisation(view, model.config.normalisation)
    view = with_coarse_levels(
        view, model.config.scale_factors, cache=cache, build=config.region is None,
        on_progress=on_progress, should_stop=should_stop,
    )  # fmt: skip
    return Work(
        view, model, model.config, normalisation, plan, config, device,
        settled_precision(config.precision, device),
    )  # fmt: skip
