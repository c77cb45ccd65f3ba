"""Channels that lie in arrays of their own, as one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import PyramidError
from .arrays import ArraySource
from .block_cache import Pixels


class ChannelStack:
    """Sources of one channel each, seen as an array (C, y, x).

    Parameters
    ----------
    sources
        Of the same size, one channel each.

    Raises
    ------
    PyramidError
        If they differ in size, or one has several channels.
    """

    def __init__(self, sources: Sequence[ArraySource]) -> None:
        shapes = {source.shape for source in sources}
        if len(shapes) != 1 or next(iter(shapes))[0] != 1:
            said = ", ".join(" x ".join(map(str, s)) for s in sorted(shapes))
            raise PyramidError(
                f"Channels of the sizes {said} cannot be one slide; images of one "
                "channel and the same size are needed."
            )
        self.sources = tuple(sources)
        self.shape: tuple[int, ...] = (len(sources), *sources[0].shape[1:])
        self.dtype: np.dtype[Any] = np.result_type(*(s.dtype for s in sources))
        edges = [s.chunks for s in sources if s.chunks is not None]
        # The largest ones, so that no channel's chunk is read twice.
        self.chunks = (1, *map(max, zip(*edges, strict=True))) if edges else None

    def __getitem__(self, key: tuple[slice, slice, slice]) -> Pixels:
        """Read whole spans; only the channels that are asked for."""
        which, rows, columns = key
        lower, upper = (rows.start, columns.start), (rows.stop, columns.stop)
        blocks = [source.read(lower, upper) for source in self.sources[which]]
        return np.concatenate(blocks).astype(self.dtype, copy=False)


def stack_sources(sources: Sequence[ArraySource]) -> ArraySource:
    """Return sources of one channel each as one; of one array it stays that array."""
    first = sources[0]
    if all(_same_array(first, source) for source in sources):
        picked = tuple(c for source in sources for c in source.channels or (0,))
        return ArraySource(first.array, first.axes, first.spatial, first.fixed, picked)
    return ArraySource(ChannelStack(sources), "cyx")


def _same_array(one: ArraySource, other: ArraySource) -> bool:
    """Whether two sources are channels of one array and plane."""
    return one.array is other.array and (one.axes, one.spatial, dict(one.fixed)) == (
        other.axes, other.spatial, dict(other.fixed),
    )  # fmt: skip
