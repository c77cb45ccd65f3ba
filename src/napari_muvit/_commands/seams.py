"""Seam scores: ``evaluate --seams`` and ``predict --seams``."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._console import Console, interruptible, say
from ..core.errors import ConfigError
from .shared import (
    Commands,
    add_no_cache,
    cache_settings,
    numbers,
    open_image,
)

if TYPE_CHECKING:
    import argparse

    from ..core.config import PredictionConfig
    from ..core.prediction.chain import SlideResult
    from ..core.prediction.seam_result import SeamScore


def add_seams(evaluate: Commands) -> None:
    """Add what ``evaluate`` needs to score seams."""
    group = evaluate.add_argument_group(
        "seams (instead of --prediction and --labels)",
        "Predicts a sample of tiles on two grids of crops, half a core apart, and "
        "compares them near seams and away from seams.",
    )
    add = group.add_argument
    add("--seams", action="store_true", help="whether borders of crops show")
    add("--model", type=Path, help="model folder")
    add("--images", nargs="+", metavar="IMAGE", help="slides")
    add("--overlap", type=float, metavar="F", help="of neighbouring crops (0.25)")
    add(
        "--context", choices=("auto", "shared", "own"),
        help="coarse levels once for many crops, or anew around each (auto)",
    )  # fmt: skip
    add("--region", metavar="Y0,X0,Y1,X1", help="in pixels of the finest level")
    add("--tiles", type=int, metavar="N", help="compare at most N tiles (16)")
    add("--batch", type=int, metavar="N", help="crops in one pass (16)")
    add("--device", help="auto, cpu, cuda, cuda:1, mps")
    add("--channels", help="channels by name, or counted from 0, such as DAPI,2")
    add("--pixel-size", type=float, metavar="UM", help="of all slides")
    add_no_cache(add)


def score_slides(arguments: argparse.Namespace) -> int:
    """Print the seam score of each slide."""
    from ..core.checks import whole
    from ..core.model.checkpoint import load_model
    from ..core.prediction.seam_result import seam_table
    from ..core.prediction.seams import MOST_TILES, seam_score

    _check(arguments)
    most = MOST_TILES if arguments.tiles is None else arguments.tiles
    whole(most, 1, "tiles")
    config = _config(arguments)
    images = [open_image(path, arguments) for path in arguments.images]
    model = load_model(arguments.model)
    if arguments.dry_run:
        return _say_plan(images, model, config)
    scores: dict[str, SeamScore] = {}
    for image in images:
        with Console(image.name) as console, interruptible() as should_stop:
            scores[_new_name(image.name, scores)] = seam_score(
                image, model, config, most_tiles=most, cache=cache_settings(arguments),
                on_progress=console, should_stop=should_stop,
            )  # fmt: skip
    say(seam_table(scores))
    if arguments.json is not None:
        from ..core.files import write_json

        write_json(arguments.json, {n: s.to_dict() for n, s in scores.items()})
    return 0


def _new_name(name: str, taken: Container[str]) -> str:
    number = 2
    found = name
    while found in taken:
        found = f"{name} ({number})"
        number += 1
    return found


def _config(arguments: argparse.Namespace) -> Any:
    from ..core.config import PredictionConfig

    given = {
        "overlap": arguments.overlap,
        "context": arguments.context,
        "batch_size": arguments.batch,
        "device": arguments.device,
        "region": arguments.region and numbers(arguments.region, float, "region"),
    }
    return PredictionConfig(**{k: v for k, v in given.items() if v is not None})


def _check(arguments: argparse.Namespace) -> None:
    if arguments.model is None or not arguments.images:
        raise ConfigError("--seams needs --model and --images.")
    names = ("prediction", "labels", "out", "markdown", "plot")
    given = [f"--{name}" for name in names if getattr(arguments, name)]
    if given:
        raise ConfigError(
            f"--seams compares two tilings of a slide, so {' and '.join(given)} cannot "
            "be used with it; --json FILE keeps the figures."
        )


def _say_plan(images: Any, model: Any, config: Any) -> int:
    from ..core.prediction.plan import plan_prediction

    for image in images:
        plan = plan_prediction(image, model.config, config)
        say("\n".join([f"{image.name}: {len(plan)} tiles to choose from", *plan.notes]))
    say("Nothing was compared.")
    return 0


def score_prediction(
    result: SlideResult,
    image: Any,
    models: Any,
    config: PredictionConfig,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Score a finished prediction, or return what is stored with it.

    Raises
    ------
    Cancelled
        After Ctrl-C; nothing is stored then.
    """
    import zarr

    from ..core.prediction.record import add_seams, read_seams
    from ..core.prediction.seams import seam_score

    out = result.out
    stored = read_seams(out)
    if stored is not None and result.finished_before:
        return stored
    with Console(image.name) as console, interruptible() as should_stop:
        score = seam_score(
            image, models, config, labels=zarr.open_array(out / "0", mode="r"),
            cache=cache_settings(arguments), on_progress=console,
            should_stop=should_stop,
        )  # fmt: skip
    add_seams(out, score.to_dict())
    return score.to_dict()
