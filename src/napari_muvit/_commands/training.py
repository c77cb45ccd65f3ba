"""What the subcommands ``pretrain`` and ``finetune`` share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._console import Console, say
from ..core.errors import ConfigError
from .shared import EXIT_STOPPED, as_json, numbers, planes, split_names

if TYPE_CHECKING:
    import argparse

    from ..core.config import TrainingConfig
    from ..core.progress import ProgressFn
    from ..core.settings import Command, RunSettings
    from ..core.training import TrainingPlan, TrainingResult

Add = Callable[..., Any]


def add_model_options(add: Add) -> None:
    """Add which network it is."""
    add("--out", type=Path, required=True, help="model folder to write")
    add("--start", type=Path, help="model of any kind whose weights are the start")
    add("--preset", choices=("tiny", "small", "paper"), help="model size (tiny)")
    add("--levels", help="scale factors, such as 1,8,32")
    add("--crop", type=int, metavar="PX", help="crop edge, the same at every level")
    add(
        "--attention",
        choices=("joint", "coarse_to_fine", "fine_to_coarse", "within_level"),
        help="which levels a token attends to (joint: all)",
    )
    add("--boxes", choices=("true", "naive"), help="naive: the paper's baseline")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add how long and how it trains, and where."""
    _add_length(parser.add_argument_group("how long (the first limit counts)"))
    _add_recipe(parser.add_argument_group("how"))
    _add_machine(parser.add_argument_group("machine"))
    _add_settings(parser.add_argument_group("settings and output"))


def _add_length(group: Any) -> None:
    add = group.add_argument
    add("--minutes", type=float, metavar="M", help="of wall time, validation included")
    add("--steps", type=int, metavar="N", help="optimiser steps")
    add("--epochs", type=int, metavar="N", help="epochs of --epoch-steps steps")
    add("--epoch-steps", type=int, metavar="N", help="steps between two validations")
    add("--early-stop", type=int, metavar="N", help="end after N validations no better")


def _add_recipe(group: Any) -> None:
    add = group.add_argument
    add("--batch", type=int, metavar="N", help="nested crops a step, on all devices")
    add("--learning-rate", type=float, metavar="R", help="highest rate")
    add(
        "--encoder-learning-rate",
        type=float,
        metavar="R",
        help="highest rate of a segmenter's encoder",
    )
    add(
        "--schedule",
        choices=("one_cycle", "cosine", "constant"),
        help="of the rate (one_cycle: up, then down by half a cosine)",
    )
    add("--warmup", type=float, metavar="SHARE", help="of the run in which it rises")
    add("--ema", type=float, metavar="DECAY", help="validate and keep an average")
    add("--box-shift", type=float, metavar="SHARE", help="noise on the boxes' places")
    add("--box-scale", type=float, metavar="SHARE", help="noise on the boxes' sizes")
    add(
        "--upright",
        action="store_true",
        default=None,
        help="all slides lie the same way up: mirror crops left and right only",
    )
    add("--seed", type=int, metavar="N", help="same seed, same run (0)")


def _add_machine(group: Any) -> None:
    add = group.add_argument
    add("--device", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--devices", type=int, metavar="N", help="devices of each machine (1)")
    add("--nodes", type=int, metavar="N", help="machines (1)")
    add("--strategy", help="of several devices, as Lightning names it (ddp)")
    add(
        "--precision",
        choices=("auto", "32-true", "bf16-mixed", "16-mixed"),
        help="auto: bf16-mixed where the device computes in it",
    )
    add(
        "--accumulate",
        type=int,
        metavar="N",
        help="passes of a step (as many as the memory asks for)",
    )
    add("--compile", action="store_true", default=None, help="use torch.compile")
    add("--workers", type=int, metavar="N", help="processes that read crops (0: none)")


def _add_settings(group: Any) -> None:
    add = group.add_argument
    add("--config", type=Path, help="settings as YAML, TOML or JSON; see config.yaml")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other field of ModelConfig or TrainingConfig; may be repeated",
    )
    add("--logger", choices=("none", "tensorboard", "wandb"), help="beside the CSV")
    add("--resume", action="store_true", help="go on with the run at --out, if any")
    add("--overwrite", action="store_true", help="replace a model at --out")
    add("--dry-run", action="store_true", help="check everything and print the plan")
    add("--json", action="store_true", help="print the result as JSON")


_MODEL = {
    "crop_size": "crop", "decoder": "decoder", "attention": "attention",
    "context_skip": "context_skip", "level_heads": "level_heads", "boxes": "boxes",
}  # fmt: skip
"""Fields of `ModelConfig` by their options."""
_TRAINING = {
    "epochs": "epochs", "steps": "steps", "minutes": "minutes",
    "steps_per_epoch": "epoch_steps", "early_stop": "early_stop",
    "batch_size": "batch", "accumulate": "accumulate", "learning_rate": "learning_rate",
    "encoder_learning_rate": "encoder_learning_rate", "schedule": "schedule",
    "warmup": "warmup", "ema": "ema", "box_shift": "box_shift",
    "box_scale": "box_scale", "seed": "seed", "device": "device", "devices": "devices",
    "num_nodes": "nodes", "strategy": "strategy", "precision": "precision",
    "compile": "compile", "num_workers": "workers", "logger": "logger",
    "freeze_encoder": "freeze", "labelled_slides": "labelled_slides",
    "level_weight": "level_weight", "upright": "upright",
}  # fmt: skip
"""Fields of `TrainingConfig` by their options."""


def read_run(arguments: argparse.Namespace, command: Command) -> RunSettings:
    """Settings of the run: of a file, and upon them the options."""
    from ..core.settings import SETTINGS_FILE, RunSettings, merge_settings
    from ..core.settings import read_settings as read

    file = arguments.config
    stored = arguments.out / SETTINGS_FILE
    if file is None and arguments.resume and stored.is_file():
        file = stored
    settings = RunSettings() if file is None else read(file)
    model, training = _fields(arguments)
    channels = split_names(arguments.channels)
    flags = {
        "images": getattr(arguments, "images", None),
        "labels": getattr(arguments, "labels", None),
        "val_images": arguments.val_images,
        "val_labels": getattr(arguments, "val_labels", None),
        "start": arguments.start and str(arguments.start),
        "preset": arguments.preset,
        "tissue": getattr(arguments, "tissue", None),
        "reading": {
            "image": arguments.inside,
            "planes": planes(arguments.plane),
            "channels": channels,
            "pixel_size": arguments.pixel_size,
        },
        "model": model,
        "training": training,
    }
    assigned = _assigned(arguments.set)
    merged = merge_settings(settings, flags, command, assigned)
    merged.check_complete()
    if not merged.images:
        raise ConfigError(
            "No image was given; name the slides, or a --config that does.", "images"
        )
    return merged


def _fields(
    arguments: argparse.Namespace,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the model and of the training that were asked for."""
    found = vars(arguments)
    model = {name: found.get(option) for name, option in _MODEL.items()}
    training = {name: found.get(option) for name, option in _TRAINING.items()}
    if arguments.levels:
        model["scale_factors"] = numbers(arguments.levels, float, "levels")
    if found.get("classes"):
        model["class_names"] = tuple(split_names(arguments.classes) or ())
    if found.get("zero_is_background"):
        model["zero_is_background"] = True
    return model, training


def _assigned(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``NAME=VALUE`` as values of the fields' types, by table."""
    from ..core.checks import meant
    from ..core.config import ModelConfig, TrainingConfig
    from ..core.settings.plain_yaml import read_yaml
    from ..core.settings.run import FIELDS

    values: dict[str, dict[str, Any]] = {table: {} for table in FIELDS}
    for text in texts:
        name, sign, given = (part.strip() for part in text.partition("="))
        name = name.replace("-", "_")
        table = next((t for t, names in FIELDS.items() if name in names), None)
        if not sign or table is None:
            like = "" if table else meant(name, frozenset().union(*FIELDS.values()))
            raise ConfigError(
                f"--set {text!r}: a field of ModelConfig or TrainingConfig and its "
                f"value are needed, such as clip_norm=1.{like}"
            )
        try:
            value = read_yaml(given)
        except ValueError as error:
            raise ConfigError(f"--set {text!r}: {error}") from error
        kind = ModelConfig if table == "model" else TrainingConfig
        values[table][name] = None if kind.means_null(name, value) else value
    return values


def training_config(settings: RunSettings, start: Path | None) -> TrainingConfig:
    """Configuration of the training: the settings upon those of a preset.

    That which is named, else that of about the size of what is started from.
    """
    from ..core.config import TrainingConfig
    from ..core.training.start import matching_preset, start_header

    header = start_header(start)
    name = settings.preset or (matching_preset(header.config) if header else "tiny")
    return TrainingConfig.from_dict(settings.training_fields(name))


def opened(paths: Sequence[str | None], settings: RunSettings) -> list[Any]:
    """Slides, read as the settings say."""
    from ..core.data.open import open_pyramid

    return [open_pyramid(path, **settings.reading.options()) for path in paths]


def quiet_unless_first(console: Console, config: TrainingConfig) -> ProgressFn:
    """The console, in the process that speaks."""
    from ..core.progress import ignore_progress
    from ..core.training.distributed import is_first_process

    return console if is_first_process(config) else ignore_progress


def say_plan(plan: TrainingPlan, config: Mapping[str, Any], in_json: bool) -> int:
    """Print what would be done."""
    facts = {**plan.to_dict(), "config": config}
    # The checks have said the notes already, in lines of their own.
    text = dataclasses.replace(plan, notes=()).text()
    say(as_json(facts) if in_json else f"{text}\nNothing was trained.")
    return 0


def say_result(result: TrainingResult, config: TrainingConfig, in_json: bool) -> int:
    """Print what a run left; return the exit code."""
    from ..core.training.distributed import is_first_process

    if is_first_process(config):
        say(as_json(_result_dict(result)) if in_json else _result_text(result))
    return EXIT_STOPPED if result.stopped == "stopped" else 0


def _result_dict(result: TrainingResult) -> dict[str, Any]:
    return {
        **dataclasses.asdict(result),
        "model_path": str(result.model_path),
        "report": None if result.report is None else str(result.report),
    }


def _result_text(result: TrainingResult) -> str:
    lines = [f"Model written to {result.model_path} ({result.steps} steps, "
             f"{result.seconds:.0f} s, {result.cpu_seconds:.0f} CPU-s)."]  # fmt: skip
    lines += [f"  {k}: {v:.4f}" for k, v in result.best.items() if k != "step"]
    if result.stopped == "early":
        lines.append("Ended early: no better validation for long.")
    if result.report is not None:
        lines.append(f"Report: {result.report}")
    if result.stopped == "stopped":
        lines.append(
            "Stopped on request; the best model so far is kept, --resume goes on."
        )
    return "\n".join(lines)
