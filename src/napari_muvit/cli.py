"""The ``napari-muvit`` command: a thin layer over `napari_muvit.core`.

A user's mistake is one line on stderr and exit code 2; a stop by Ctrl-C keeps what is
done and exits with 130. Nothing is loaded before `main`, so that a Ctrl-C is one line
from the first moment on.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "napari-muvit"
EXIT_STOPPED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    try:
        return _run(argv)
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        return EXIT_STOPPED
    finally:
        if argv is None:
            _end_quietly()


def _end_quietly() -> None:
    """Let a Ctrl-C end the program at once while Python takes itself down."""
    import signal
    import threading

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _run(argv: Sequence[str] | None) -> int:
    # Threads that wait by spinning slow torch down tenfold where cores are shared.
    # It has to be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import atexit
    import gc
    import logging

    from ._commands.parser import build_parser
    from ._commands.shared import EXIT_MISTAKE
    from ._console import termination_as_interrupt
    from .core.errors import Cancelled, MuvitError

    # What is wrong with a file is said once, in one line.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    # Python looks for garbage once more before it ends: a second or two behind torch.
    atexit.register(gc.freeze)
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = build_parser().parse_args(words)
    # For reports.
    arguments.typed = (PROGRAM, *words)
    try:
        with termination_as_interrupt():
            return int(arguments.run(arguments))
    except Cancelled as stop:
        sys.stderr.write(f"{stop}\n")
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


if __name__ == "__main__":
    sys.exit(main())
