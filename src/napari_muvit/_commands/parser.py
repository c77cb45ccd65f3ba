"""The parser of the command, with all subcommands."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from .. import __version__
from .evaluate import add_evaluate
from .export import add_export
from .finetune import add_finetune
from .predict import add_predict
from .pretrain import add_pretrain
from .probe import add_probe
from .shared import EXIT_MISTAKE
from .slides import add_cache, add_convert, add_demo, add_info, add_synthetic


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without all of the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_MISTAKE, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown and self._subparsers is None:
            # Else the parser above says so, and names its own help.
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all subcommands."""
    parser = _Parser(
        prog="napari-muvit",
        description="Multi-resolution segmentation of slides that are too large "
        "for one look.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_demo(commands)
    add_info(commands)
    add_synthetic(commands)
    add_convert(commands)
    add_cache(commands)
    add_pretrain(commands)
    add_finetune(commands)
    add_predict(commands)
    add_evaluate(commands)
    add_export(commands)
    add_probe(commands)
    return parser
