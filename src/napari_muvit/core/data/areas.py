"""Areas by a formula: boxes and ellipses, exact at pixel centres at any scale.

Coordinates are world coordinates (y, x), edge to edge. A rotated box is a `Polygon` of
four corners, which is just as exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import AnnotationError
from ..geometry import Box

Pair = tuple[float, float]
MAX_LABEL = 255
LARGEST, SMALLEST = 1e12, 1e-9
"""Numbers beyond are no place in an image, and sums of them would lose their pixels."""


def checked_label(label: object, what: str) -> int:
    """Return a label from 0 to 255, else raise `AnnotationError`."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    whole = isinstance(label, int | np.integer) and not isinstance(label, bool)
    if not whole or not 0 <= label <= MAX_LABEL:  # type: ignore[operator]
        raise AnnotationError(
            f"{what} has the class {label!r}; a whole number from 0 to {MAX_LABEL} is "
            "needed."
        )
    return int(label)  # type: ignore[call-overload,no-any-return]


def checked_pair(values: ArrayLike, what: str, *, positive: bool = False) -> Pair:
    """Return two finite numbers (y, x), else raise `AnnotationError`."""
    try:
        pair = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        pair = np.empty(0)
    if pair.shape != (2,) or not np.isfinite(pair).all():
        raise AnnotationError(
            f"{what} is {values!r}; two finite numbers (y, x) are needed."
        )
    if np.abs(pair).max() > LARGEST:
        raise AnnotationError(f"{what} is {values!r}; up to {LARGEST:g} is possible.")
    if positive and pair.min() < SMALLEST:
        raise AnnotationError(f"{what} is {values!r}; it must be larger than 0.")
    return float(pair[0]), float(pair[1])


def first_centre(edge: ArrayLike, count: int) -> NDArray[np.intp]:
    """Number of the first pixel whose centre lies at or behind ``edge``, 0 to count."""
    return np.clip(np.ceil(np.asarray(edge) - 0.5), 0, count).astype(np.intp)


@dataclass(frozen=True)
class Rectangle:
    """A box along the axes, with a class."""

    label: int
    """1..K, or 0 to take away what lies below."""
    corner: Pair
    """Lower y and x."""
    size: Pair
    """Height and width, larger than 0."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", checked_label(self.label, "A rectangle"))
        corner = checked_pair(self.corner, "The corner of a rectangle")
        size = checked_pair(self.size, "The size of a rectangle", positive=True)
        object.__setattr__(self, "corner", corner)
        object.__setattr__(self, "size", size)

    @property
    def lower(self) -> NDArray[np.float64]:
        """Smallest y and x."""
        return np.array(self.corner)

    @property
    def upper(self) -> NDArray[np.float64]:
        """Largest y and x."""
        return np.add(self.corner, self.size)

    def scaled(self, zoom: NDArray[np.float64]) -> Rectangle:
        """Multiply all coordinates by ``zoom`` (y, x)."""
        return Rectangle(
            self.label,
            _pair(np.multiply(self.corner, zoom)),
            _pair(np.multiply(self.size, zoom)),
        )

    def fill(self, out: NDArray[np.uint8], box: Box) -> None:
        """Write the label into ``out`` wherever a pixel centre lies inside.

        Parameters
        ----------
        out
            (h, w), changed in place.
        box
            World box that ``out`` covers.
        """
        step = np.asarray(box.shape) / out.shape
        low = (self.lower - box.lower) / step
        high = (self.upper - box.lower) / step
        rows, columns = (
            slice(int(first_centre(a, n)), int(first_centre(b, n)))
            for a, b, n in zip(low, high, out.shape, strict=True)
        )
        out[rows, columns] = self.label


@dataclass(frozen=True)
class Ellipse:
    """An ellipse at any angle, with a class."""

    label: int
    """1..K, or 0 to take away what lies below."""
    centre: Pair
    """World position (y, x)."""
    radii: Pair
    """Half axes, larger than 0; at the angle 0 along y and along x."""
    angle: float = 0.0
    """Degrees by which both turn, from the y axis towards the x axis."""

    def __post_init__(self) -> None:
        label = checked_label(self.label, "An ellipse")
        centre = checked_pair(self.centre, "The centre of an ellipse")
        radii = checked_pair(self.radii, "The half axes of an ellipse", positive=True)
        turned, _ = checked_pair((self.angle, 0.0), "The angle of an ellipse")
        object.__setattr__(self, "label", label)
        object.__setattr__(self, "centre", centre)
        object.__setattr__(self, "radii", radii)
        object.__setattr__(self, "angle", turned)

    @classmethod
    def from_diameters(
        cls, label: int, centre: Pair, first: ArrayLike, second: ArrayLike
    ) -> Ellipse:
        """Ellipse out of two conjugate half diameters, vectors (y, x).

        They are what half the edges of a box become when box and ellipse are moved,
        turned, stretched or sheared together.

        Raises
        ------
        AnnotationError
            If they lie on one line, or are not finite.
        """
        pairs = [checked_pair(v, "A half diameter") for v in (first, second)]
        turn, radii, _ = np.linalg.svd(np.array(pairs).T)
        angle = float(np.degrees(np.arctan2(turn[1, 0], turn[0, 0])))
        return cls(label, centre, _pair(radii), angle)

    @property
    def axes(self) -> NDArray[np.float64]:
        """Both half axes as vectors (y, x), one a column, (2, 2)."""
        turn = np.radians(self.angle)
        cos, sin = np.cos(turn), np.sin(turn)
        return np.array([[cos, -sin], [sin, cos]]) * self.radii

    @property
    def lower(self) -> NDArray[np.float64]:
        """Smallest y and x."""
        return np.asarray(self.centre - np.linalg.norm(self.axes, axis=1))

    @property
    def upper(self) -> NDArray[np.float64]:
        """Largest y and x."""
        return np.asarray(self.centre + np.linalg.norm(self.axes, axis=1))

    def scaled(self, zoom: NDArray[np.float64]) -> Ellipse:
        """Multiply all coordinates by ``zoom`` (y, x)."""
        centre = _pair(np.multiply(self.centre, zoom))
        if zoom[0] == zoom[1]:
            radii = _pair(np.multiply(self.radii, zoom))
            return Ellipse(self.label, centre, radii, self.angle)
        return self.from_diameters(
            self.label, centre, *(np.asarray(zoom)[:, None] * self.axes).T
        )

    def outline(self, tolerance: float = 0.1) -> NDArray[np.float64]:
        """Vertices (n, 2) on the ellipse, nowhere further off than ``tolerance``."""
        count = np.pi * np.sqrt(max(self.radii) / (2 * tolerance))
        # A multiple of four holds the ends of both axes.
        count = 4 * int(np.clip(np.ceil(count / 4), 4, 1024))
        turn = 2 * np.pi / count * np.arange(count)
        around = np.stack([np.cos(turn), np.sin(turn)])
        return np.asarray(self.centre + (self.axes @ around).T)

    def fill(self, out: NDArray[np.uint8], box: Box) -> None:
        """Write the label into ``out`` wherever a pixel centre lies inside.

        Parameters
        ----------
        out
            (h, w), changed in place.
        box
            World box that ``out`` covers.
        """
        step = np.asarray(box.shape) / out.shape
        low = (self.lower - box.lower) / step
        high = (self.upper - box.lower) / step
        top = int(first_centre(low[0], len(out)))
        bottom = int(first_centre(high[0], len(out)))
        if bottom <= top or high[1] <= 0 or low[1] >= out.shape[1]:
            return
        centre_y, centre_x = (np.asarray(self.centre) - box.lower) / step
        rows = (np.arange(top, bottom) + 0.5 - centre_y) * step[0]
        left, right = self._chords(rows)
        first = first_centre(centre_x + left / step[1], out.shape[1])
        last = first_centre(centre_x + right / step[1], out.shape[1])
        # By rows, because that needs no memory and a row is one copy.
        for row, (a, b) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
            out[top + row, a:b] = self.label

    def _chords(
        self, rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where lines of constant y (from the centre) enter and leave, in x."""
        axes = self.axes
        spread = axes @ axes.T
        # Points (y, x) inside have (y, x) spread^-1 (y, x) <= 1.
        middle = spread[0, 1] / spread[0, 0] * rows
        rest = np.clip(1 - rows**2 / spread[0, 0], 0, None)
        # The determinant out of the radii: it cannot cancel.
        half = np.prod(self.radii) * np.sqrt(rest / spread[0, 0])
        return middle - half, middle + half


def _pair(values: ArrayLike) -> Pair:
    first, second = np.asarray(values, dtype=np.float64).tolist()
    return first, second
