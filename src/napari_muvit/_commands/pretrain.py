"""The ``pretrain`` subcommand."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .._console import Console, interruptible
from .shared import Commands, add_no_cache, add_reading, cache_settings
from .training import (
    add_model_options,
    add_run_options,
    opened,
    quiet_unless_first,
    read_run,
    say_plan,
    say_result,
    training_config,
)


def add_pretrain(commands: Commands) -> None:
    pretrain = commands.add_parser(
        "pretrain", help="train an autoencoder on slides without labels, to start from"
    )
    add = pretrain.add_argument_group("slides").add_argument
    add("images", nargs="*", metavar="IMAGE", help="slides")
    add(
        "--val-images",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="slides to validate on (other crops of the same ones)",
    )
    add(
        "--tissue",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="sample where there is tissue (yes)",
    )
    add_reading(add)
    add_no_cache(add)
    add_model_options(pretrain.add_argument_group("model").add_argument)
    add_run_options(pretrain)
    pretrain.set_defaults(run=run_pretrain)


def run_pretrain(arguments: argparse.Namespace) -> int:
    """Train an autoencoder and write a model folder."""
    from ..core.training import plan_pretraining, pretrain
    from ..core.training.start import choose_mae_config

    settings = read_run(arguments, "pretrain")
    start = None if settings.start is None else Path(settings.start)
    images = opened(settings.images, settings)
    model = choose_mae_config(settings.preset, start, images, changes=settings.model)
    training = training_config(settings, start)
    options: dict[str, Any] = {
        "out": arguments.out,
        "model": model,
        "start": start,
        "val_images": opened(settings.val_images, settings),
        "overwrite": arguments.overwrite,
        "resume": arguments.resume,
    }
    with Console() as console, interruptible() as should_stop:
        options["on_progress"] = quiet_unless_first(console, training)
        options["should_stop"] = should_stop
        if arguments.dry_run:
            plan = plan_pretraining(images, training, **options)
        else:
            result = pretrain(
                images, training, cache=cache_settings(arguments), settings=settings,
                tissue=settings.tissue is not False, command=arguments.typed, **options,
            )  # fmt: skip
    if arguments.dry_run:
        return say_plan(plan, model.to_dict(), arguments.json)
    return say_result(result, training, arguments.json)
