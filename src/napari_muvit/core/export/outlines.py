"""Labels of a small area as outlined polygons, for people who go on editing them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.polygons import Polygon
from ..errors import ConfigError
from .features import corners_of
from .pieces import CornerFile
from .rings import Objects, find_objects
from .runs import runs_of
from .simplify import simplify
from .tracer import Tracer

MOST_PIXELS = 4096**2
"""Of an area: all of it is in memory."""
TOLERANCE = 1.0
"""Pixels by which outlines may move: fewer corners to drag, the same area."""

Labels = NDArray[np.uint8]


def outline_labels(
    labels: Labels,
    *,
    offset: Sequence[float] = (0.0, 0.0),
    step: Sequence[float] = (1.0, 1.0),
    least: int = 1,
    tolerance: float = TOLERANCE,
) -> tuple[Polygon, ...]:
    """Follow the outlines of all parts of one label whose pixels meet at edges.

    Parameters
    ----------
    labels
        (h, w) uint8; 0 is nothing.
    offset
        World position (y, x) of the lower edge of pixel 0.
    step
        World pixels per pixel along each axis.
    least
        Fewest pixels of a part; smaller ones are left out.
    tolerance
        Pixels by which an outline may move; 0: along pixel edges.

    Returns
    -------
    tuple of Polygon
        In reading order, with their labels and holes, in world coordinates.

    Raises
    ------
    ConfigError
        If there are more pixels than fit.
    """
    if labels.size > MOST_PIXELS:
        raise ConfigError(
            f"The area has {labels.shape[0]} x {labels.shape[1]} pixels; at most "
            f"{MOST_PIXELS:,} can be outlined at once. Choose a smaller one."
        )
    if not labels.any():
        return ()
    with (
        tempfile.TemporaryDirectory(prefix="muvit-outlines-") as folder,
        CornerFile(Path(folder) / "corners") as corners,
    ):
        objects = _follow(labels, corners, least)
        values = objects.value.tolist()
        rings, owner = _rings(objects)
        # What is read from the file must be closed before the folder goes.
        del objects
    lines = simplify(rings, owner, tolerance)
    bounds = np.searchsorted(owner, np.arange(len(values) + 1))
    found = []
    for label, low, high in zip(values, bounds[:-1], bounds[1:], strict=True):
        outer, *holes = (line * np.array(step) + offset for line in lines[low:high])
        found.append(Polygon(label, outer, tuple(holes)))
    return tuple(found)


def _follow(labels: Labels, corners: CornerFile, least: int) -> Objects:
    height, width = labels.shape
    tracer = Tracer(width, corners, least)
    runs = runs_of(np.ascontiguousarray(labels))
    tracer.add(height, runs.select(runs.value > 0))
    tracer.finish(height)
    return find_objects(tracer, least, 0)


def _rings(objects: Objects) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Exact rings (n, 2) of (y, x), outer ones first, and the object of each."""
    rings, owner = [], []
    for index in range(len(objects)):
        for piece in objects.rings(index):
            parts = list(corners_of(objects.ring(piece)))
            rings.append(np.concatenate(parts)[:, ::-1])
            owner.append(index)
    return rings, np.array(owner, dtype=np.int64)
