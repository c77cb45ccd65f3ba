"""The subcommand ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .._console import Console, interruptible, say
from .shared import Commands, add_inside, as_json, planes, split_names

if TYPE_CHECKING:
    import argparse


def add_export(commands: Commands) -> None:
    export = commands.add_parser(
        "export", help="objects, tables and GeoJSON outlines of a prediction"
    )
    add = export.add_argument
    add("prediction", metavar="PREDICTION", help="prediction, or any label image")
    add("--out", type=Path, metavar="DIR", help="folder (NAME_export beside it)")
    add(
        "--classes",
        metavar="LIST",
        help="names or numbers of the classes; all but the background",
    )
    for name, default in (
        ("--min-object", "leave out objects smaller than this"),
        ("--min-hole", "fill holes smaller than this, with what lies in them"),
    ):
        add(name, type=float, default=0.0, metavar="UM2", help=f"{default} (µm²)")
    add(
        "--simplify",
        type=float,
        default=0.0,
        metavar="UM",
        help="outlines may move by this (µm); 0: exactly along pixel edges",
    )
    add_inside(add, "a file")
    add("--pixel-size", type=float, metavar="UM", help="whatever the file says")
    add("--overwrite", action="store_true", help="replace files of an earlier export")
    add("--json", action="store_true", help="print the result as JSON")
    export.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """Write objects, tables, outlines, a picture and a report."""
    from ..core.export import ExportConfig, export_prediction

    names = split_names(arguments.classes)
    config = ExportConfig(
        classes=None if names is None else tuple(names),
        min_object=arguments.min_object,
        min_hole=arguments.min_hole,
        simplify=arguments.simplify,
    )
    with Console() as console, interruptible() as should_stop:
        result = export_prediction(
            arguments.prediction,
            arguments.out,
            config,
            image=arguments.inside,
            planes=planes(arguments.plane),
            pixel_size=arguments.pixel_size,
            overwrite=arguments.overwrite,
            on_progress=console,
            should_stop=should_stop,
        )
    if arguments.json:
        say(as_json(result.to_dict()))
    else:
        say(f"{result.table()}\n\nWritten: {result.folder}")
    return 0
