"""What surrounds a pass of the model: stopping it, preparing it, its tiles."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..progress import check_stop

if TYPE_CHECKING:
    from ..config import PredictionConfig
    from ..progress import StopFn

STOP_INTERVAL = 0.05
"""Seconds between two calls of ``should_stop`` within a pass of the model."""
TRIM_INTERVAL = 1.0
"""Seconds between two times that freed memory is handed back."""


class StopCheck:
    """Raise `Cancelled` once a stop was asked for, without asking too often."""

    def __init__(self, should_stop: StopFn) -> None:
        self.event = threading.Event()
        self._should_stop = should_stop
        self._asked = 0.0

    def asked(self) -> bool:
        """Whether the user asked to stop."""
        now = time.monotonic()
        if now - self._asked > STOP_INTERVAL:
            self._asked = now
            if self._should_stop():
                self.event.set()
        return self.event.is_set()

    def check(self) -> None:
        """Raise `Cancelled` when the user asked to stop."""
        check_stop(self.asked)


@contextlib.contextmanager
def prepared(
    model: nn.Module, device: torch.device, config: PredictionConfig, stop: StopCheck
) -> Iterator[None]:
    """Put the model on its device, ready to be interrupted between its modules."""
    owner = threading.get_ident()

    def before(_module: nn.Module, _args: object) -> None:
        # The model may be in use by another thread, which was not asked to stop.
        if threading.get_ident() == owner:
            stop.check()

    threads = torch.get_num_threads()
    training = [module for module in model.modules() if module.training]
    handles = []
    try:
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        model.to(device).eval()
        handles = [m.register_forward_pre_hook(before) for m in model.modules()]
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
        if config.num_threads is not None:
            torch.set_num_threads(threads)


class HeapTrimmer:
    """Hand freed memory back to the system now and then.

    The GNU allocator keeps what is freed between long-lived blocks: over a large slide
    the process grew to twice of what it held. Other systems need none of this.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._trim = None
        if sys.platform == "linux":
            # musl has no such function.
            self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def __call__(self) -> None:
        """Trim, unless it was done a moment ago; takes about 20 ms."""
        if self._trim is not None and time.monotonic() - self._last > TRIM_INTERVAL:
            self._trim(0)
            self._last = time.monotonic()


def single_crop(device: torch.device) -> str:
    """Return what to say when the memory does not hold a pass of one crop."""
    return (
        f"A single crop does not fit into the memory of {device}; choose another "
        "device. What is finished is kept."
    )


def settled_precision(precision: str, device: torch.device) -> str:
    """Return ``32-true`` or ``bf16-mixed`` for what was asked.

    ``auto`` is ``bf16-mixed`` on a GPU that multiplies in it; a CPU's labels stay
    those of float32.
    """
    if precision != "auto":
        return precision
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return "bf16-mixed" if fast else "32-true"
