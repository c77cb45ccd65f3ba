"""The subcommands ``demo``, ``info``, ``synthetic``, ``convert`` and ``cache``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .._console import Console, interruptible, say
from ..core.errors import ConfigError
from .shared import (
    Commands,
    add_reading,
    as_json,
    open_image,
    reading_options,
)

if TYPE_CHECKING:
    import argparse


def add_demo(commands: Commands) -> None:
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
    from .._demo import finished_summary, run, show

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


def add_info(commands: Commands) -> None:
    info = commands.add_parser("info", help="what a slide or a model folder is")
    info.add_argument("path", nargs="*", help="slide or model folder")
    add_reading(info.add_argument)
    info.add_argument("--presets", action="store_true", help="list the model presets")
    info.add_argument(
        "--parts", action="store_true", help="also count the parameters of each part"
    )
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=run_info)


def run_info(arguments: argparse.Namespace) -> int:
    """Describe slides, model folders or the presets."""
    from .._describe import describe_path, describe_presets, render

    if not arguments.path and not arguments.presets:
        raise ConfigError("info needs a PATH, or --presets.")
    reading = reading_options(arguments)
    found = [describe_path(p, arguments.parts, **reading) for p in arguments.path]
    if arguments.presets:
        found.append(describe_presets(arguments.parts))
    if arguments.json:
        say(as_json(found[0] if len(found) == 1 else found))
    else:
        say("\n\n".join(render(entry) for entry in found))
    return 0


def add_synthetic(commands: Commands) -> None:
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
    from ..core.data.synthetic import write_synthetic

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


def add_convert(commands: Commands) -> None:
    command = commands.add_parser("convert", help="any slide as an OME-Zarr pyramid")
    add = command.add_argument
    add("image", metavar="IN", help="slide or label image")
    add("out", metavar="OUT", type=Path, help="OME-Zarr to write, such as slide.zarr")
    add("--labels", action="store_true", help="coarser levels keep the commonest value")
    add_reading(add)
    add("--overwrite", action="store_true", help="replace the zarr at OUT")
    add("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=run_convert)


def run_convert(arguments: argparse.Namespace) -> int:
    """Write an OME-Zarr; the same command continues where it was cut off."""
    from ..core.data.convert import convert, describe

    image = open_image(arguments.image, arguments)
    with Console() as console, interruptible() as should_stop:
        result = convert(
            image, arguments.out, labels=arguments.labels or None,
            overwrite=arguments.overwrite, on_progress=console, should_stop=should_stop,
        )  # fmt: skip
    levels = ", ".join(" x ".join(map(str, shape)) for shape in result.shapes)
    done = f"{result.path}: {len(result.shapes)} levels ({levels})."
    if not result.blocks:
        done = f"Already complete: {done}"
    say(as_json(describe(result)) if arguments.json else done)
    return 0


def add_cache(commands: Commands) -> None:
    cache = commands.add_parser("cache", help="coarse levels that are kept on disk")
    cache.add_argument("what", choices=("info", "clear"), help="describe or empty it")
    cache.add_argument("--json", action="store_true", help="print JSON")
    cache.set_defaults(run=run_cache)


def run_cache(arguments: argparse.Namespace) -> int:
    """Describe or empty the cache of coarse levels."""
    from .._describe import describe_cache, render
    from ..core.data.cache_folder import CacheFolder
    from ..core.data.cache_settings import CacheSettings

    if arguments.what == "info":
        facts = describe_cache()
        say(as_json(facts) if arguments.json else render(facts))
        return 0
    gone, left = CacheFolder(CacheSettings.from_environment()).clear()
    if arguments.json:
        say(as_json({"removed_bytes": gone, "left_bytes": left}))
        return 0
    rest = f" {left / 1e6:,.1f} MB are in use and stay." if left else ""
    say(f"{gone / 1e6:,.1f} MB removed.{rest}")
    return 0
