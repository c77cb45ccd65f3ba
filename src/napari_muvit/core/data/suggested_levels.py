"""Which scales suit a slide: as much of the surroundings as it has room for."""

from __future__ import annotations

from collections.abc import Sequence

LADDER: tuple[tuple[float, ...], ...] = ((1, 8, 32), (1, 4, 16), (1, 4), (1, 2))
"""Scale factors of a model, the widest first."""
ROOM = 2
"""Times that the widest view fits into the shorter side of the slide, at least.

A view as wide as the slide shows the same surroundings for every point.
"""


def suggest_levels(
    shape: Sequence[float], crop_size: int, usual: Sequence[float]
) -> tuple[float, ...]:
    """Return the widest of the usual sets of scale factors that a slide has room for.

    Parameters
    ----------
    shape
        Edges of the slide in pixels of the model's finest level.
    crop_size
        Edge of a view in its own pixels.
    usual
        Returned where the slide has room for none of them.
    """
    side = min(shape)
    for factors in LADDER:
        if crop_size * factors[-1] * ROOM <= side:
            return factors
    return tuple(usual)
