"""The subcommand ``predict``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._console import Console, interruptible, say
from ..core.errors import Cancelled, ConfigError, OutputError
from .seams import score_prediction
from .shared import (
    EXIT_STOPPED,
    Commands,
    add_no_cache,
    add_reading,
    as_json,
    cache_settings,
    numbers,
    open_image,
)

if TYPE_CHECKING:
    import argparse

    from ..core.prediction_config import OutputName


def add_predict(commands: Commands) -> None:
    predict = commands.add_parser("predict", help="segment whole slides")
    add = predict.add_argument
    add("images", nargs="+", metavar="IMAGE")
    add(
        "--model", type=Path, required=True, action="append", dest="models",
        help="model folder; given several times, the models' answers are averaged",
    )  # fmt: skip
    add("--out", type=Path, required=True, help="folder for the OME-Zarr labels")
    add("--region", metavar="Y0,X0,Y1,X1", help="in pixels of the finest level")
    add("--overlap", type=float, default=0.25, help="of neighbouring crops, 0 to 0.9")
    add_reading(add)
    add_no_cache(add)
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
        "--probabilities", action="store_true",
        help="write each class's probability, too (0 to 255)",
    )  # fmt: skip
    add(
        "--confidence", action="store_true",
        help="write the largest probability, too (0 to 255)",
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
    add("--workers", type=int, default=1, metavar="N", help="processes here")
    add("--scheduler", metavar="ADDRESS", help="of a dask.distributed cluster")
    add(
        "--shard", metavar="I/N",
        help="do the I-th of N parts (from 0), as a job array does",
    )  # fmt: skip
    add(
        "--preview", action="store_true",
        help="first the whole slide from the coarse levels, as NAME.preview.png",
    )  # fmt: skip
    add(
        "--seams", action="store_true",
        help="at the end: whether borders of crops show, from a few tiles",
    )  # fmt: skip
    add("--overwrite", action="store_true", help="replace what is at the output")
    add("--dry-run", action="store_true", help="say what would be done")
    add("--json", action="store_true", help="print the result as JSON")
    predict.set_defaults(run=run_predict)


def run_predict(arguments: argparse.Namespace) -> int:
    """Segment slides into ``OUT/<name>.zarr``."""
    from ..core.config import PredictionConfig
    from ..core.model.checkpoint import load_model

    config = PredictionConfig(
        overlap=arguments.overlap,
        region=_region(arguments.region),
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
    images = [open_image(path, arguments) for path in arguments.images]
    outputs = _output_paths(arguments.out, [image.name for image in images])
    models = [load_model(folder) for folder in arguments.models]
    results: list[dict[str, Any]] = []
    try:
        for image, out in zip(images, outputs, strict=True):
            results.append(_predict_one(image, out, models, config, arguments))
            if results[-1]["stopped"]:
                break
    finally:
        # Also when a later slide fails: what is finished lies on the disk.
        if arguments.json:
            say(as_json(results))
    return EXIT_STOPPED if any(r["stopped"] for r in results) else 0


def _outputs(arguments: argparse.Namespace) -> tuple[OutputName, ...]:
    from ..core.prediction_config import OUTPUTS

    return tuple(name for name in OUTPUTS if getattr(arguments, name))


def _region(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    values = numbers(text, float, "region")
    if len(values) != 4:
        raise ConfigError(f"--region is {text!r}; y0,x0,y1,x1 is needed.")
    return (values[0], values[1], values[2], values[3])


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


def _predict_one(
    image: Any, out: Path, models: list[Any], config: Any, arguments: argparse.Namespace
) -> dict[str, Any]:
    from ..core.prediction.blocks import count_work
    from ..core.prediction.entry import predict
    from ..core.prediction.plan import plan_prediction

    if arguments.dry_run:
        plan = plan_prediction(image, [model.config for model in models], config)
        tiles, crops, contexts = count_work(plan, config.shard)
        if not arguments.json:
            shared = f" that share {contexts} contexts" if contexts else ""
            what = f"{image.name}: {tiles} tiles of {crops} crops{shared} to {out}"
            say("\n".join([what, *plan.notes]))
        return {
            "image": image.name,
            "out": str(out),
            "tiles": tiles,
            "crops": crops,
            "contexts": contexts,
            "passes": len(plan.views),
            "notes": list(plan.notes),
            "stopped": False,
        }
    with Console(image.name) as console, interruptible() as should_stop:
        # Workers load it themselves.
        several = config.workers > 1 or config.scheduler is not None
        run = predict(
            image, arguments.models if several else models, config, out=out,
            on_progress=console, should_stop=should_stop,
            cache=cache_settings(arguments),
        )  # fmt: skip
        preview = _write_preview(run, out, models[0].config.colors, console)
        tiles = sum(1 for _ in run)
    state = "Stopped; run again to continue" if run.stopped else "Written"
    if run.finished_before:
        state = "Already complete"
    if not arguments.json:
        say(f"{state}: {out} ({tiles} tiles)")
    result = {
        "image": image.name, "out": str(out), "tiles": tiles, "stopped": run.stopped,
    }  # fmt: skip
    if preview is not None:
        result["preview"] = str(preview)
    if arguments.seams and not run.stopped:
        _add_seams(result, run, image, models, arguments)
    return result


def _write_preview(
    run: Any, out: Path, colors: Sequence[str], console: Console
) -> Path | None:
    """Write the picture of the whole slide, where it was asked for and can be had."""
    from ..core.files import write_bytes
    from ..core.progress import Progress

    preview = run.make_preview()
    if preview is None:
        return None
    path = out.with_suffix(".preview.png")
    write_bytes(path, preview.png(colors))
    console(Progress(stage="write", done=1, total=1, message=f"Preview: {path}"))
    return path


def _add_seams(
    result: dict[str, Any], run: Any, image: Any, models: Any,
    arguments: argparse.Namespace,
) -> None:  # fmt: skip
    from ..core.prediction.seam_result import seam_line

    try:
        result["seams"] = score_prediction(run, image, models, arguments)
    except Cancelled:
        result["stopped"] = True
        return
    if not arguments.json:
        say(seam_line(result["seams"]))
