"""The ``napari-muvit`` command: a thin layer over `napari_muvit.core`.

A user's mistake is one line on stderr and exit code 2; a stop by Ctrl-C keeps what is
done and exits with 130.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from ._console import Console, interruptible, say
from .core.errors import Cancelled, ConfigError, MuvitError, OutputError

if TYPE_CHECKING:
    from .core.config import ModelConfig, TrainingConfig

EXIT_MISTAKE, EXIT_STOPPED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    # Threads that wait by spinning slow torch down tenfold where cores are shared.
    # It has to be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What is wrong with a file is said once, in one line.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except Cancelled as stop:
        sys.stderr.write(f"{stop}\n")
        return EXIT_STOPPED
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        return EXIT_STOPPED
    except MuvitError as error:
        sys.stderr.write(f"napari-muvit: {_one_line(error)}\n")
        return EXIT_MISTAKE
    except MemoryError as error:
        sys.stderr.write(f"napari-muvit: not enough memory. {_one_line(error)}\n")
        return EXIT_MISTAKE
    except BrokenPipeError:
        # The reader of a pipe is gone; Python would complain of it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"napari-muvit: {where}{error.strerror or error}\n")
        return EXIT_MISTAKE


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without all of the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_MISTAKE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all subcommands."""
    parser = _Parser(
        prog="napari-muvit",
        description="Multi-resolution segmentation of slides that are too large "
        "for one look.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_info(commands)
    _add_synthetic(commands)
    _add_convert(commands)
    _add_cache(commands)
    _add_finetune(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    return parser


Commands = Any  # argparse's own type is private


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo", help="make a slide, train on it, predict another one, show the result"
    )
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder to write")
    demo.add_argument("--show", action="store_true", help="open the result in napari")
    demo.add_argument(
        "--steps", type=int, default=240, help="training steps of each model"
    )
    demo.add_argument("--seed", type=int, default=0)
    demo.set_defaults(run=run_demo)


def run_demo(arguments: argparse.Namespace) -> int:
    """Make a slide, fine-tune, predict a held-out slide, write a picture."""
    from ._demo import finished_summary, run, show

    out, steps, seed = arguments.out, arguments.steps, arguments.seed
    # To look at a finished demo again is no reason to train again.
    summary = finished_summary(out, steps, seed) if arguments.show else None
    if summary is None:
        with Console() as console, interruptible() as should_stop:
            summary = run(out, steps, seed, console, should_stop)
    say(summary)
    if arguments.show:
        show(arguments.out)
    return 0


def _add_info(commands: Commands) -> None:
    info = commands.add_parser("info", help="what a slide or a model folder is")
    info.add_argument("path", nargs="*", help="slide or model folder")
    _add_reading(info.add_argument)
    info.add_argument("--presets", action="store_true", help="list the model presets")
    info.add_argument(
        "--parts", action="store_true", help="also count the parameters of each part"
    )
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=run_info)


def run_info(arguments: argparse.Namespace) -> int:
    """Describe slides, model folders or the presets."""
    from ._describe import describe_path, describe_presets, render

    if not arguments.path and not arguments.presets:
        raise ConfigError("info needs a PATH, or --presets.")
    reading = _reading(arguments)
    found = [describe_path(p, arguments.parts, **reading) for p in arguments.path]
    if arguments.presets:
        found.append(describe_presets(arguments.parts))
    if arguments.json:
        say(_json(found[0] if len(found) == 1 else found))
    else:
        say("\n\n".join(render(entry) for entry in found))
    return 0


def _add_synthetic(commands: Commands) -> None:
    synthetic = commands.add_parser(
        "synthetic", help="make slides of the paper's Synthetic task"
    )
    synthetic.add_argument("out", type=Path, help="folder for the slides and labels")
    synthetic.add_argument("--images", type=int, default=1, help="how many slides")
    synthetic.add_argument("--size", type=int, default=2048, help="edge in pixels")
    synthetic.add_argument(
        "--field", type=int, default=256, help="field of view that a ring fits into, px"
    )
    synthetic.add_argument("--seed", type=int, default=0)
    synthetic.set_defaults(run=run_synthetic)


def run_synthetic(arguments: argparse.Namespace) -> int:
    """Write Synthetic slides and their labels."""
    from .core.data.synthetic import write_synthetic

    with Console() as console, interruptible() as should_stop:
        written = write_synthetic(
            arguments.out,
            images=arguments.images,
            size=arguments.size,
            field=arguments.field,
            seed=arguments.seed,
            on_progress=console,
            should_stop=should_stop,
        )
    for image, labels in written:
        say(f"{image}  {labels}")
    return 0


def _add_reading(add: Callable[..., argparse.Action]) -> None:
    """Add how slides are read."""
    add(
        "--image",
        dest="inside",
        metavar="NAME",
        help="which image of files with several, such as B/03/0 of a plate",
    )
    add("--plane", metavar="AXIS=N", help="which plane of stacks, such as z=10,t=0")
    add("--channels", help="channels by name, or counted from 0, such as DAPI,2")
    add(
        "--pixel-size",
        type=float,
        metavar="UM",
        help="of all slides, whatever they say",
    )


def _add_convert(commands: Commands) -> None:
    command = commands.add_parser("convert", help="any slide as an OME-Zarr pyramid")
    add = command.add_argument
    add("image", metavar="IN", help="slide or label image")
    add("out", metavar="OUT", type=Path, help="OME-Zarr to write, such as slide.zarr")
    add("--labels", action="store_true", help="coarser levels keep the commonest value")
    _add_reading(add)
    add("--overwrite", action="store_true", help="replace the zarr at OUT")
    add("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=run_convert)


def run_convert(arguments: argparse.Namespace) -> int:
    """Write an OME-Zarr; the same command continues where it was cut off."""
    from .core.data.convert import convert, describe

    image = _open(arguments.image, arguments)
    with Console() as console, interruptible() as should_stop:
        result = convert(
            image, arguments.out, labels=arguments.labels or None,
            overwrite=arguments.overwrite, on_progress=console, should_stop=should_stop,
        )  # fmt: skip
    levels = ", ".join(" x ".join(map(str, shape)) for shape in result.shapes)
    done = f"{result.path}: {len(result.shapes)} levels ({levels})."
    if not result.blocks:
        done = f"Already complete: {done}"
    say(_json(describe(result)) if arguments.json else done)
    return 0


def _add_cache(commands: Commands) -> None:
    cache = commands.add_parser("cache", help="coarse levels that are kept on disk")
    cache.add_argument("what", choices=("info", "clear"), help="describe or empty it")
    cache.add_argument("--json", action="store_true", help="print JSON")
    cache.set_defaults(run=run_cache)


def run_cache(arguments: argparse.Namespace) -> int:
    """Describe or empty the cache of coarse levels."""
    from ._describe import describe_cache, render
    from .core.data.cache_folder import CacheFolder
    from .core.data.cache_settings import CacheSettings

    if arguments.what == "info":
        facts = describe_cache()
        say(_json(facts) if arguments.json else render(facts))
        return 0
    gone, left = CacheFolder(CacheSettings.from_environment()).clear()
    if arguments.json:
        say(_json({"removed_bytes": gone, "left_bytes": left}))
        return 0
    rest = f" {left / 1e6:,.1f} MB are in use and stay." if left else ""
    say(f"{gone / 1e6:,.1f} MB removed.{rest}")
    return 0


def _add_no_cache(add: Callable[..., argparse.Action]) -> None:
    add(
        "--no-cache", action="store_true", help="keep no coarse levels of flat slides"
    )  # fmt: skip


def _cache(arguments: argparse.Namespace) -> Any:
    """Where coarse levels are kept; None: as the environment says."""
    from .core.data.cache_settings import CacheSettings

    return CacheSettings(enabled=False) if arguments.no_cache else None


def _add_finetune(commands: Commands) -> None:
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
    _add_reading(add)
    _add_no_cache(add)
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
    from .core.model.checkpoint import read_config
    from .core.training import check_training, finetune
    from .core.training.prepare import open_annotations

    images, val_images = (
        [_open(path, arguments) for path in paths]
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
            say(_json(facts) if arguments.json else text)
            return 0
        options["cache"] = _cache(arguments)
        result = finetune(images, labels, training, **options)
    say(_json(_result_dict(result)) if arguments.json else _result_text(result))
    return EXIT_STOPPED if result.stopped == "stopped" else 0


def _open(path: str, arguments: argparse.Namespace) -> Any:
    from .core.data.open import open_pyramid

    return open_pyramid(path, **_reading(arguments))


def _reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """How slides are read, as `open_pyramid` takes it."""
    channels = arguments.channels
    return {
        "image": arguments.inside,
        "planes": _planes(arguments.plane),
        "channels": [c.strip() for c in channels.split(",")] if channels else None,
        "pixel_size": arguments.pixel_size,
    }


def _planes(text: str | None) -> dict[str, int]:
    """``z=10,t=0`` as indices by axis."""
    planes = {}
    for part in text.split(",") if text else ():
        axis, _, index = (side.strip() for side in part.partition("="))
        if not axis or axis in planes or not index.isdecimal():
            raise ConfigError(
                f"--plane is {text!r}; axes and numbers are needed, such as z=10,t=0."
            )
        planes[axis] = int(index)
    return planes


def _json(content: Any) -> str:
    from .core.checks import finite_json

    return json.dumps(finite_json(content), indent=2)


def _numbers(text: str, kind: type, name: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--{name} is {text!r}; numbers separated by commas are needed."
        ) from error


def _class_list(arguments: argparse.Namespace) -> list[str] | None:
    """Names that were given, else those of the model to go on from."""
    from .core.model.checkpoint import read_config

    if arguments.classes:
        return _split_names(arguments.classes)
    names = _config_file(arguments.config)["model"].get("class_names")
    if isinstance(names, list | tuple):
        return [str(name) for name in names]
    if arguments.start is not None and arguments.preset is None:
        return list(read_config(arguments.start).names)
    return None


def _split_names(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",")] if text else None


def _finetune_configs(
    arguments: argparse.Namespace, images: Sequence[Any], labels: Sequence[Any]
) -> tuple[ModelConfig, TrainingConfig]:
    from .core.config import TrainingConfig
    from .core.model.checkpoint import read_config
    from .core.presets import preset
    from .core.training.prepare import model_config_for
    from .core.training.start import continued_fields

    file = _config_file(arguments.config)
    given = {
        "scale_factors": arguments.levels
        and _numbers(arguments.levels, float, "levels"),
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


def _add_predict(commands: Commands) -> None:
    predict = commands.add_parser("predict", help="segment whole slides")
    add = predict.add_argument
    add("images", nargs="+", metavar="IMAGE")
    add("--model", type=Path, required=True, help="model folder")
    add("--out", type=Path, required=True, help="folder for the OME-Zarr labels")
    add("--region", metavar="Y0,X0,Y1,X1", help="in pixels of the finest level")
    add("--overlap", type=float, default=0.25, help="of neighbouring crops, 0 to 0.9")
    _add_reading(add)
    _add_no_cache(add)
    add("--batch", type=int, default=16, metavar="N", help="crops in one pass")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--overwrite", action="store_true", help="replace what is at the output")
    add("--dry-run", action="store_true", help="say what would be done")
    add("--json", action="store_true", help="print the result as JSON")
    predict.set_defaults(run=run_predict)


def run_predict(arguments: argparse.Namespace) -> int:
    """Segment slides into ``OUT/<name>.zarr``."""
    from .core.config import PredictionConfig
    from .core.model.checkpoint import load_model

    config = PredictionConfig(
        overlap=arguments.overlap,
        region=_region(arguments.region),
        batch_size=arguments.batch,
        device=arguments.device,
        overwrite=arguments.overwrite,
    )
    images = [_open(path, arguments) for path in arguments.images]
    outputs = _output_paths(arguments.out, [image.name for image in images])
    model = load_model(arguments.model)
    results: list[dict[str, Any]] = []
    try:
        for image, out in zip(images, outputs, strict=True):
            results.append(_predict_one(image, out, model, config, arguments))
            if results[-1]["stopped"]:
                break
    finally:
        # Also when a later slide fails: what is finished lies on the disk.
        if arguments.json:
            say(_json(results))
    return EXIT_STOPPED if any(r["stopped"] for r in results) else 0


def _region(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    values = _numbers(text, float, "region")
    if len(values) != 4:
        raise ConfigError(f"--region is {text!r}; y0,x0,y1,x1 is needed.")
    return (values[0], values[1], values[2], values[3])


def _output_paths(folder: Path, names: Sequence[str]) -> list[Path]:
    if len(set(names)) != len(names):
        raise ConfigError(
            f"Two images have the same name ({', '.join(sorted(names))}); predict them "
            "into different --out folders."
        )
    from .core.data.ome_zarr import is_zarr

    whole = folder.absolute()
    inside = next((p for p in (whole, *whole.parents) if is_zarr(p)), None)
    if folder.suffix == ".zarr" or inside is not None:
        raise OutputError(
            f"--out {folder} is itself a .zarr, or lies inside one; give the folder "
            "that is to hold the predictions."
        )
    return [folder / f"{name}.zarr" for name in names]


def _predict_one(
    image: Any, out: Path, model: Any, config: Any, arguments: argparse.Namespace
) -> dict[str, Any]:
    from .core.prediction.plan import plan_prediction
    from .core.prediction.run import predict

    if arguments.dry_run:
        view = image.viewed_at(model.config.pixel_size)
        plan = plan_prediction(view, model.config, config)
        if not arguments.json:
            say("\n".join([f"{image.name}: {len(plan)} tiles to {out}", *plan.notes]))
        return {
            "image": image.name,
            "out": str(out),
            "tiles": len(plan),
            "notes": list(plan.notes),
            "stopped": False,
        }
    with Console(image.name) as console, interruptible() as should_stop:
        run = predict(
            image, model, config, out=out, on_progress=console,
            should_stop=should_stop, cache=_cache(arguments),
        )  # fmt: skip
        tiles = sum(1 for _ in run)
    state = "Stopped; run again to continue" if run.stopped else "Written"
    if run.finished_before:
        state = "Already complete"
    if not arguments.json:
        say(f"{state}: {out} ({tiles} tiles)")
    return {
        "image": image.name, "out": str(out), "tiles": tiles, "stopped": run.stopped,
    }  # fmt: skip


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser("evaluate", help="Dice of predictions")
    add = evaluate.add_argument
    add("--prediction", nargs="+", required=True, metavar="P")
    add(
        "--labels",
        nargs="+",
        required=True,
        metavar="L",
        help="label images, GeoJSON or project files, in the same order",
    )
    add("--classes", metavar="LIST", help="class names, where a prediction has none")
    add(
        "--zero-is-background",
        action="store_true",
        help="0 is a class; label v means class v + 1",
    )
    add("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    evaluate.set_defaults(run=run_evaluate)


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Print Dice per class and their mean."""
    from .core.evaluation import evaluate

    with Console() as console, interruptible() as should_stop:
        result = evaluate(
            arguments.prediction,
            arguments.labels,
            zero_is_background=arguments.zero_is_background,
            class_names=_split_names(arguments.classes),
            on_progress=console,
            should_stop=should_stop,
        )
    say(result.table())
    if arguments.json:
        try:
            arguments.json.write_text(json.dumps(result.to_dict(), indent=2) + "\n")
        except OSError as error:
            raise OutputError(
                f"{arguments.json} cannot be written: {error.strerror}."
            ) from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
