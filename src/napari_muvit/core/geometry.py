"""Boxes in world coordinates.

**World** means pixels of the model's finest level. A box runs from edge to edge and is
half open: pixel ``i`` of the finest level covers ``[i, i + 1)`` and its centre lies at
``i + 0.5``. A pixel of a level with scale factor ``s`` covers ``s`` world pixels.
Axes are in array order (y, x) or (z, y, x). Numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-parallel extent in world coordinates, edge to edge, half open."""

    lower: Vector
    """Lower edge along each spatial axis, world pixels."""
    upper: Vector
    """Upper edge along each spatial axis, world pixels."""

    def __post_init__(self) -> None:
        lower = tuple(float(v) for v in self.lower)
        upper = tuple(float(v) for v in self.upper)
        if len(lower) != len(upper) or not lower:
            raise ValueError(
                f"A box needs as many lower as upper edges, got {lower} and {upper}."
            )
        if not all(map(math.isfinite, (*lower, *upper))):
            raise ValueError(f"A box needs finite edges, got {lower} and {upper}.")
        if any(u <= v for v, u in zip(lower, upper, strict=True)):
            raise ValueError(
                f"Each upper edge must lie above the lower edge, got {lower}, {upper}."
            )
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    @classmethod
    def from_shape(cls, shape: Sequence[float]) -> Box:
        """Box from the origin with extents ``shape`` in world pixels."""
        return cls((0.0,) * len(shape), tuple(shape))

    @classmethod
    def from_centre(cls, centre: Sequence[float], shape: Sequence[float]) -> Box:
        """Box of extents ``shape`` around ``centre``."""
        lower = tuple(c - s / 2 for c, s in zip(centre, shape, strict=True))
        return cls(lower, tuple(v + s for v, s in zip(lower, shape, strict=True)))

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.lower)

    @property
    def shape(self) -> Vector:
        """Extent along each axis, world pixels."""
        return tuple(u - v for v, u in zip(self.lower, self.upper, strict=True))

    @property
    def centre(self) -> Vector:
        """Centre, world coordinates."""
        return tuple((u + v) / 2 for v, u in zip(self.lower, self.upper, strict=True))

    def shifted(self, offset: Sequence[float]) -> Box:
        """Return the box moved by ``offset`` world pixels."""
        return Box(
            tuple(v + o for v, o in zip(self.lower, offset, strict=True)),
            tuple(v + o for v, o in zip(self.upper, offset, strict=True)),
        )

    def contains(self, other: Box, tolerance: float = 1e-6) -> bool:
        """Whether ``other`` lies inside, up to ``tolerance`` world pixels."""
        inside_lower = all(
            a <= b + tolerance for a, b in zip(self.lower, other.lower, strict=True)
        )
        return inside_lower and all(
            a >= b - tolerance for a, b in zip(self.upper, other.upper, strict=True)
        )

    def intersection(self, other: Box) -> Box | None:
        """Return the common part, or None when there is none."""
        lower = tuple(max(a, b) for a, b in zip(self.lower, other.lower, strict=True))
        upper = tuple(min(a, b) for a, b in zip(self.upper, other.upper, strict=True))
        if any(u <= v for v, u in zip(lower, upper, strict=True)):
            return None
        return Box(lower, upper)

    def as_array(self) -> NDArray[np.float64]:
        """Return ``((lower...), (upper...))``, shape (2, N), float64."""
        return np.array((self.lower, self.upper), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class NestedCrop:
    """One box a level, finest first, each inside the next coarser one."""

    boxes: tuple[Box, ...]

    def __post_init__(self) -> None:
        for fine, coarse in zip(self.boxes, self.boxes[1:], strict=False):
            if not coarse.contains(fine, tolerance=1e-3):
                raise ValueError(
                    f"Each box must lie inside the next coarser one, but {fine} is not "
                    f"inside {coarse}."
                )

    def __len__(self) -> int:
        return len(self.boxes)

    def as_array(self) -> NDArray[np.float64]:
        """Return the boxes as shape (L, 2, N), float64, world coordinates."""
        return np.stack([box.as_array() for box in self.boxes])


def _allowed_span(
    inner: tuple[float, float], size: float, extent: tuple[float, float] | None
) -> tuple[float, float]:
    """Range of lower edges, along one axis, for a box of ``size`` around ``inner``.

    The box must contain ``inner``, lie inside ``extent`` where that is large enough and
    contain it where it is not.
    """
    low, high = inner[1] - size, inner[0]
    if extent is not None:
        # Inside a large slide the bounds are [lower, upper - size]; a slide that is
        # smaller than the box swaps the two, which says "contain the slide".
        first, last = extent[0], extent[1] - size
        low, high = max(low, min(first, last)), min(high, max(first, last))
    return low, max(high, low)


def _snapped(lower: float, step: float, low: float, high: float) -> float:
    """Move ``lower`` to a multiple of ``step`` where [low, high] has one.

    Crops on the pixel grid of their own level are read without resampling.
    """
    nearest = round(lower / step) * step
    if nearest < low:
        nearest = math.ceil(low / step) * step
    if nearest > high:
        nearest = math.floor(high / step) * step
    return nearest if low <= nearest <= high else min(max(lower, low), high)


def nest(
    fine: Box,
    scale_factors: Sequence[float],
    extent: Box | None,
    rng: np.random.Generator | None = None,
    share: Sequence[float] | None = None,
) -> NestedCrop:
    """Put coarser boxes around a finest box.

    Parameters
    ----------
    fine
        Box of the finest level (factor ``scale_factors[0]``).
    scale_factors
        Ascending factors; the box of level l is ``scale_factors[l] /
        scale_factors[0]`` times as large as ``fine``.
    extent
        The slide in world coordinates, or None for an unbounded world.
    rng
        Draws random places, never forced to be centred (training; paper, section
        4.1). None centres each box on ``fine`` and pushes it into the slide by as
        little as needed (prediction).
    share
        Instead of random ones, a fixed place along each axis: 0 is the lowest that
        ``rng`` may draw, 1 the highest.

    Notes
    -----
    Coarse boxes lie on the pixel grid of their level where that is possible. Where the
    slide is smaller than a box, the box covers the slide and reading pads it.
    """
    boxes = [fine]
    for factor in scale_factors[1:]:
        inner, lower, upper = boxes[-1], [], []
        places = share if rng is None else rng.random(fine.ndim).tolist()
        for axis in range(fine.ndim):
            size = fine.shape[axis] * (factor / scale_factors[0])
            around = (inner.lower[axis], inner.upper[axis])
            room = None if extent is None else (extent.lower[axis], extent.upper[axis])
            low, high = _allowed_span(around, size, room)
            centred = fine.centre[axis] - size / 2
            at = centred if places is None else low + places[axis] * (high - low)
            at = _snapped(at, factor, low, high)
            lower.append(at)
            upper.append(at + size)
        boxes.append(Box(tuple(lower), tuple(upper)))
    return NestedCrop(tuple(boxes))


def surround(
    inner: Box, shape: Sequence[float], factor: float, extent: Box | None
) -> Box:
    """Box of ``shape`` around the middle of ``inner``, pushed into the slide.

    It contains ``inner``, which is no larger, and lies on the pixel grid of a level of
    that scale factor where that is possible.
    """
    lower = []
    for axis, size in enumerate(shape):
        around = (inner.lower[axis], inner.upper[axis])
        room = None if extent is None else (extent.lower[axis], extent.upper[axis])
        low, high = _allowed_span(around, size, room)
        lower.append(_snapped(inner.centre[axis] - size / 2, factor, low, high))
    return Box(tuple(lower), tuple(v + s for v, s in zip(lower, shape, strict=True)))


def naive_boxes(
    crop_shape: Sequence[float], scale_factors: Sequence[float]
) -> NestedCrop:
    """Return fixed centred boxes, wherever the crops really are.

    The paper's *naive* baseline (section 4.4): same pixels, wrong coordinates.
    """
    centre = (0.0,) * len(crop_shape)
    return NestedCrop(
        tuple(
            Box.from_centre(centre, tuple(factor * s for s in crop_shape))
            for factor in scale_factors
        )
    )


def place_fine(centre: Sequence[float], shape: Sequence[float], extent: Box) -> Box:
    """Finest box of ``shape`` near ``centre``, on whole pixels and inside the slide.

    A slide that is smaller than the crop is contained in the crop (padded on both
    sides), the same in training and prediction.
    """
    lower = []
    for middle, size, first, end in zip(
        centre, shape, extent.lower, extent.upper, strict=True
    ):
        last = end - size
        at = float(round(middle - size / 2))
        if last >= first:
            lower.append(min(max(at, first), math.floor(last)))
        else:
            lower.append(float(math.floor((first + last) / 2)))
    upper = (v + s for v, s in zip(lower, shape, strict=True))
    return Box(tuple(lower), tuple(upper))
