"""Outlines with holes as the single rings of a Shapes layer, and back.

napari stores a polygon as one ring and fills it by the even-odd rule, an edge that is
walked twice not counting. So a hole is appended by a bridge from the first vertex:
outer ring, its first vertex again, hole, first vertex of the hole again, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[Any]
MIN_VERTICES = 3


def join_rings(outer: Ring, holes: Sequence[Ring]) -> Ring:
    """Append holes, (n, 2) each, to the outer ring."""
    parts = [outer]
    for hole in holes:
        parts += [outer[:1], hole, hole[:1]]
    return np.concatenate(parts)


def split_rings(ring: Ring) -> tuple[Ring, tuple[Ring, ...]]:
    """Return the outer ring and holes; a ring of another kind is all outer."""
    again = np.flatnonzero((ring == ring[0]).all(axis=1))
    outer, *loops = (part[1:] for part in np.split(ring, again[1:]))
    outer = np.concatenate([ring[:1], outer])
    closed = all(
        len(loop) > MIN_VERTICES and np.array_equal(loop[0], loop[-1]) for loop in loops
    )
    if not closed or len(outer) < MIN_VERTICES:
        return ring, ()
    return outer, tuple(loop[:-1] for loop in loops)
