"""The slide of the walk-through: where its rings lie, and how good a result is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_muvit.core import write_synthetic
from napari_muvit.core.data.synthetic_slide import ANGLES, SyntheticSlide

SIZE, FIELD, SEED = 2048, 256, 7
OUTSIDE, INSIDE, RING = 1, 2, 3
CLASSES = ("outside", "inside", "ring")
HALF_LINE = 3
"""What counts as ring on each side of its line, pixels."""
STRIPE = 256
Point = tuple[float, float]


class RingSlide:
    """A slide of rings and cells; inside of a ring looks as outside of it."""

    def __init__(self, folder: Path) -> None:
        self.path = write_synthetic(folder, 1, SIZE, FIELD, SEED)[0][0]
        self._slide = SyntheticSlide(SIZE, FIELD, SEED)
        self.pitch = float(self._slide._pitch[0])

    def ring(
        self, row: int, column: int, share: float = 1.0, n: int = 40
    ) -> list[Point]:
        """Points along a ring; ``share`` of its radius."""
        ring = self._slide._ring(row, column)
        at = np.linspace(0, ANGLES, n, endpoint=False).astype(int)
        angle = at * (2 * np.pi / ANGLES)
        radius = ring.radius[0][at] * share
        y = ring.centre[0] + radius * np.sin(angle)
        x = ring.centre[1] + radius * np.cos(angle)
        return list(zip(y.tolist(), x.tolist(), strict=True))

    def centre(self, row: int, column: int) -> Point:
        """Of a ring."""
        return self._slide._ring(row, column).centre

    def gap(self, row: int, column: int) -> Point:
        """Where four rings meet: above and left of a ring."""
        return row * self.pitch, column * self.pitch

    def diamond(self, row: int, column: int, reach: float = 42) -> list[Point]:
        """Corners of a piece of what lies between four rings."""
        y, x = self.gap(row, column)
        near = reach * 0.45
        return [
            (y - reach, x), (y - near, x + near), (y, x + reach), (y + near, x + near),
            (y + reach, x), (y + near, x - near), (y, x - reach), (y - near, x - near),
        ]  # fmt: skip

    def truth(self) -> NDArray[np.uint8]:
        """What each pixel is: `OUTSIDE`, `INSIDE` or `RING`."""
        found = np.empty((SIZE, SIZE), np.uint8)
        x = np.arange(SIZE)[None] + 0.5
        for start in range(0, SIZE, STRIPE):
            y = np.arange(start, start + STRIPE)[:, None] + 0.5
            distance, around = self._slide._lines(y, x)
            stripe = np.where(around > 0, INSIDE, OUTSIDE)
            found[start : start + STRIPE] = np.where(distance < HALF_LINE, RING, stripe)
        return found


def dice(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, float]:
    """Dice of each class where something was found."""
    known = found > 0
    found, truth = found[known], truth[known]
    return {
        name: round(
            2.0
            * float(((found == k) & (truth == k)).sum())
            / max(1, int((found == k).sum() + (truth == k).sum())),
            3,
        )
        for k, name in enumerate(CLASSES, start=1)
    }
