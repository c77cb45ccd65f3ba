"""The ``finetune`` subcommand."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._console import Console, interruptible, say
from ..core.errors import ConfigError
from .shared import (
    EXIT_STOPPED,
    Commands,
    add_no_cache,
    add_reading,
    as_json,
    cache_settings,
    numbers,
    open_image,
    split_names,
)

if TYPE_CHECKING:
    from ..core.config import ModelConfig, TrainingConfig


def add_finetune(commands: Commands) -> None:
    tune = commands.add_parser("finetune", help="train a segmenter on labelled slides")
    add = tune.add_argument
    add("--images", nargs="+", required=True, metavar="IMAGE", help="slides")
    add(
        "--labels",
        nargs="+",
        required=True,
        metavar="LABELS",
        help="label images (0 = not annotated), GeoJSON of QuPath or project files "
        "(.muvit.jsonl), in the same order",
    )
    add("--val-images", nargs="+", default=[], metavar="IMAGE")
    add("--val-labels", nargs="+", default=[], metavar="LABELS")
    add("--out", type=Path, required=True, help="model folder to write")
    add("--start", type=Path, help="model folder whose weights are the start")
    add("--overwrite", action="store_true", help="replace a model at --out")
    add("--preset", choices=("tiny", "small", "paper"), help="model size (tiny)")
    add("--levels", help="scale factors, such as 1,8,32")
    add("--crop", type=int, metavar="PX", help="crop edge, the same at every level")
    add("--decoder", choices=("pyramid", "unetr", "mask2former"))
    add(
        "--attention",
        choices=("joint", "coarse_to_fine", "fine_to_coarse", "within_level"),
        help="which levels a token attends to (joint: all)",
    )
    add("--context-skip", action=argparse.BooleanOptionalAction, default=None)
    add("--boxes", choices=("true", "naive"), help="naive: the paper's baseline")
    add("--freeze", action="store_true", help="train the decoder only")
    add("--classes", help="class names in label order, such as background,tumour")
    add(
        "--zero-is-background",
        action="store_true",
        help="0 is a class; label v means class v + 1",
    )
    add_reading(add)
    add_no_cache(add)
    add("--epochs", type=int)
    add("--steps", type=int)
    add("--minutes", type=float)
    add("--epoch-steps", type=int, metavar="N", help="steps between two validations")
    add("--batch", type=int, metavar="N", help="nested crops a step")
    add("--seed", type=int, help="same seed, same run (0)")
    add("--device", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--precision", choices=("32-true", "bf16-mixed", "16-mixed"))
    add("--workers", type=int, metavar="N", help="processes that read crops (0: none)")
    add("--config", type=Path, help='JSON file: {"model": {...}, "training": {...}}')
    add("--dry-run", action="store_true", help="check everything, train nothing")
    add("--json", action="store_true", help="print the result as JSON")
    tune.set_defaults(run=run_finetune)  # fmt: skip


def run_finetune(arguments: argparse.Namespace) -> int:
    """Train a segmenter and write a model folder."""
    from ..core.model.checkpoint import read_config
    from ..core.training import check_training, finetune
    from ..core.training.prepare import open_annotations

    images, val_images = (
        [open_image(path, arguments) for path in paths]
        for paths in (arguments.images, arguments.val_images)
    )
    if arguments.start is not None and not arguments.preset:
        # The classes of the model to go on from, so its way to read labels too.
        arguments.zero_is_background |= read_config(arguments.start).zero_is_background
    given = _config_file(arguments.config)["model"].get("zero_is_background")
    arguments.zero_is_background |= given is True
    zero = arguments.zero_is_background
    labels = open_annotations(
        arguments.labels,
        images,
        zero_is_background=zero,
        classes=_class_list(arguments),
    )
    model, training = _finetune_configs(arguments, images, labels)
    options: dict[str, Any] = {
        "out": arguments.out,
        "model": model,
        "start": arguments.start,
        "val_images": val_images,
        "val_annotations": arguments.val_labels,
        "overwrite": arguments.overwrite,
    }
    with Console() as console, interruptible() as should_stop:
        options |= {"on_progress": console, "should_stop": should_stop}
        if arguments.dry_run:
            ready = check_training(images, labels, training, **options)
            facts = {"config": ready.data.config.to_dict(), "notes": ready.data.notes}
            text = "Everything fits; nothing was trained."
            say(as_json(facts) if arguments.json else text)
            return 0
        options["cache"] = cache_settings(arguments)
        result = finetune(images, labels, training, **options)
    say(as_json(_result_dict(result)) if arguments.json else _result_text(result))
    return EXIT_STOPPED if result.stopped == "stopped" else 0


def _class_list(arguments: argparse.Namespace) -> list[str] | None:
    """Names that were given, else those of the model to go on from."""
    from ..core.model.checkpoint import read_config

    if arguments.classes:
        return split_names(arguments.classes)
    names = _config_file(arguments.config)["model"].get("class_names")
    if isinstance(names, list | tuple):
        return [str(name) for name in names]
    if arguments.start is not None and arguments.preset is None:
        return list(read_config(arguments.start).names)
    return None


def _finetune_configs(
    arguments: argparse.Namespace, images: Sequence[Any], labels: Sequence[Any]
) -> tuple[ModelConfig, TrainingConfig]:
    from ..core.config import TrainingConfig
    from ..core.model.checkpoint import read_config
    from ..core.presets import preset
    from ..core.training.prepare import model_config_for
    from ..core.training.start import continued_fields

    file = _config_file(arguments.config)
    given = {
        "scale_factors": arguments.levels
        and numbers(arguments.levels, float, "levels"),
        "crop_size": arguments.crop,
        "decoder": arguments.decoder,
        "attention": arguments.attention,
        "context_skip": arguments.context_skip,
        "boxes": arguments.boxes,
    }
    changes = {**file["model"], **{k: v for k, v in given.items() if v is not None}}
    changes.pop("zero_is_background", None)  # read together with the flag
    name = arguments.preset or "tiny"
    classes = _class_list(arguments)
    if arguments.start is not None and arguments.preset is None:
        started = read_config(arguments.start)
        changes = continued_fields(started, changes, images[0].num_channels)
        if not arguments.classes and "class_names" not in changes:
            changes.setdefault("class_colors", started.colors)
    model = model_config_for(
        name, images, labels, classes=classes,
        zero_is_background=arguments.zero_is_background, **changes,
    )  # fmt: skip
    base = {**preset(name).training, **file["training"]}
    limits = {k: getattr(arguments, k) for k in ("epochs", "steps", "minutes")}
    if any(v is not None for v in limits.values()):
        base = {k: v for k, v in base.items() if k not in limits}
    options = {
        **limits,
        "steps_per_epoch": arguments.epoch_steps,
        "batch_size": arguments.batch,
        "seed": arguments.seed,
        "device": arguments.device,
        "precision": arguments.precision,
        "num_workers": arguments.workers,
        "freeze_encoder": arguments.freeze or None,
    }
    options = {k: v for k, v in options.items() if v is not None}
    return model, TrainingConfig.from_dict({**base, **options})


def _config_file(path: Path | None) -> dict[str, dict[str, Any]]:
    empty: dict[str, dict[str, Any]] = {"model": {}, "training": {}}
    if path is None:
        return empty
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"--config {path} cannot be read as JSON: {error}."
        ) from error
    fits = isinstance(content, dict) and not set(content) - set(empty)
    if not fits or not all(isinstance(part, dict) for part in content.values()):
        raise ConfigError(
            f'--config {path} needs the form {{"model": {{...}}, "training": {{...}}}}.'
        )
    return {**empty, **content}


def _result_dict(result: Any) -> dict[str, Any]:
    content = dataclasses.asdict(result)
    return {**content, "model_path": str(result.model_path)}


def _result_text(result: Any) -> str:
    lines = [f"Model written to {result.model_path} ({result.steps} steps, "
             f"{result.seconds:.0f} s, {result.cpu_seconds:.0f} CPU-s)."]  # fmt: skip
    lines += [f"  {k}: {v:.4f}" for k, v in result.best.items() if k != "step"]
    if result.stopped == "stopped":
        lines.append("Stopped on request; the best model so far is kept.")
    return "\n".join(lines)
