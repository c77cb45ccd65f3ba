"""One level of a TIFF as an array that any thread and any process can slice."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from ..errors import ImageNotFoundError, PyramidError

MAX_WHOLE_BYTES = 2**29
"""A level in strips is decoded as a whole up to this size: strips span the width, so
crops would decode most of it anyway."""


def open_series(file: tifffile.TiffFile, path: Path) -> tifffile.TiffPageSeries:
    """First image of a file, checked against the size of the file."""
    if not file.series:
        raise PyramidError(f"{path} is no image that can be read: it has no pages.")
    series = file.series[0]
    if not series.shape or 0 in series.shape:
        raise PyramidError(f"{path} is no image that can be read: it is empty.")
    for number, level in enumerate(series.levels):
        page = level.keyframe
        ends = (
            a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=False)
        )
        end = max(ends, default=0)
        if end > file.filehandle.size or not page.dataoffsets:
            raise PyramidError(
                f"{path} is no image that can be read: the file is cut off (level "
                f"{number} ends at byte {end} of {file.filehandle.size})."
            )
    return series


class TiffLevel:
    """A level of the first image of a TIFF; the file is opened when it is read.

    Tiles are decoded one by one; a level in strips is decoded as a whole when it is
    small and mapped into memory when it is not compressed.

    Parameters
    ----------
    path
        The file.
    level
        Index of the level.
    """

    def __init__(self, path: Path, level: int) -> None:
        self.path = path
        self.level = level
        self._lock = threading.Lock()
        self._pid = -1
        self._array: Any = None
        with tifffile.TiffFile(path) as file:
            series = file.series[0].levels[level]
            page = series.keyframe
            self.shape: tuple[int, ...] = tuple(int(n) for n in series.shape)
            self.dtype: np.dtype[Any] = np.dtype(series.dtype)
            self.chunks = _chunks(series, page)

    def __reduce__(self) -> tuple[type[TiffLevel], tuple[Path, int]]:
        return (TiffLevel, (self.path, self.level))

    def __repr__(self) -> str:
        return f"<TiffLevel {self.path.name} {self.level} {self.shape} {self.dtype}>"

    def __getitem__(self, key: Any) -> Any:
        if not self.path.exists():
            raise ImageNotFoundError(f"There is no image at {self.path} any more.")
        try:
            return self._opened()[key]
        except (IndexError, MemoryError):
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise PyramidError(
                f"{self.path} is no image that can be read: {reason.rstrip('.')}."
            ) from error

    def _opened(self) -> Any:
        """Return the pixels, opened in this process.

        A forked process must not share the place in the file with its parent.
        """
        with self._lock:
            if self._array is None or self._pid != os.getpid():
                self._array = self._open()
                self._pid = os.getpid()
            return self._array

    def _open(self) -> Any:
        file = tifffile.TiffFile(self.path)
        series = file.series[0].levels[self.level]
        if not series.keyframe.is_tiled:
            nbytes = int(np.prod(self.shape)) * self.dtype.itemsize
            if nbytes <= MAX_WHOLE_BYTES:
                with file:
                    return series.asarray()
            if series.dataoffset is not None:
                with file:
                    return tifffile.memmap(
                        self.path, series=0, level=self.level, mode="r"
                    )
        # The store reads from the open file under its own lock.
        weakref.finalize(self, file.close)
        store = file.series[0].aszarr(level=self.level)
        return zarr.open_array(store, mode="r")


def _chunks(
    series: tifffile.TiffPageSeries, page: tifffile.TiffPage
) -> tuple[int, ...]:
    """Edge of a tile along each axis of the series; blocks of 512 for strips."""
    edges = dict.fromkeys(series.axes, 1) | {"Y": 512, "X": 512}
    if "S" in series.axes:
        edges["S"] = series.shape[series.axes.index("S")]
    if page.is_tiled:
        edges["Y"], edges["X"] = int(page.tilelength), int(page.tilewidth)
    return tuple(
        min(edges[a], n) for a, n in zip(series.axes, series.shape, strict=True)
    )
