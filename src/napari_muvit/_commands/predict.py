"""The subcommand ``predict``."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._console import Console, complain, interruptible, say
from ..core.errors import Cancelled, ConfigError, OutputError
from .dry_run import say_what_would_be_done
from .seams import score_prediction
from .shared import (
    EXIT_MISTAKE,
    EXIT_STOPPED,
    Commands,
    add_no_cache,
    add_reading,
    as_json,
    cache_settings,
    numbers,
    open_image,
    planes,
    reading_options,
)

if TYPE_CHECKING:
    import argparse

    from ..core.config import PredictionConfig
    from ..core.prediction.chain import SlideResult
    from ..core.prediction_config import OutputName


def add_predict(commands: Commands) -> None:
    predict = commands.add_parser("predict", help="segment whole slides")
    add = predict.add_argument
    add("images", nargs="+", metavar="IMAGE")
    add(
        "--model", type=Path, required=True, action="append", dest="models",
        metavar="DIR",
        help="model folder; given several times, the models' answers are averaged",
    )  # fmt: skip
    add("--out", type=Path, required=True, help="folder for the OME-Zarr labels")
    add("--overwrite", action="store_true", help="replace what is at the output")
    add("--dry-run", action="store_true", help="say what would be done")
    add("--json", action="store_true", help="print the result as JSON")
    _add_slides(predict.add_argument_group("slides").add_argument)
    _add_passes(predict.add_argument_group("passes of the model").add_argument)
    _add_outputs(predict.add_argument_group("more to look at").add_argument)
    _add_processes(predict.add_argument_group("processes").add_argument)
    predict.set_defaults(run=run_predict)


def _add_slides(add: Callable[..., argparse.Action]) -> None:
    add(
        "--region", metavar="WHERE",
        help="y0,x0,y1,x1 in pixels of the finest level, or a GeoJSON file of areas",
    )  # fmt: skip
    add("--tissue", action="store_true", help="skip tiles without tissue")
    add_reading(add)
    add_no_cache(add)


def _add_passes(add: Callable[..., argparse.Action]) -> None:
    add("--overlap", type=float, default=0.25, help="of neighbouring crops, 0 to 0.9")
    add("--batch", type=int, default=16, metavar="N", help="crops in one pass")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add(
        "--precision", default="auto", choices=("auto", "32-true", "bf16-mixed"),
        help="auto: bf16-mixed on a GPU that computes in it",
    )  # fmt: skip
    add(
        "--context", default="auto", choices=("auto", "shared", "own"),
        help="coarse levels once for many crops, or anew around each",
    )  # fmt: skip
    add(
        "--average", default="none", choices=("none", "flips", "all"),
        help="over mirrored crops (4 passes), turned ones too (8)",
    )  # fmt: skip
    add(
        "--placement", default="inside", choices=("inside", "centred", "averaged"),
        help="of coarser crops around each fine one: pushed into the slide, never "
        "pushed, or over five places inside (5 passes)",
    )  # fmt: skip


def _add_outputs(add: Callable[..., argparse.Action]) -> None:
    add(
        "--probabilities", action="store_true",
        help="write each class's probability, too (0 to 255)",
    )  # fmt: skip
    add(
        "--confidence", action="store_true",
        help="write the largest probability, too (0 to 255)",
    )  # fmt: skip
    add(
        "--preview", action="store_true",
        help="first the whole slide from the coarse levels, as NAME.preview.png",
    )  # fmt: skip
    add(
        "--seams", action="store_true",
        help="at the end: whether borders of crops show, from a few tiles",
    )  # fmt: skip


def _add_processes(add: Callable[..., argparse.Action]) -> None:
    add("--workers", type=int, default=1, metavar="N", help="processes here")
    add("--scheduler", metavar="ADDRESS", help="of a dask.distributed cluster")
    add(
        "--shard", metavar="I/N",
        help="do the I-th of N parts (from 0), as a job array does",
    )  # fmt: skip


def run_predict(arguments: argparse.Namespace) -> int:
    """Segment slides into ``OUT/<name>.zarr``."""
    from ..core.config import PredictionConfig
    from ..core.data.open import name_of

    config = PredictionConfig(
        overlap=arguments.overlap,
        **_where(arguments),
        tissue=arguments.tissue,
        batch_size=arguments.batch,
        device=arguments.device,
        precision=arguments.precision,
        context=arguments.context,
        average=arguments.average,
        placement=arguments.placement,
        workers=arguments.workers,
        scheduler=arguments.scheduler,
        shard=_shard(arguments.shard),
        preview=arguments.preview,
        overwrite=arguments.overwrite,
        outputs=_outputs(arguments),
    )
    if arguments.seams and config.shard is not None:
        raise ConfigError(
            "--seams needs a finished prediction, and a part is none; run `evaluate "
            "--seams` at the end.",
            "shard",
        )
    outputs = _output_paths(
        arguments.out, [name_of(path, arguments.inside) for path in arguments.images]
    )
    if arguments.dry_run:
        return say_what_would_be_done(outputs, config, arguments)
    return _predict(outputs, config, arguments)


def _predict(
    outputs: Sequence[Path], config: PredictionConfig, arguments: argparse.Namespace
) -> int:
    from ..core.data.open import open_pyramid
    from ..core.prediction.many import predict_many

    results: list[SlideResult] = []
    rows: list[dict[str, Any]] = []
    open_slide = functools.partial(open_pyramid, **reading_options(arguments))
    if config.scheduler is not None:
        # What is wrong with a cluster is said once, in one line.
        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with Console() as console, interruptible() as should_stop:
            for result in predict_many(
                arguments.images, arguments.models, config, outputs,
                open_slide=open_slide, on_progress=console, should_stop=should_stop,
                cache=cache_settings(arguments),
            ):  # fmt: skip
                results.append(result)
                rows.append(_facts(result))
                console.close()
                _say_result(result, arguments)
        if arguments.seams and not any(row["stopped"] for row in rows):
            _add_seams(rows, results, config, arguments)
    finally:
        # Also when something fails: what is finished lies on the disk.
        if arguments.json:
            say(as_json(rows))
    if any(row["stopped"] for row in rows):
        return EXIT_STOPPED
    return _say_failed(results, len(outputs))


def _say_result(result: SlideResult, arguments: argparse.Namespace) -> None:
    if arguments.json or result.error is not None:
        return
    state = "Stopped; run again to continue" if result.stopped else "Written"
    if result.finished_before:
        state = "Already complete"
    say(f"{state}: {result.out} ({result.tiles} tiles)")


def _name(result: SlideResult) -> str:
    """Name of the slide, with that of the image in it."""
    return result.out.name.removesuffix(".zarr")


def _facts(result: SlideResult) -> dict[str, Any]:
    facts = {
        "image": _name(result), "out": str(result.out), "tiles": result.tiles,
        "stopped": result.stopped,
    }  # fmt: skip
    if result.preview is not None:
        facts["preview"] = str(result.preview)
    return facts | ({"error": str(result.error)} if result.error else {})


def _say_failed(results: Sequence[SlideResult], count: int) -> int:
    """Say which slides failed, and why; return the exit status."""
    failed = [result for result in results if result.error is not None]
    if count == 1 and failed and failed[0].error is not None:
        raise failed[0].error
    for result in failed:
        complain(f"{_name(result)}: {' '.join(str(result.error).split())}")
    if failed:
        complain(f"{len(failed)} of {count} slides failed; the others are done.")
    return EXIT_MISTAKE if failed else 0


def _add_seams(
    rows: Sequence[dict[str, Any]],
    results: list[SlideResult],
    config: PredictionConfig,
    arguments: argparse.Namespace,
) -> None:
    """Score the slides that are finished."""
    from ..core.model.checkpoint import load_model
    from ..core.prediction.crew import SLIDE_ERRORS
    from ..core.prediction.seam_result import seam_line

    models = [load_model(folder) for folder in arguments.models]
    done = zip(arguments.images, rows, tuple(results), strict=True)
    for number, (path, row, result) in enumerate(done):
        if result.error is not None:
            continue
        try:
            image = open_image(path, arguments)
            row["seams"] = score_prediction(result, image, models, config, arguments)
        except Cancelled:
            row["stopped"] = True
            return
        except SLIDE_ERRORS as error:
            # The others are scored all the same; `_say_failed` says why.
            row["error"] = str(error)
            results[number] = dataclasses.replace(result, error=error)
            continue
        if not arguments.json:
            name = f"{row['image']}: " if len(rows) > 1 else ""
            say(name + seam_line(row["seams"]))


def _outputs(arguments: argparse.Namespace) -> tuple[OutputName, ...]:
    from ..core.prediction_config import OUTPUTS

    return tuple(name for name in OUTPUTS if getattr(arguments, name))


def _where(arguments: argparse.Namespace) -> dict[str, Any]:
    """Region or outlines, as `PredictionConfig` takes them."""
    text = arguments.region
    if text is None:
        return {}
    from ..core.data.geojson import is_geojson

    if is_geojson(text):
        from ..core.prediction.outlined import read_outlines

        chosen = planes(arguments.plane)
        plane = (chosen.get("z", 0), chosen.get("t", 0))
        return {"outlines": read_outlines(text, plane)}
    values = numbers(text, float, "region")
    if len(values) != 4:
        raise ConfigError(
            f"--region is {text!r}; y0,x0,y1,x1 or a GeoJSON file is needed."
        )
    return {"region": values}


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.split("/")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise ConfigError(
            f"--shard is {text!r}; I/N is needed, such as 0/8 to 7/8.", "shard"
        )
    return int(parts[0]), int(parts[1])


def _output_paths(folder: Path, names: Sequence[str]) -> list[Path]:
    if len(set(names)) != len(names):
        raise ConfigError(
            f"Two images have the same name ({', '.join(sorted(names))}); predict them "
            "into different --out folders."
        )
    from ..core.data.ome_zarr import is_zarr

    whole = folder.absolute()
    inside = next((p for p in (whole, *whole.parents) if is_zarr(p)), None)
    if folder.suffix == ".zarr" or inside is not None:
        raise OutputError(
            f"--out {folder} is itself a .zarr, or lies inside one; give the folder "
            "that is to hold the predictions."
        )
    return [folder / f"{name}.zarr" for name in names]
