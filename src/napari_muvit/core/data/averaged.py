"""Levels that a file lacks: what they are, and those that are kept somewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..geometry import Vector
from .arrays import ArraySource


@dataclass(frozen=True, slots=True)
class MissingLevel:
    """A level that is averaged when it is read."""

    index: int
    """The stored level that is averaged."""
    step: Vector
    """Pixels of that level per pixel of this one, one a spatial axis."""
    shape: tuple[int, ...]
    """Pixels along each spatial axis; pixel 0 begins where the stored level does."""


@dataclass(frozen=True, eq=False)
class AveragedLevel:
    """A level that the file lacks, averaged before and kept somewhere.

    It holds what `Pyramid.read` would average, so that no result depends on whether
    there is one. Where its pixels cannot be read they are averaged anew.
    """

    index: int
    """The stored level that was averaged."""
    step: Vector
    """Pixels of that level per pixel of this one, one a spatial axis."""
    source: ArraySource
    """Means as (C, *spatial), float32, from the stored level's lower edge on."""


def averaged_shape(shape: Sequence[int], step: Sequence[float]) -> tuple[int, ...]:
    """Pixels of an averaged level: those whose centre lies inside the image.

    A level narrower than half a pixel has none: it is all padding.
    """
    return tuple(
        math.floor(n / t + 0.5 - 1e-6) for n, t in zip(shape, step, strict=True)
    )
