"""A time that is allowed for something that is nice to have."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...progress import StopFn, never_stop

if TYPE_CHECKING:
    from torch import nn


class OutOfTime(Exception):
    """The time allowed is over, or the user asked to stop."""


class Allowance:
    """A time that is allowed for something that is nice to have.

    Parameters
    ----------
    seconds
        From now on.
    should_stop
        Ends it at once.
    """

    def __init__(self, seconds: float, should_stop: StopFn = never_stop) -> None:
        self.seconds = seconds
        self.should_stop = should_stop
        self.stopped = self.late = False
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise `OutOfTime` when it is over."""
        self.stopped = self.stopped or self.should_stop()
        self.late = self.late or time.monotonic() > self._end
        if self.stopped or self.late:
            raise OutOfTime

    def note(self, made: int) -> str:
        """Say why only so many examples were made; empty where nothing came between."""
        many = {0: "no example was", 1: "one example was"}
        ready = f"{many.get(made, f'{made} examples were')} ready"
        if self.stopped:
            return f"It was stopped when {ready}."
        if self.late:
            return f"After the {self.seconds:g} s allowed, {ready}."
        return ""


@contextmanager
def watched(model: nn.Module, stop: Allowance) -> Iterator[None]:
    """Check the time between the modules of a model: a large one takes minutes."""
    owner = threading.get_ident()

    def before(_module: nn.Module, _args: object) -> None:
        if threading.get_ident() == owner:
            stop.check()

    handles = [m.register_forward_pre_hook(before) for m in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
