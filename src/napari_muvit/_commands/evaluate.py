"""The subcommand ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._console import Console, interruptible, say
from ..core.errors import ConfigError
from .seams import add_seams, score_slides
from .shared import Commands, add_inside, planes, split_names

if TYPE_CHECKING:
    import argparse


def add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser(
        "evaluate", help="Dice of predictions, and whether seams show"
    )
    add = evaluate.add_argument
    add("--prediction", nargs="+", metavar="P")
    add(
        "--labels",
        nargs="+",
        metavar="L",
        help="label images, GeoJSON or project files, in the same order",
    )
    add("--classes", metavar="LIST", help="class names, where a prediction has none")
    add(
        "--zero-is-background",
        action="store_true",
        help="0 is a class; label v means class v + 1",
    )
    add("--background", metavar="CLASS", help="class left out of mDSC (background)")
    add_inside(add, "label files")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="write evaluation.json, evaluation.md and evaluation.png",
    )
    add("--overwrite", action="store_true", help="write into a folder that holds files")
    add("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    add("--markdown", type=Path, metavar="FILE", help="also write tables to FILE")
    add("--plot", type=Path, metavar="FILE.png", help="also write a plot to FILE.png")
    add("--dry-run", action="store_true", help="check everything, compare nothing")
    add_seams(evaluate)
    evaluate.set_defaults(run=run_evaluate)


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Print Dice per class and their mean, of each slide and of all."""
    if arguments.seams:
        return score_slides(arguments)
    from ..core.evaluation import evaluate, open_comparison

    if not arguments.prediction or not arguments.labels:
        raise ConfigError(
            "evaluate needs --prediction and --labels; or --seams, --model and "
            "--images."
        )
    if arguments.model or arguments.images:
        raise ConfigError("--model and --images are for --seams.")
    _check_files(arguments)
    options: dict[str, Any] = {
        "zero_is_background": arguments.zero_is_background,
        "class_names": split_names(arguments.classes),
        "background": arguments.background,
        "image": arguments.inside,
        "planes": planes(arguments.plane),
    }
    given = arguments.prediction, arguments.labels
    with Console() as console, interruptible() as should_stop:
        if arguments.dry_run:
            compared = open_comparison(*given, **options, should_stop=should_stop)
        else:
            result = evaluate(
                *given, **options, on_progress=console, should_stop=should_stop
            )
    if arguments.dry_run:
        say("\n".join([*compared.notes, compared.text(), "Nothing was compared."]))
        return 0
    if len(result.slides) > 1:
        say(f"{result.slide_table()}\n\nAll {len(result.slides)} slides together:")
    say(result.table())
    _write(result, arguments)
    return 0


def _check_files(arguments: argparse.Namespace) -> None:
    """Refuse output files that cannot be meant, before the work."""
    from ..core.data.outputs import check_place
    from ..core.evaluation.output import check_folder

    if arguments.out is not None:
        check_folder(arguments.out, arguments.overwrite)
    plot = arguments.plot
    if plot is not None and plot.suffix.lower() != ".png":
        raise ConfigError(f"--plot {plot} needs a name that ends with .png.")
    files = [arguments.json, arguments.markdown, plot]
    given = [path.absolute() for path in files if path is not None]
    if len(set(given)) < len(given):
        raise ConfigError("--json, --markdown and --plot need different files.")
    inputs = {Path(p).resolve() for p in (*arguments.prediction, *arguments.labels)}
    for path in given:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; give the name of a file in it.")
        if path.resolve() in inputs:
            raise ConfigError(f"{path} is compared; give another file for the figures.")
        check_place(path.parent, "the figures")


def _write(result: Any, arguments: argparse.Namespace) -> None:
    from ..core.evaluation import write_result
    from ..core.figures import save_png
    from ..core.files import write_json, write_text

    if arguments.out:
        write_result(result, arguments.out, name="evaluation",
                     overwrite=arguments.overwrite)  # fmt: skip
    if arguments.json:
        write_json(arguments.json, result.to_dict())
    if arguments.markdown:
        write_text(arguments.markdown, result.markdown())
    if arguments.plot:
        save_png(result.figure(), arguments.plot)
