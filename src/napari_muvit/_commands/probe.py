"""The subcommands of ``probe``: ``linear``, ``mae`` and ``boxes``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._console import Console, interruptible, say
from .shared import (
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
    import argparse

LABELS = "label images (0 = not annotated), GeoJSON or project files, in the same order"
RULE = "the class of a crop is that of most of its annotated pixels"


def add_probe(commands: Commands) -> None:
    probe = commands.add_parser("probe", help="what a trained model knows")
    kinds = probe.add_subparsers(required=True, metavar="PROBE")
    _add_linear(kinds)
    _add_mae(kinds)
    _add_boxes(kinds)


def _add_linear(kinds: Commands) -> None:
    linear = kinds.add_parser(
        "linear", help="ROC-AUC of a linear classifier on frozen features, by level"
    )
    add = linear.add_argument
    add("--model", type=Path, required=True, help="folder of a model of any kind")
    add("--images", nargs="+", required=True, metavar="IMAGE")
    add("--labels", nargs="+", default=[], metavar="LABELS",
        help=f"{LABELS}; {RULE}")  # fmt: skip
    add("--groups", metavar="LIST", help="instead of --labels: a group for each image")
    add("--test-images", nargs="+", default=[], metavar="IMAGE",
        help="without any a quarter of the images is held out")  # fmt: skip
    add("--test-labels", nargs="+", default=[], metavar="LABELS")
    add("--test-groups", metavar="LIST")
    add("--classes", metavar="LIST", help="class names in label order")
    add("--zero-is-background", action="store_true",
        help="0 is a class; label v means class v + 1")  # fmt: skip
    add("--crops", type=int, metavar="N",
        help="of each training image (32, with groups 5)")  # fmt: skip
    add("--test-crops", type=int, metavar="N",
        help="of each test image (32, with groups 10)")  # fmt: skip
    add("--untrained", action="store_true",
        help="also an encoder with random weights, as a yardstick")  # fmt: skip
    _add_common(add)
    linear.set_defaults(run=run_linear)


def _add_mae(kinds: Commands) -> None:
    mae = kinds.add_parser(
        "mae", help="reconstruction error by level, with true and with naive boxes"
    )
    add = mae.add_argument
    add("images", nargs="+", metavar="IMAGE")
    add("--model", type=Path, required=True, help="folder of a masked autoencoder")
    add("--naive-model", type=Path, metavar="MODEL",
        help="one that was trained with naive boxes, to compare with")  # fmt: skip
    add("--crops", type=int, default=100, metavar="N", help="of each image (100)")
    _add_common(add)
    mae.set_defaults(run=run_mae)


def _add_boxes(kinds: Commands) -> None:
    boxes = kinds.add_parser(
        "boxes", help="Dice of a segmenter whose boxes are shifted at random"
    )
    add = boxes.add_argument
    add("--model", type=Path, required=True, help="folder of a segmenter")
    add("--images", nargs="+", required=True, metavar="IMAGE")
    add("--labels", nargs="+", required=True, metavar="LABELS", help=LABELS)
    add("--sigmas", metavar="LIST",
        help="standard deviations of the shift, px (0,2,4,8,16,32,64,128)")  # fmt: skip
    add("--crops", type=int, default=32, metavar="N", help="of each image (32)")
    _add_common(add)
    boxes.set_defaults(run=run_boxes)


def _add_common(add: Callable[..., argparse.Action]) -> None:
    add("--out", type=Path, metavar="DIR",
        help="write probe.json, probe.md and probe.png")  # fmt: skip
    add("--overwrite", action="store_true",
        help="write into a folder that holds files")  # fmt: skip
    add("--json", action="store_true", help="print the result as JSON")
    add("--batch", type=int, default=16, metavar="N", help="crops in one run (16)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--seed", type=int, default=0, help="same seed, same crops (0)")
    add_reading(add)
    add_no_cache(add)


def run_linear(arguments: argparse.Namespace) -> int:
    """Fit a linear classifier on frozen features, and print its ROC-AUC by level."""
    from ..core.training.probing.linear import probe_linear

    def probe(**common: Any) -> Any:
        return probe_linear(
            arguments.model,
            [open_image(path, arguments) for path in arguments.images],
            arguments.labels,
            groups=split_names(arguments.groups) or (),
            test_images=[open_image(path, arguments) for path in arguments.test_images],
            test_labels=arguments.test_labels,
            test_groups=split_names(arguments.test_groups) or (),
            classes=split_names(arguments.classes),
            zero_is_background=arguments.zero_is_background,
            crops=arguments.crops,
            test_crops=arguments.test_crops,
            untrained=arguments.untrained,
            **common,
        )

    return _run(probe, arguments)


def run_mae(arguments: argparse.Namespace) -> int:
    """Print the reconstruction error by level, with true and with naive boxes."""
    from ..core.training.probing.run import probe_mae

    def probe(**common: Any) -> Any:
        return probe_mae(
            arguments.model,
            [open_image(path, arguments) for path in arguments.images],
            naive_model=arguments.naive_model,
            crops=arguments.crops,
            **common,
        )

    return _run(probe, arguments)


def run_boxes(arguments: argparse.Namespace) -> int:
    """Print Dice against the noise on the boxes."""
    from ..core.training.probing.run import SIGMAS, probe_boxes

    given = arguments.sigmas
    sigmas = SIGMAS if given is None else numbers(given, float, "sigmas")

    def probe(**common: Any) -> Any:
        return probe_boxes(
            arguments.model,
            [open_image(path, arguments) for path in arguments.images],
            arguments.labels,
            sigmas=sigmas,
            crops=arguments.crops,
            **common,
        )

    return _run(probe, arguments)


def _run(probe: Callable[..., Any], arguments: argparse.Namespace) -> int:
    """Run a probe, print what it found, then write it."""
    from ..core.evaluation.output import check_folder, write_result

    out = arguments.out
    if out is not None:
        check_folder(out, arguments.overwrite)
    with Console("probe") as console, interruptible() as should_stop:
        result = probe(
            batch_size=arguments.batch,
            device=arguments.device,
            seed=arguments.seed,
            cache=cache_settings(arguments),
            on_progress=console,
            should_stop=should_stop,
        )
    # Before anything is written: a full disk then loses no figure.
    say(as_json(result.to_dict()) if arguments.json else result.table())
    if out is not None:
        write_result(result, out, overwrite=arguments.overwrite)
        if not arguments.json:
            say(f"Written: {out}")
    return 0
