"""``predict --dry-run``: what would be done, and what it would cost."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._console import complain, interruptible, say
from .shared import EXIT_MISTAKE, as_json, cache_settings, open_image

if TYPE_CHECKING:
    import argparse

    from ..core.config import PredictionConfig
    from ..core.prediction.estimate import PredictionEstimate
    from ..core.prediction.plan import PredictionPlan
    from ..core.prediction.speed import PredictionSpeed
    from ..core.progress import StopFn


def say_what_would_be_done(
    outputs: Sequence[Path], config: PredictionConfig, arguments: argparse.Namespace
) -> int:
    """Say what predicting would do to each slide; return the exit status."""
    from ..core.model.checkpoint import load_model
    from ..core.prediction.crew import SLIDE_ERRORS, find_crew

    models = [load_model(folder) for folder in arguments.models]
    crew = find_crew(config)
    workers = 1 if crew is None else crew.size
    if crew is not None:
        crew.close()
    rows: list[dict[str, Any]] = []
    estimates: list[PredictionEstimate] = []
    speed = None
    with interruptible() as should_stop:
        for path, out in zip(arguments.images, outputs, strict=True):
            name = out.name.removesuffix(".zarr")
            try:
                plan, estimate, speed = _estimated(
                    path, models, config, speed, workers, should_stop, arguments
                )
            except SLIDE_ERRORS as error:
                if len(outputs) == 1:
                    raise
                complain(f"{name}: {' '.join(str(error).split())}")
                rows.append({
                    "image": name, "out": str(out), "stopped": False,
                    "error": str(error),
                })  # fmt: skip
                continue
            estimates.append(estimate)
            rows.append({
                "image": name, "out": str(out), "passes": len(plan.views),
                "notes": list(plan.notes), "stopped": False,
                **dataclasses.asdict(estimate),
            })  # fmt: skip
            if not arguments.json:
                say("\n".join([_would_do(name, out, estimate), *plan.notes]))
    if arguments.json:
        say(as_json(rows))
    elif len(estimates) > 1:
        total = functools.reduce(operator.add, estimates)
        say(f"All {len(estimates)} slides: {total.words} on this machine.")
    return 0 if len(estimates) == len(outputs) else EXIT_MISTAKE


def _estimated(
    path: str,
    models: Sequence[Any],
    config: PredictionConfig,
    speed: PredictionSpeed | None,
    workers: int,
    should_stop: StopFn,
    arguments: argparse.Namespace,
) -> tuple[PredictionPlan, PredictionEstimate, PredictionSpeed]:
    """Plan of a slide, what it costs, and the speed, which is measured once."""
    from ..core.prediction.ensemble import same_input
    from ..core.prediction.estimate import estimate_prediction
    from ..core.prediction.speed import measure_speed
    from ..core.prediction.standalone import plan_slide, settled_context

    cache = cache_settings(arguments)
    image = open_image(path, arguments)
    configs = [model.config for model in models]
    config = settled_context(config, models)
    view = image.viewed_at(same_input(configs).pixel_size)
    plan = plan_slide(view, configs, config, cache=cache, should_stop=should_stop)
    if speed is None:
        speed = measure_speed(
            image, models, config, plan, workers=workers, should_stop=should_stop,
            cache=cache,
        )  # fmt: skip
    estimate = estimate_prediction(
        image, configs[0], config, plan, speed, workers=workers, cache=cache
    )
    return plan, estimate, speed


def _would_do(name: str, out: Path, estimate: PredictionEstimate) -> str:
    shared = f" that share {estimate.contexts} contexts" if estimate.contexts else ""
    return (
        f"{name}: {estimate.tiles} tiles of {estimate.crops} crops{shared} to {out}; "
        f"{estimate.words} on this machine"
    )
