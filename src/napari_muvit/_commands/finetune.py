"""The ``finetune`` subcommand."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._console import Console, interruptible
from ..core.errors import ConfigError
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

if TYPE_CHECKING:
    from ..core.config import ModelConfig
    from ..core.settings import RunSettings


def add_finetune(commands: Commands) -> None:
    tune = commands.add_parser("finetune", help="train a segmenter on labelled slides")
    add = tune.add_argument_group("slides and labels").add_argument
    add("--images", nargs="+", default=[], metavar="IMAGE", help="slides")
    add(
        "--labels",
        nargs="+",
        default=[],
        metavar="LABELS",
        help="label images (0 = not annotated), GeoJSON of QuPath or project files "
        "(.muvit.jsonl), in the same order",
    )
    add(
        "--val-images",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="slides to validate on (a part of the labels is held out)",
    )
    add("--val-labels", nargs="+", default=[], metavar="LABELS", help="of these")
    add("--classes", help="class names in label order, such as background,tumour")
    add(
        "--zero-is-background",
        action="store_true",
        help="0 is a class; label v means class v + 1",
    )
    add("--labelled-slides", type=int, metavar="N", help="train on so many of them")
    add_reading(add)
    add_no_cache(add)
    add = tune.add_argument_group("model").add_argument
    add_model_options(add)
    add(
        "--decoder",
        choices=("pyramid", "unetr", "mask2former"),
        help="pyramid learns context in minutes, the others are the paper's",
    )
    flag = argparse.BooleanOptionalAction
    add(
        "--context-skip",
        action=flag,
        default=None,
        help="sample coarser features at each place (yes for pyramid)",
    )
    add("--level-heads", action=flag, default=None, help="a loss at every level")
    add("--level-weight", type=float, metavar="W", help="of the coarser levels' loss")
    add("--freeze", action="store_true", default=None, help="train the decoder only")
    add_run_options(tune)
    tune.set_defaults(run=run_finetune)


def run_finetune(arguments: argparse.Namespace) -> int:
    """Train a segmenter and write a model folder."""
    from ..core.training import finetune, plan_finetuning
    from ..core.training.prepare import open_annotations
    from ..core.training.start import preferred_class_names, reads_zero_as_background

    settings = read_run(arguments, "finetune")
    if len(settings.labels) != len(settings.images):
        raise ConfigError(
            f"{len(settings.images)} images and {len(settings.labels)} label files "
            "were given; one label file for each image is needed, in the same order.",
            "labels",
        )
    start = None if settings.start is None else Path(settings.start)
    images = opened(settings.images, settings)
    # The classes of the model to go on from, so its way to read labels too.
    zero = bool(settings.model.get("zero_is_background"))
    zero = zero or reads_zero_as_background(settings.preset, start)
    labels = open_annotations(
        settings.labels,
        images,
        zero_is_background=zero,
        classes=settings.model.get("class_names"),
        preferred=preferred_class_names(settings.preset, start),
    )
    model = _model_config(settings, start, images, labels, zero)
    training = training_config(settings, start)
    options: dict[str, Any] = {
        "out": arguments.out,
        "model": model,
        "start": start,
        "val_images": opened(settings.val_images, settings),
        "val_annotations": settings.val_labels,
        "overwrite": arguments.overwrite,
        "resume": arguments.resume,
    }
    with Console() as console, interruptible() as should_stop:
        options["on_progress"] = quiet_unless_first(console, training)
        options["should_stop"] = should_stop
        if arguments.dry_run:
            plan = plan_finetuning(images, labels, training, **options)
        else:
            result = finetune(
                images, labels, training, cache=cache_settings(arguments),
                settings=settings, command=arguments.typed, **options,
            )  # fmt: skip
    if arguments.dry_run:
        return say_plan(plan, model.to_dict(), arguments.json)
    return say_result(result, training, arguments.json)


def _model_config(
    settings: RunSettings,
    start: Path | None,
    images: list[Any],
    labels: list[Any],
    zero: bool,
) -> ModelConfig:
    from ..core.training.start import choose_config

    changes = {
        k: v
        for k, v in settings.model.items()
        if k not in ("class_names", "zero_is_background")
    }
    return choose_config(
        settings.preset,
        start,
        images,
        labels,
        classes=settings.model.get("class_names"),
        zero_is_background=zero or None,
        changes=changes,
    )
