"""What can be undone on the Annotate page: outlines, classes and brush strokes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

STEPS = 100
"""As many strokes as napari keeps of a Labels layer."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One thing that can be taken back and done again."""

    undo: Callable[[], None]
    redo: Callable[[], None]


class History:
    """Steps in their order; what belongs together is taken back together."""

    def __init__(self) -> None:
        self._done: list[list[Step]] = []
        self._undone: list[list[Step]] = []
        self._joined: list[Step] | None = None
        self._busy = False

    @property
    def can_undo(self) -> bool:
        """Whether there is something to take back."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is something to do again."""
        return bool(self._undone)

    @property
    def busy(self) -> bool:
        """Whether a step is being taken back or done again now."""
        return self._busy

    def add(self, step: Step) -> None:
        """Take a step in, unless it comes of undoing another one."""
        if self._busy:
            return
        if self._joined is not None:
            self._joined.append(step)
            return
        self._done.append([step])
        del self._done[:-STEPS]
        self._undone.clear()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Steps that are added meanwhile are one step."""
        if self._joined is not None or self._busy:
            yield
            return
        self._joined = []
        try:
            yield
        finally:
            joined, self._joined = self._joined, None
            if joined:
                self.add(joined[0])
                self._done[-1] = joined

    def undo(self) -> bool:
        """Take the last step back; whether there was one."""
        if not self._done:
            return False
        steps = self._done.pop()
        self._undone.append(steps)
        self._run([step.undo for step in reversed(steps)])
        return True

    def redo(self) -> bool:
        """Do the step again that was undone last; whether there was one."""
        if not self._undone:
            return False
        steps = self._undone.pop()
        self._done.append(steps)
        self._run([step.redo for step in steps])
        return True

    def clear(self) -> None:
        """Forget everything, for another slide."""
        self._done.clear()
        self._undone.clear()

    def _run(self, actions: list[Callable[[], None]]) -> None:
        self._busy = True
        try:
            for action in actions:
                action()
        finally:
            self._busy = False
