"""The losses of all steps of a run, in bounded memory."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from .record import StepLosses

MAX_POINTS = 2000
"""Points that are kept; a plot shows no more."""


@dataclass(slots=True)
class _Span:
    """Some consecutive steps."""

    number: int
    step: int
    total: float
    count: int
    rate: float

    def add(self, other: _Span) -> None:
        """Take in a later part of the same span."""
        self.step, self.rate = other.step, other.rate
        self.total += other.total
        self.count += other.count


class LossTrace:
    """Collect a loss a step; when it is full, spans of steps double.

    Parameters
    ----------
    most
        Points that are kept, at least 2.
    """

    def __init__(self, most: int = MAX_POINTS) -> None:
        self.most = max(2, most)
        self._size = 1
        self._spans: list[_Span] = []

    def add(self, step: int, loss: float, learning_rate: float = math.nan) -> None:
        """Add a step; steps count from 1.

        A step that is not beyond the last one takes the place of all from it on: the
        run was resumed.
        """
        new = self._span(step, loss, learning_rate)
        while self._spans and self._spans[-1].number > new.number:
            self._spans.pop()
        if self._spans and self._spans[-1].number == new.number:
            if self._spans[-1].step >= step:
                self._spans.pop()
                self._spans.append(new)
            else:
                self._spans[-1].add(new)
        else:
            self._spans.append(new)
        self._thin()

    def losses(self) -> StepLosses:
        """Return what was collected."""
        return StepLosses(
            step=tuple(s.step for s in self._spans),
            loss=tuple(s.total / s.count if s.count else math.nan for s in self._spans),
            learning_rate=tuple(s.rate for s in self._spans),
            span=self._size,
        )

    def _span(self, step: int, loss: float, rate: float) -> _Span:
        known = math.isfinite(loss)
        number = (step - 1) // self._size
        return _Span(number, step, loss if known else 0.0, int(known), rate)

    def _thin(self) -> None:
        while len(self._spans) > self.most:
            self._size *= 2
            merged: list[_Span] = []
            for span in self._spans:
                span.number //= 2
                if merged and merged[-1].number == span.number:
                    merged[-1].add(span)
                else:
                    merged.append(span)
            self._spans = merged


def read_losses(path: Path, most: int = MAX_POINTS) -> StepLosses:
    """Read the losses of a run's log, a row at a time; see `RunLog`.

    Parameters
    ----------
    path
        CSV file with the columns ``step``, ``loss`` and ``rate``; rows without a loss
        are left out, a torn last row too. Where there is no such file, there are no
        losses.
    most
        Points that are kept.
    """
    trace = LossTrace(most)
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.DictReader(line for line in file if line.endswith("\n")):
                step, loss = _number(row.get("step")), _number(row.get("loss"))
                if math.isfinite(step) and row.get("loss"):
                    trace.add(int(step), loss, _number(row.get("rate")))
    except (OSError, csv.Error):
        # A report without them is better than none.
        return trace.losses()
    return trace.losses()


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
