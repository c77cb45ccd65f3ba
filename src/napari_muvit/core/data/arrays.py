"""Array-likes as channel-first sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ..errors import MuvitError, PyramidError
from .block_cache import BlockGrid, Pixels
from .fast_zarr import FastZarr, is_local

MAX_CHANNELS = 4096
"""More say that the file is damaged: a pixel is read with all of its channels."""
MAX_EDGE = 2**48
"""Pixels. Beyond, world coordinates would no longer tell neighbours apart."""


class ArrayLike(Protocol):
    """What zarr, dask and numpy arrays have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        ...

    @property
    def dtype(self) -> Any:
        """Pixel type."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An array with named axes, seen as (C, *spatial).

    Leading axes such as t and z are fixed at one index. Nothing is read on creation.
    """

    array: ArrayLike
    """zarr, dask or numpy array, or anything with shape, dtype and basic slicing."""
    axes: str
    """One letter an array axis, such as ``tczyx`` or ``yxc``."""
    spatial: str = "yx"
    """The spatial axes, in the order in which they are handed out."""
    fixed: Mapping[str, int] = field(default_factory=dict)
    """Index of each axis that is neither spatial nor c; missing: 0."""
    channels: tuple[int, ...] | None = None
    """Channels handed out; None: all."""
    key: object = field(default_factory=object, init=False, repr=False)
    """Tells these pixels from others in a cache."""

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.array.shape) or len(set(self.axes)) != len(
            self.axes
        ):
            raise PyramidError(
                f"Axes {self.axes!r} do not fit an array of shape {self.array.shape}."
            )
        missing = [a for a in self.spatial if a not in self.axes]
        if missing:
            raise PyramidError(
                f"The image has axes {self.axes!r} but needs {self.spatial!r}."
            )
        dtype = np.dtype(self.array.dtype)
        if dtype.kind not in "buif":
            raise PyramidError(
                f"Pixels of type {dtype} cannot be used; integers or floats are needed."
            )
        if 0 in self.array.shape:
            raise PyramidError(f"The image is empty: its shape is {self.array.shape}.")
        if self.shape[0] > MAX_CHANNELS or max(self.shape) > MAX_EDGE:
            raise PyramidError(
                f"The image says that it has {self.shape[0]} channels of "
                f"{' x '.join(map(str, self.shape[1:]))} pixels; at most "
                f"{MAX_CHANNELS} channels are read."
            )

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial)."""
        if self.channels is not None:
            count = len(self.channels)
        else:
            count = self.array.shape[self.axes.index("c")] if "c" in self.axes else 1
        return (count, *(self.array.shape[self.axes.index(a)] for a in self.spatial))

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Chunk edge along each spatial axis, or None when pixels are in memory."""
        if isinstance(self.array, np.ndarray) and not isinstance(self.array, np.memmap):
            return None
        chunks = getattr(self.array, "chunks", None)
        if not chunks or len(chunks) != len(self.axes):
            return tuple(min(512, n) for n in self.shape[1:])
        edges = (chunks[self.axes.index(a)] for a in self.spatial)
        # dask gives a tuple of edges an axis, zarr one edge.
        return tuple(int(max(e) if isinstance(e, tuple) else e) for e in edges)

    @cached_property
    def grid(self) -> BlockGrid | None:
        """Blocks to keep when they are read; None when pixels are in memory."""
        chunks = self.chunks
        if chunks is None:
            return None
        return BlockGrid(self.key, self.shape, self.dtype, chunks, self.read)

    @cached_property
    def reader(self) -> ArrayLike:
        """What is sliced: the array, or what reads it faster and checks its file."""
        array: Any = self.array
        if is_local(array):
            array = FastZarr(array)
        reader: ArrayLike = array
        return reader

    def __getstate__(self) -> dict[str, Any]:
        # What is open stays here; a copy in another process opens its own.
        fields = dict(self.__dict__)
        for name in ("grid", "reader"):
            fields.pop(name, None)
        return fields

    def read(self, lower: Sequence[int], upper: Sequence[int]) -> Pixels:
        """Read pixels [lower, upper) as (C, *spatial), which must lie inside."""
        spans = dict(zip(self.spatial, zip(lower, upper, strict=True), strict=True))
        key: list[int | slice] = []
        kept = ""
        for axis in self.axes:
            if axis in spans:
                key.append(slice(*spans[axis]))
                kept += axis
            elif axis == "c":
                key.append(self._channel_span)
                kept += axis
            else:
                key.append(self.fixed.get(axis, 0))
        try:
            block = np.asarray(self.reader[tuple(key)])
        except (MuvitError, MemoryError):
            raise
        except Exception as error:  # a damaged chunk may raise anything
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise PyramidError(
                f"Pixels of {self.array!r} cannot be read: {reason.rstrip('.')}."
            ) from error
        if "c" not in kept:
            block, kept = block[None], "c" + kept
        block = block.transpose([kept.index(a) for a in "c" + self.spatial])
        if self.channels is None:
            return block
        first = self._channel_span.start
        return block[[c - first for c in self.channels]]

    @property
    def _channel_span(self) -> slice:
        """The channels that are read: no more than lie between those wanted."""
        if self.channels is None:
            return slice(None)
        return slice(min(self.channels), max(self.channels) + 1)
