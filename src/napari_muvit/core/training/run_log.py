"""The curves of a run as a CSV file, a row a step and a row a validation."""

from __future__ import annotations

import csv
import errno
import io
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import OutputError
from ..files import write_text

FLUSH_SECONDS = 5.0
"""Rows are written together: a step may take a millisecond."""
STEP_COLUMNS = ("step", "seconds", "loss", "rate")


class RunLog:
    """Appends rows; what a killed run wrote beyond its last state is cut off.

    Nothing is written before the first row. A full disk does not end the run here: the
    rows wait for room, and the state, which matters more, will say so if there is none.

    Parameters
    ----------
    path
        CSV file, made anew unless there are rows to go on from.
    names
        Columns of a validation, such as ``val_loss`` and ``mDSC``.
    first_step
        Steps that were done in an earlier part of the run; rows behind are cut off.
    warn
        Told once why the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        first_step: int,
        warn: Callable[[str], None],
    ) -> None:
        self.path = path
        self._warn = warn
        self._warned = False
        self.columns = (*STEP_COLUMNS, *names)
        self._rows: list[Mapping[str, float]] = []
        self._written = time.monotonic()
        self._first_step = first_step
        self._begun = False

    def add(self, row: Mapping[str, float]) -> None:
        """Keep a row, and write those kept from time to time."""
        self._rows.append(row)
        if time.monotonic() - self._written > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is kept, or go on keeping it."""
        self._written = time.monotonic()
        if not self._rows:
            return
        try:
            self._begin()
            _append(self.path, self._text(self._rows, header=False).encode())
        except OSError as error:
            if not self._warned:
                cause = error.__cause__ if isinstance(error, OutputError) else error
                self._warn(
                    f"The curves wait for room: {self.path} cannot be written "
                    f"({getattr(cause, 'strerror', None) or error})."
                )
            self._warned = True
            return
        self._rows = []

    def _begin(self) -> None:
        if not self._begun:
            first = self._first_step
            kept = [r for r in read_log(self.path) if r["step"] <= first]
            write_text(self.path, self._text(kept if first else [], header=True))
            self._begun = True

    def _text(self, rows: Sequence[Mapping[str, float]], *, header: bool) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        if header:
            writer.writerow(self.columns)
        for row in rows:
            writer.writerow([_cell(row.get(name)) for name in self.columns])
        return buffer.getvalue()


def _append(path: Path, content: bytes) -> None:
    """Append all of it or nothing: half a row would spoil the next one."""
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(end)
            raise


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.7g}"


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the rows of a log, empty cells left out; a torn last row is dropped."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    rows = []
    for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])):
        try:
            numbers = {k: float(v) for k, v in row.items() if k and v}
        except (TypeError, ValueError):
            continue
        if "step" in numbers:
            rows.append(numbers)
    return rows
