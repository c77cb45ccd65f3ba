"""The paper's *Synthetic* task: the class of a cell depends on what lies around it.

Cells look the same everywhere; a cell within a closed wobbly ring is ``inner``, any
other ``outer``. A crop that does not show the ring cannot tell. Every pixel is a pure
function of its position and the seed, so an image may have any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .synthetic_noise import hash_positions, perlin, uniform

CLASS_NAMES = ("background", "outer", "inner")
CLASS_COLORS = ("#999999", "#377eb8", "#ff7f00")
MIN_FIELD = 64
"""Smallest field and image edge, pixels."""
PITCH = 0.72
"""Distance of two rings as a share of the field."""
RING_RADIUS = (0.44, 0.48)
"""Largest radius of a ring as a share of the distance of two rings."""
SECOND_LINE = 0.33
"""Share of the rings that have a second line within."""
ANGLES = 1024
"""Directions in which the radius of a ring is tabulated."""
WOBBLES = ((1.1, 0.9), (2.4, 0.8), (4.2, 0.25))
"""Frequency and strength of each octave of noise in a ring's radius."""
CANDIDATE_PITCH = 9.0
"""Lattice of the places where a cell may be, pixels."""
CELL_DISTANCE = 16.0
"""Least distance of two cell centres: twice the largest radius and a gap, pixels."""
CELL_RADIUS = (4.0, 6.0)
"""Mean radius of a cell, pixels; an outline deviates by up to 15 %."""
LINE_WIDTH = 3.0
"""Pixels."""
LINE_GAP = 2.0
"""Least distance of a cell from a line, pixels."""
FULL_SIZE_PITCH = 110.0
"""With rings closer than this, pixels, cells and lines shrink with them."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Ring:
    """One ring: an outer line and perhaps one within."""

    centre: tuple[float, float]
    """(y, x), pixels."""
    radius: Floats
    """(2, ANGLES), pixels; negative where there is no second line."""
    steepness: Floats
    """(2, ANGLES): distance from the line per radial distance, at most 1."""


@dataclass(frozen=True, eq=False)
class _Cells:
    """Cells, one entry each."""

    centre: Floats
    """(n, 2), pixels."""
    radius: Floats
    """(n,), pixels."""
    place: NDArray[np.int64]
    """(n, 2), the lattice place: the source of all that is random about a cell."""
    inner: NDArray[np.bool_]
    """(n,)."""

    def draw(self, seed: int, low: float, high: float) -> Floats:
        """Random numbers, (n, 1, 1)."""
        values = uniform(self.place[:, 0], self.place[:, 1], seed, low, high)
        return values[:, None, None]


class SyntheticSlide:
    """An image of rings and cells, made window by window.

    Parameters
    ----------
    size
        Edge of the square image, or (height, width), pixels.
    field
        A ring fits into a window of this edge, pixels.
    seed
        Of everything.

    Raises
    ------
    ConfigError
        If a number is too small.
    """

    def __init__(
        self, size: int | tuple[int, int], field: int = 256, seed: int = 0
    ) -> None:
        shape = (size, size) if isinstance(size, int) else tuple(size)
        for name, value in (("size", min(shape)), ("field", field)):
            if value < MIN_FIELD:
                raise ConfigError(
                    f"{name} is {value}; at least {MIN_FIELD} pixels are needed.", name
                )
        self.shape: tuple[int, int] = (int(shape[0]), int(shape[1]))
        self.field = int(field)
        # Rings fill the image evenly and none is cut by its border: a cut ring would
        # leave cells whose class nobody can tell.
        # Rather too small than too large for the field.
        counts = [max(1, round(n / (PITCH * field) + 0.2)) for n in shape]
        self._counts = np.array(counts)
        self._pitch = np.asarray(shape) / self._counts
        self._shrink = min(1.0, float(self._pitch.min()) / FULL_SIZE_PITCH)
        self._seeds = hash_positions(np.arange(8), seed & 0x7FFFFFFF, 1).tolist()
        self._rings: dict[tuple[int, int], _Ring] = {}

    def image(self, lower: Sequence[int], upper: Sequence[int]) -> NDArray[np.uint8]:
        """Pixels of the window [lower, upper), (h, w), uint8."""
        y, x = _centres(lower, upper)
        value = 30 + 9 * perlin(y / 61, x / 61, self._seeds[0])
        value += 6 * perlin(y / 17, x / 17, self._seeds[1])
        distance, _ = self._lines(y, x)
        line = np.clip((LINE_WIDTH * self._shrink + 1) / 2 - distance, 0, 1)
        value += line * 105
        coverage, bright, _ = self._paint(lower, upper)
        value += coverage * (bright - value)
        bits = hash_positions(np.floor(y), np.floor(x), self._seeds[2])
        grain = sum((bits >> np.uint32(8 * i)) & np.uint32(255) for i in range(4))
        value += (grain - 510.0) / 30
        return np.clip(np.rint(value), 0, 255).astype(np.uint8)

    def labels(self, lower: Sequence[int], upper: Sequence[int]) -> NDArray[np.uint8]:
        """Labels of the window [lower, upper), (h, w), uint8: 1, 2 or 3."""
        return self._paint(lower, upper)[2]

    def _ring(self, row: int, column: int) -> _Ring:
        """Ring of a lattice place."""
        if (row, column) not in self._rings:
            if len(self._rings) > 4096:
                self._rings.clear()
            self._rings[row, column] = self._make_ring(row, column)
        return self._rings[row, column]

    def _make_ring(self, row: int, column: int) -> _Ring:
        def draw(number: int, low: float = 0.0, high: float = 1.0) -> float:
            seed = self._seeds[3] + 101 * number
            return float(uniform(row, column, seed, low, high))

        angle = np.arange(ANGLES, dtype=np.float64) * (2 * np.pi / ANGLES)
        edge = float(self._pitch.min())
        outer = _wobble(angle, draw(0, 0, 9e4), draw(1, 0, 9e4), self._seeds[4])
        largest = edge * draw(2, *RING_RADIUS)
        outer *= largest / outer.max()
        inner = np.full(ANGLES, -1e9)
        if draw(3) < SECOND_LINE:
            wobble = _wobble(angle, draw(4, 0, 9e4), draw(5, 0, 9e4), self._seeds[4])
            inner = outer.min() * 0.75 * wobble / wobble.max()
        radius = np.stack([outer, inner])
        slope = (np.roll(radius, -1, axis=1) - np.roll(radius, 1, axis=1)) / (
            4 * np.pi / ANGLES
        )
        # The gap to the next ring is the same for all: outside looks like inside.
        free = np.maximum(0, self._pitch / 2 - largest - 4)
        centre = (np.array([row, column]) + 0.5) * self._pitch
        centre += free * np.array([draw(6, -1), draw(7, -1)])
        return _Ring(
            (float(centre[0]), float(centre[1])),
            radius,
            1 / np.sqrt(1 + (slope / radius) ** 2),
        )

    def _lines(self, y: Floats, x: Floats) -> tuple[Floats, NDArray[np.uint8]]:
        """Distance from the nearest line, and the number of lines around a point.

        Parameters
        ----------
        y, x
            Pixel coordinates, broadcasting.
        """
        row = np.floor(y / self._pitch[0]).clip(0, self._counts[0] - 1).astype(int)
        column = np.floor(x / self._pitch[1]).clip(0, self._counts[1] - 1).astype(int)
        first = int(row.min()), int(column.min())
        span = int(row.max()) - first[0] + 1, int(column.max()) - first[1] + 1
        rings = [
            self._ring(first[0] + i, first[1] + j)
            for i in range(span[0])
            for j in range(span[1])
        ]
        number = (row - first[0]) * span[1] + column - first[1]
        centre = np.array([r.centre for r in rings])
        dy, dx = y - centre[number, 0], x - centre[number, 1]
        away = np.sqrt(dy * dy + dx * dx)
        # float64 throughout: sums may differ in the last bit between windows.
        turn = np.arctan2(dy, dx) * (ANGLES / (2 * np.pi))
        left = np.floor(turn)
        share = turn - left
        at = number * ANGLES + left.astype(int) % ANGLES
        after = number * ANGLES + (left.astype(int) + 1) % ANGLES
        distance = np.full(away.shape, np.inf)
        around = np.zeros(away.shape, dtype=np.uint8)
        for k in (0, 1):
            radius = np.concatenate([r.radius[k] for r in rings])
            steep = np.concatenate([r.steepness[k] for r in rings])
            here = radius[at] + share * (radius[after] - radius[at])
            distance = np.minimum(distance, np.abs(away - here) * steep[at])
            around += away < here
        return distance, around

    def _cells(self, lower: Sequence[int], upper: Sequence[int]) -> _Cells:
        """Cells that may reach into a window."""
        pitch = CANDIDATE_PITCH * self._shrink
        reach = CELL_RADIUS[1] * 1.15 * self._shrink + 2
        first = [int(np.floor((v - reach) / pitch)) - 2 for v in lower]
        last = [int(np.floor((v + reach) / pitch)) + 3 for v in upper]
        i = np.arange(first[0], last[0])[:, None]
        j = np.arange(first[1], last[1])[None]
        centre_y = (i + uniform(i, j, self._seeds[5])) * pitch
        centre_x = (j + uniform(i, j, self._seeds[5] + 1)) * pitch
        rank = hash_positions(i, j, self._seeds[6])
        kept = _keep_apart(centre_y, centre_x, rank, CELL_DISTANCE * self._shrink)
        place = np.argwhere(kept) + first
        centre = np.stack([centre_y[kept], centre_x[kept]], axis=1)
        radius = self._shrink * uniform(
            place[:, 0], place[:, 1], self._seeds[5] + 2, *CELL_RADIUS
        )
        inner, free = self._surroundings(centre, radius)
        return _Cells(centre[free], radius[free], place[free], inner[free])

    def _surroundings(
        self, centre: Floats, radius: Floats
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether each cell lies in a ring, and whether no line comes near it."""
        if not len(centre):
            return np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
        angle = np.arange(16) * (2 * np.pi / 16)
        reach = radius * 1.15 + self._shrink * (LINE_GAP + LINE_WIDTH / 2)
        y = centre[:, :1] + reach[:, None] * np.append(np.sin(angle), 0)
        x = centre[:, 1:] + reach[:, None] * np.append(np.cos(angle), 0)
        _, around = self._lines(y, x)
        return around[:, -1] > 0, (around == around[:, -1:]).all(axis=1)

    def _paint(
        self, lower: Sequence[int], upper: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
        """Share of each pixel that a cell covers, its brightness, and the labels."""
        cells = self._cells(lower, upper)
        height, width = (u - v for v, u in zip(lower, upper, strict=True))
        half = int(np.ceil(CELL_RADIUS[1] * 1.15)) + 1
        # A frame takes what hangs over the window's edge.
        frame = 2 * half + 4
        shape = (height + 2 * frame, width + 2 * frame)
        coverage = np.zeros(shape, dtype=np.float32)
        bright = np.zeros(shape, dtype=np.float32)
        labels = np.ones(shape, dtype=np.uint8)
        base = np.floor(cells.centre).astype(int)
        offset = np.arange(-half, half + 1)
        row = (base[:, 0, None] + offset)[:, :, None]
        column = (base[:, 1, None] + offset)[:, None, :]
        dy = row + 0.5 - cells.centre[:, 0, None, None]
        dx = column + 0.5 - cells.centre[:, 1, None, None]
        away = np.sqrt(dy * dy + dx * dx)
        edge = self._outline(cells, np.arctan2(dy, dx))
        covered = np.clip(edge - away + 0.5, 0, 1)
        at_row, at_column = row - lower[0] + frame, column - lower[1] + frame
        seen = covered > 0
        seen &= (at_row >= 0) & (at_row < shape[0])
        seen &= (at_column >= 0) & (at_column < shape[1])
        flat = (at_row * shape[1] + at_column)[seen]
        level = cells.draw(self._seeds[7], 150, 215)
        shade = level * (1.08 - 0.3 * (away / edge) ** 2)
        # No two cells share a pixel, so plain assignment will do.
        coverage.flat[flat] = covered[seen]
        bright.flat[flat] = shade[seen]
        kind = np.where(cells.inner, 3, 2).astype(np.uint8)[:, None, None]
        labels.flat[flat] = np.where(away < edge, kind, 1)[seen]
        window = (slice(frame, frame + height), slice(frame, frame + width))
        return coverage[window], bright[window], labels[window].copy()

    def _outline(self, cells: _Cells, angle: Floats) -> Floats:
        """Radius of each cell in the directions ``angle`` (n, h, w), pixels."""

        def draw(number: int, high: float) -> Floats:
            return cells.draw(self._seeds[7] + 101 * number, 0, high)

        wave = draw(1, 0.1) * np.cos(2 * angle + draw(2, 2 * np.pi))
        wave += draw(3, 0.05) * np.cos(3 * angle + draw(4, 2 * np.pi))
        return np.asarray(cells.radius[:, None, None] * (1 + wave))


def _centres(lower: Sequence[int], upper: Sequence[int]) -> tuple[Floats, Floats]:
    """Pixel centres of a window, (h, 1) and (1, w)."""
    y = np.arange(lower[0], upper[0], dtype=np.float64) + 0.5
    x = np.arange(lower[1], upper[1], dtype=np.float64) + 0.5
    return y[:, None], x[None]


def _wobble(angle: Floats, y: float, x: float, seed: int) -> Floats:
    """Radius of a wobbly closed line around 1: noise along circles in a plane."""
    total = np.zeros(len(angle))
    for frequency, strength in WOBBLES:
        around = perlin(
            y + frequency * np.sin(angle), x + frequency * np.cos(angle), seed
        )
        total += strength * around
    # Bounded, so that a ring is never pinched off.
    return 1 + 0.36 * np.tanh(total * 1.4)


def _keep_apart(
    y: Floats, x: Floats, rank: NDArray[np.uint32], distance: float
) -> NDArray[np.bool_]:
    """Keep the candidates that outrank all others nearer than ``distance``.

    A candidate lies somewhere in its lattice square, so only two squares in each
    direction matter, and whether one is kept does not depend on the window. The two
    outermost rows and columns, whose neighbours are unknown, are not kept.
    """
    kept = np.zeros(y.shape, dtype=bool)
    core = (slice(2, -2), slice(2, -2))
    ok = np.ones(y[core].shape, dtype=bool)
    height, width = y.shape
    for i in range(5):
        for j in range(5):
            if i == j == 2:
                continue
            other = (slice(i, height - 4 + i), slice(j, width - 4 + j))
            near = (y[other] - y[core]) ** 2 + (x[other] - x[core]) ** 2 < distance**2
            ok &= ~(near & (rank[other] >= rank[core]))
    kept[core] = ok
    return kept
