"""Terminal manners: output, a progress bar, and Ctrl-C as a request to stop."""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from .core.progress import Progress, StopFn

SHOWN = {
    "loss": "loss={:.3f}", "val_loss": "val_loss={:.3f}", "mDSC": "mDSC={:.3f}",
    "steps_per_second": "{:.3g} steps/s",
}  # fmt: skip
"""Figures beside the bar, and how they are written."""


def say(text: str) -> None:
    """Write a result to standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write what is wrong to standard error, as one line of the command's."""
    sys.stderr.write(f"napari-muvit: {text}\n")


class Console:
    """Show `Progress` events as one progress bar a stage, on standard error."""

    def __init__(self, title: str = "") -> None:
        self.title = title
        self._bar: Any = None
        self._stage = ""
        self._figures: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def __call__(self, event: Progress) -> None:
        """Show one event."""
        if event.message:
            self._line(event.message)
        # What is said is no work to measure: its bar would end at 0 of 1.
        said = event.stage == "write" and bool(event.message)
        if said or event.stage == "prepare" or not math.isfinite(event.total):
            return
        # A validation belongs to the training that it interrupts.
        stage = "train" if event.stage == "validate" else event.stage
        label = f"{event.subject} {stage}".strip()
        if label != self._stage:
            self._open(label, event)
        self._figures.update(
            {k: v for k, v in event.metrics.items() if k in SHOWN and math.isfinite(v)}
        )
        # Whole steps and tiles, tenths of a second.
        digits = 1 if event.unit == "s" else None
        self._bar.total = round(event.total, digits)
        self._bar.n = round(event.done, digits)
        if self._figures:
            shown = [k for k in SHOWN if k in self._figures]
            text = " ".join(SHOWN[k].format(self._figures[k]) for k in shown)
            self._bar.set_postfix_str(text, refresh=False)
        self._bar.refresh() if event.done >= event.total else self._bar.update(0)

    def _open(self, stage: str, event: Progress) -> None:
        from tqdm import tqdm

        self.close()
        self._stage = stage
        label = f"{self.title} {stage}".strip()
        self._bar = tqdm(
            total=round(event.total, 1 if event.unit == "s" else None),
            desc=label,
            unit=event.unit or "it",
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.5,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit} "
            "[{elapsed}<{remaining}]{postfix}",
        )

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            sys.stderr.write(text + "\n")

    def close(self) -> None:
        """End the bar, before something else is written; the next event opens one."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage, self._figures = None, "", {}


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, in the parts that cannot be stopped.

    To load libraries and to open slides takes seconds, in which nothing is written.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    kept = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, kept)


@contextmanager
def interruptible() -> Iterator[StopFn]:
    """Turn the first Ctrl-C (or SIGTERM) into a request to stop; a second one kills."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def request(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        sys.stderr.write("\nStopping; finished work is kept. Ctrl-C again to kill.\n")

    kept = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
