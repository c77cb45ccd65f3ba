"""Tasks run in a process of their own, so that napari never waits for them.

`ChildProcess` starts it and hands it tasks; ``main`` is what runs there. Imports
neither Qt nor napari, and torch only in the child.
"""

from __future__ import annotations

from .client import CannotBeSent, ChildDied, ChildProcess, TaskFailed

__all__ = ["CannotBeSent", "ChildDied", "ChildProcess", "TaskFailed"]
