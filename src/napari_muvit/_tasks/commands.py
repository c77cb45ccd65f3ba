"""What the user does while a task runs."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.data.annotations import Annotations
from ..core.geometry import Box


@dataclass(frozen=True, slots=True)
class Look:
    """What is on screen, in pixels of the slide's finest level."""

    box: Box | None
    """None: nothing of the slide."""


@dataclass(frozen=True, slots=True)
class Annotate:
    """All annotations of a slide as they are now."""

    slide: int
    """Number of the slide in the task, from 0."""
    annotations: Annotations


@dataclass(frozen=True, slots=True)
class Pause:
    """Hold on, or go on."""

    held: bool


@dataclass(frozen=True, slots=True)
class Discard:
    """Stop, and leave no model."""
