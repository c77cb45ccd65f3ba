"""Putting a slide, a model and a configuration together, whatever comes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..data.crops import estimate_normalisation
from ..data.level_cache import with_coarse_levels
from ..data.tissue import cheap_to_look_at
from ..model.device import resolve_device
from ..model.segmenter import MuViTSegmenter
from ..progress import ProgressFn, StopFn, ignore_progress, never_stop
from .engine import Work
from .ensemble import config_of, same_input
from .execution import settled_precision
from .plan import plan_prediction
from .reader import readable

if TYPE_CHECKING:
    from torch import nn

    from ..config import ModelConfig, PredictionConfig
    from ..data.cache_settings import CacheSettings
    from ..data.pyramid import Pyramid
    from .plan import PredictionPlan


def prepare_work(
    pyramid: Pyramid,
    models: Sequence[nn.Module],
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
    models, config, cache, on_progress, should_stop
        As `predict` takes them.

    Raises
    ------
    MuvitError
        As `predict` does.
    """
    configs = [config_of(model) for model in models]
    model_config = same_input(configs)
    config = settled_context(config, models)
    view = pyramid.viewed_at(model_config.pixel_size)
    plan = plan_slide(
        view, configs, config,
        cache=cache, on_progress=on_progress, should_stop=should_stop,
    )  # fmt: skip
    device = resolve_device(config.device)
    with readable(view):
        normalisation = estimate_normalisation(view, model_config.normalisation)
    view = with_levels(
        view, model_config, config,
        cache=cache, on_progress=on_progress, should_stop=should_stop,
    )  # fmt: skip
    return Work(
        view, tuple(models), model_config, normalisation, plan, config, device,
        settled_precision(config.precision, device),
    )  # fmt: skip


def plan_slide(
    view: Pyramid,
    configs: Sequence[ModelConfig],
    config: PredictionConfig,
    *,
    cache: CacheSettings | None = None,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> PredictionPlan:
    """Plan the prediction of a slide that may be damaged, or lack coarse levels.

    Parameters
    ----------
    view
        The slide, viewed at the models' pixel size.
    configs
        What the models read.
    config, cache, on_progress, should_stop
        As `predict` takes them.

    Raises
    ------
    ConfigError
        As `plan_prediction` does.
    PyramidError
        If the slide cannot be read where it is looked at for tissue.
    Cancelled
        If ``should_stop`` said so.
    """
    if config.tissue and not cheap_to_look_at(view):
        # A look at all of it: then the levels that crops need come with it.
        view = with_levels(
            view, same_input(configs), config,
            cache=cache, on_progress=on_progress, should_stop=should_stop,
        )  # fmt: skip
    with readable(view):
        return plan_prediction(view, configs, config, should_stop)


def with_levels(
    view: Pyramid,
    model: ModelConfig,
    config: PredictionConfig,
    *,
    cache: CacheSettings | None,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> Pyramid:
    """Return the slide with the coarse levels that it lacks, from the cache on disk.

    Raises
    ------
    Cancelled
        If ``should_stop`` said so.
    """
    return with_coarse_levels(
        view,
        model.scale_factors,
        cache=cache,
        # A look at a region must not wait for a pass over the whole slide.
        build=config.tissue or not (config.region or config.outlines),
        on_progress=on_progress,
        should_stop=should_stop,
    )


def settled_context(
    config: PredictionConfig, models: Sequence[nn.Module]
) -> PredictionConfig:
    """Return the configuration with a context that the models can have."""
    if config.context == "auto" and not all(
        isinstance(model, MuViTSegmenter) for model in models
    ):
        # Another network with such a configuration: nothing is known of its parts.
        return dataclasses.replace(config, context="own")
    return config
