"""What Lightning and torch make of signals and of lost processes, put right."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L

from ..errors import DeviceError, MuvitError

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
_LOST_PEER = (
    "gloo", "nccl", "connection closed by peer", "connection reset by peer",
    "socket timeout", "distributed",
)  # fmt: skip
"""Parts of the messages of a process that has lost another one."""
_LOST_WORKER = "dataloader worker"


class SignalCallback(L.Callback):
    """Keeps the signal handlers that the program had before the run.

    Lightning's would leave the run at SIGTERM without its state, speak to the other
    processes while they speak of something else, and under Slurm write a pickled
    checkpoint of its own.
    """

    def __init__(self) -> None:
        self._kept = {number: signal.getsignal(number) for number in _SIGNALS}

    def _put_back(self, *_args: Any, **_kwargs: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._kept.items():
            # None: one that was not set by Python.
            if handler is not None:
                signal.signal(number, handler)

    on_train_start = _put_back
    on_validation_start = _put_back


@contextmanager
def plain_failures(world_size: int) -> Iterator[None]:
    """Turn what the user can act on into one line.

    Parameters
    ----------
    world_size
        Processes of the run.

    Raises
    ------
    KeyboardInterrupt
        For the exit that Lightning makes of it.
    DeviceError
        If another process of the run has ended.
    MuvitError
        If a process that reads crops has ended.
    """
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except RuntimeError as error:
        text = str(error).lower()
        if _LOST_WORKER in text:
            raise MuvitError(
                "A process that reads crops has ended: it was killed, or the memory "
                "ran out. Go on with --resume and fewer workers."
            ) from error
        if world_size > 1 and any(part in text for part in _LOST_PEER):
            raise DeviceError(
                "Another process of this training has ended, so it cannot go on; what "
                "that one says tells why. The last state is kept: go on with --resume."
            ) from error
        raise
