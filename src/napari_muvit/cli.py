"""The ``napari-muvit`` command: a thin layer over `napari_muvit.core`.

A user's mistake is one line on stderr and exit code 2; a stop by Ctrl-C keeps what is
done and exits with 130.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import __version__
from ._commands.evaluate import add_evaluate
from ._commands.export import add_export
from ._commands.finetune import add_finetune
from ._commands.predict import add_predict
from ._commands.pretrain import add_pretrain
from ._commands.probe import add_probe
from ._commands.shared import EXIT_STOPPED
from ._commands.slides import add_cache, add_convert, add_demo, add_info, add_synthetic
from ._console import termination_as_interrupt
from .core.errors import Cancelled, MuvitError

EXIT_MISTAKE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    # Threads that wait by spinning slow torch down tenfold where cores are shared.
    # It has to be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What is wrong with a file is said once, in one line.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    # Python looks for garbage once more before it ends: a second or two behind torch.
    atexit.register(gc.freeze)
    arguments = build_parser().parse_args(argv)
    try:
        with termination_as_interrupt():
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


if __name__ == "__main__":
    sys.exit(main())
