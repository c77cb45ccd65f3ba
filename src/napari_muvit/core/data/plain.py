"""Arrays without metadata as pyramids: axes and factors follow from the shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import PyramidError
from .arrays import ArrayLike, ArraySource
from .choice import AxisNames
from .pyramid import PyramidLevel
from .units import level_factors

MAX_CHANNELS = 16
"""A longer first axis is not taken for channels."""


def guess_axes(
    shape: Sequence[int], names: Sequence[str | None] | None = None, ndim: int = 2
) -> tuple[str, bool]:
    """Return the axes of an array, and whether its channels are RGB(A).

    (y, x); (y, x, c) when the last axis is 3 or 4 and the first is not small; (c, y, x)
    when the first axis is the smallest and at most 16; (t, c, z, y, x) of five axes;
    otherwise names such as ``("z", "y", "x")`` are needed. Where a 3D image is wanted,
    (z, y, x), (c, z, y, x) and (t, c, z, y, x).

    Raises
    ------
    PyramidError
        If the shape allows no guess.
    """
    if names and all(names) and {"y", "x"} <= {str(n).lower() for n in names}:
        letters = "".join(str(n).lower() for n in names)
        if len(letters) == len(shape):
            return letters, letters.endswith("c") and shape[-1] in (3, 4)
    if len(shape) == 2:
        return "yx", False
    if ndim == 3 and len(shape) in (3, 4):
        return "czyx"[-len(shape) :], False
    if len(shape) == 3:
        if shape[-1] in (3, 4) and shape[0] > 4:
            return "yxc", True
        if shape[0] <= MAX_CHANNELS and shape[0] <= min(shape[1:]):
            return "cyx", False
    if len(shape) == 5:
        return "tczyx", False
    raise PyramidError(
        f"The axes of an array of shape {tuple(shape)} cannot be guessed: (y, x), "
        "(c, y, x) with up to 16 channels or (y, x, 3) is needed. Name them, such as "
        "axes='zyx'."
    )


def levels_from_arrays(
    arrays: Sequence[ArrayLike],
    axes: AxisNames,
    rgb: bool = False,
    spatial: str = "yx",
    planes: Mapping[str, int] | None = None,
) -> tuple[PyramidLevel, ...]:
    """Levels of arrays of the same axes, finest first, with edges that agree.

    Parameters
    ----------
    arrays
        Arrays, from fine to coarse.
    axes
        Axes of the finest one.
    rgb
        The channels are RGB(A): an alpha channel is dropped.
    spatial
        ``yx`` or ``zyx``.
    planes
        Index of each other axis but c, in the finest one; missing: 0.
    """
    if not arrays:
        raise PyramidError("A multiscale image needs at least one array, got none.")
    letters = axes.letters
    levels = []
    finest: tuple[int, ...] = ()
    for array in arrays:
        channels = None
        if rgb and array.shape[letters.index("c")] == 4:
            channels = (0, 1, 2)
        fixed = axes.at_level(planes or {}, array.shape)
        source = ArraySource(array, letters, spatial, fixed, channels)
        finest = finest or source.shape[1:]
        factors = level_factors(finest, source.shape[1:])
        levels.append(PyramidLevel(source, factors, (0.0,) * len(factors)))
    return tuple(levels)
