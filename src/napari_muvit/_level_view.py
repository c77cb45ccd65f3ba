"""A level of a slide as an array that napari slices."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .core.errors import PyramidError

if TYPE_CHECKING:
    from .core.data.arrays import ArraySource
    from .core.data.pyramid import PyramidLevel


class LevelView:
    """A level as napari wants it: leading axes, rows, columns, and colours if any.

    Parameters
    ----------
    level
        The level, with its place.
    channel
        Channel that is shown; None: all, as colours.
    leading
        Axes before rows and columns, the same in every level of a layer; None: those
        along which there is more than one plane here.
    """

    def __init__(
        self, level: PyramidLevel, channel: int | None, leading: str | None = None
    ) -> None:
        source = level.source
        axes = source.axes
        lengths = dict(zip(axes, source.array.shape, strict=True))
        self.level = level
        self.source = source
        self.channel = channel
        self._planes: dict[tuple[int, ...], ArraySource] = {}
        if leading is None:
            leading = "".join(a for a in axes if a not in "cyx" and lengths[a] > 1)
        self.leading = leading
        colours = () if channel is not None else (source.shape[0],)
        self.shape: tuple[int, ...] = (
            *(lengths[a] for a in self.leading), lengths["y"], lengths["x"], *colours,
        )  # fmt: skip
        self.dtype = source.dtype
        rows, columns = source.chunks or source.shape[1:]
        self.chunks: tuple[int, ...] = (1,) * len(self.leading) + (rows, columns)
        self.chunks += colours

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Pixels."""
        return int(np.prod(self.shape))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        del copy
        return np.asarray(self[()], dtype=dtype)

    def __getitem__(self, key: Any) -> Any:
        """Slice; only what is asked for is read."""
        key = _whole_key(key, self.ndim)
        spans, then = zip(
            *(_span(k, n) for k, n in zip(key, self.shape, strict=True)), strict=True
        )
        block = self._read(spans)
        return block[tuple(then)]

    def __setitem__(self, key: Any, value: Any) -> None:
        """Refuse to paint into somebody's file."""
        raise PyramidError(
            "This layer shows a file, which is not changed; paint into a new Labels "
            "layer."
        )

    def _read(self, spans: Sequence[slice]) -> Any:
        """Pixels of whole spans, in the order of `shape`."""
        lead = len(self.leading)
        rows, columns = spans[lead : lead + 2]
        planes = list(
            itertools.product(*(range(s.start, s.stop) for s in spans[:lead]))
        )
        shape = [s.stop - s.start for s in spans]
        if 0 in shape or not planes:
            return np.empty(shape, dtype=self.dtype)
        blocks = [self._plane(plane, rows, columns) for plane in planes]
        out = blocks[0][None] if len(blocks) == 1 else np.stack(blocks)
        if self.channel is None:
            out = out[..., spans[-1]]
        return out.reshape(shape)

    def at(self, plane: Sequence[int]) -> ArraySource:
        """Return one plane as the core reads it.

        Parameters
        ----------
        plane
            Index along each leading axis.
        """
        key = tuple(int(i) for i in plane)
        if key not in self._planes:
            fixed = {**self.source.fixed, **dict(zip(self.leading, key, strict=True))}
            # Kept, because a cache tells pixels from others by their source.
            self._planes[key] = dataclasses.replace(self.source, fixed=fixed)
        return self._planes[key]

    def _plane(self, plane: tuple[int, ...], rows: slice, columns: slice) -> Any:
        """Pixels of one plane: (y, x), or with colours last."""
        from .core.data.block_cache import shared_cache
        from .core.data.level_reading import read_stored

        source = self.at(plane) if plane else self.source
        lower, upper = (rows.start, columns.start), (rows.stop, columns.stop)
        return self._shown(read_stored(source, lower, upper, shared_cache()))

    def _shown(self, block: NDArray[Any]) -> NDArray[Any]:
        """(C, y, x) as one channel, or with colours last."""
        return (
            np.moveaxis(block, 0, -1) if self.channel is None else block[self.channel]
        )


class AveragedView(LevelView):
    """A level that the file lacks, averaged for the screen where it is looked at.

    Without one napari would load a flat slide as a whole.

    Parameters
    ----------
    level
        The level that is averaged.
    channel, leading
        See `LevelView`.
    step
        Pixels of the level per pixel of this one.
    """

    def __init__(
        self, level: PyramidLevel, channel: int | None, leading: str, step: int
    ) -> None:
        from .core.data.averaged import averaged_shape

        super().__init__(level, channel, leading)
        self.step = step
        lead = len(leading)
        rows, columns = averaged_shape(level.shape, (step, step))
        self.shape = (*self.shape[:lead], rows, columns, *self.shape[lead + 2 :])

    def _plane(self, plane: tuple[int, ...], rows: slice, columns: slice) -> Any:
        from .core.data.block_cache import shared_cache
        from .core.data.level_reading import read_level

        source = self.at(plane) if plane else self.source
        start = (rows.start * self.step, columns.start * self.step)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        step = (float(self.step),) * 2
        block = read_level(source, start, step, shape, 0.0, shared_cache())
        if self.dtype.kind in "iu":
            block = np.rint(block)
        return self._shown(block).astype(self.dtype)


def _whole_key(key: Any, ndim: int) -> tuple[Any, ...]:
    """A key for every axis, without an ellipsis."""
    key = key if isinstance(key, tuple) else (key,)
    if Ellipsis in key:
        at = key.index(Ellipsis)
        gap = (slice(None),) * (ndim - len(key) + 1)
        key = (*key[:at], *gap, *key[at + 1 :])
    if len(key) > ndim:
        raise IndexError(f"{len(key)} indices were given for {ndim} axes.")
    return (*key, *(slice(None),) * (ndim - len(key)))


def _span(key: Any, size: int) -> tuple[slice, Any]:
    """What to read along an axis, and how to index what was read."""
    if isinstance(key, slice):
        start, stop, step = key.indices(size)
        if step > 0:
            return slice(start, max(start, stop)), slice(None, None, step)
        chosen = np.arange(size)[key]
    else:
        index = np.asarray(key)
        if index.ndim == 0:
            number = int(index) + (size if int(index) < 0 else 0)
            if not 0 <= number < size:
                raise IndexError(f"Index {int(index)} is outside 0 to {size - 1}.")
            return slice(number, number + 1), 0
        chosen = np.arange(size)[key]
    if len(chosen) == 0:
        return slice(0, 0), chosen
    first = int(chosen.min())
    return slice(first, int(chosen.max()) + 1), chosen - first
