"""Which pixels lie near seams, and which away from them; torch-free.

A *seam* is an edge between two cores (`grid`) of either of two grids that lie half a
core apart. A pixel is *near* where a seam is less than 1/16 of a core away (at least 2
pixels), and *away* where all seams are at least 1/8 of a core away; the furthest that
a pixel can be is 1/4. Cores shrink with the overlap, so the zones hold about 44 % and
25 % of the pixels whatever it is. The outermost half core of a slide is in neither:
both grids push the same crop into the slide there, and agree.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .grid import Axis
from .tiles import Tile

NEAR, AWAY = 1 / 16, 1 / 8
"""Distances from a seam, in cores."""
LEAST_NEAR = 2.0
"""World pixels."""

Axes = tuple[Axis, Axis]
Flags = NDArray[np.bool_]


class SeamZones:
    """The zones of a slide that is tiled in two ways.

    Parameters
    ----------
    usual, shifted
        Crops along the rows and along the columns.
    """

    def __init__(self, usual: Axes, shifted: Axes) -> None:
        self._axes = [
            _AxisZones(a, b) for a, b in zip(usual, shifted, strict=True)
        ]  # fmt: skip

    def of(self, tile: Tile) -> tuple[Flags, Flags]:
        """Return which of a tile's output pixels are near seams, and which away.

        Returns
        -------
        tuple of ndarray
            Two of the shape of ``tile.box``, bool.
        """
        zones = []
        for axis, found in enumerate(self._axes):
            pixels = np.arange(tile.box[axis], tile.box[axis + 2], dtype=np.float64)
            # Their centres in world coordinates.
            zones.append(found.of(tile.offset[axis] + (pixels + 0.5) * tile.zoom[axis]))
        rows, columns = zones
        counted = rows[2][:, None] & columns[2]
        near = rows[0][:, None] | columns[0]
        away = rows[1][:, None] & columns[1]
        return near & counted, away & counted


class _AxisZones:
    """The zones along one axis."""

    def __init__(self, usual: Axis, shifted: Axis) -> None:
        inner = {a.edge(i) for a in (usual, shifted) for i in range(1, a.count)}
        # The ends of the slide are no seams.
        self._seams = np.array([-np.inf, *sorted(inner), np.inf])
        core = (usual.last - usual.first) / usual.count
        self._near = max(NEAR * core, LEAST_NEAR)
        self._away = max(AWAY * core, self._near)
        # Where one crop sees all, both grids are the same, and nothing is left out.
        border = core / 2 if usual.count > 1 else -np.inf
        self._first, self._last = usual.first + border, usual.last - border

    def of(self, places: NDArray[np.float64]) -> tuple[Flags, Flags, Flags]:
        """Return which places are near, away, and counted at all."""
        after = np.searchsorted(self._seams, places)
        distance = np.minimum(
            places - self._seams[after - 1], self._seams[after] - places
        )
        counted = (places >= self._first) & (places < self._last)
        return distance < self._near, distance >= self._away, counted


def count_pairs(
    first: NDArray[np.uint8], second: NDArray[np.uint8], classes: int
) -> NDArray[np.int64]:
    """Return how often each pair of labels occurs, (K + 1, K + 1), first along rows."""
    pairs = first.astype(np.int64) * (classes + 1) + second
    counts = np.bincount(pairs.ravel(), minlength=(classes + 1) ** 2)
    return counts.reshape(classes + 1, classes + 1)
