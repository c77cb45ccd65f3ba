"""One level of a TIFF as an array that any thread and any process can slice."""

from __future__ import annotations

import math
import os
import re
import threading
import weakref
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
import zarr

from ..errors import PyramidError
from .file_stamp import FileStamp
from .open_levels import OpenLevels

MAX_WHOLE_BYTES = 2**29
"""A level in strips is decoded as a whole up to this size: strips span the width, so
crops would decode most of it anyway."""
_TOLD = (
    "shaped", "lsm", "mmstack", "ome", "imagej", "ndtiff", "fluoview", "stk", "sis",
    "svs", "scn", "qpi", "ndpi", "bif", "avs", "eer", "philips", "scanimage", "nih",
    "mdgel",
)  # fmt: skip
"""Kinds of TIFF that say what their pages are."""
MAX_PAGES = 1024
"""Of a file with more pages and no metadata, only the first one is looked at."""
MAX_PLANES = 2**20
"""Planes of an OME-TIFF; more say that its metadata are wrong."""
MAX_PIECE_BYTES = 2**31
"""A tile or strip that is larger is not decoded: it says that the file is damaged."""


class DamagedTiffError(PyramidError):
    """A TIFF that contradicts itself; no other reader is to be tried on it."""


def series_of(file: tifffile.TiffFile) -> list[tifffile.TiffPageSeries]:
    """Return the images of a file: all of them, or the first of very many pages.

    tifffile reads every page of a file that does not say what its pages are, which
    takes seconds where there are tens of thousands.
    """
    is_told = any(getattr(file, f"is_{kind}", False) for kind in _TOLD)
    if is_told or len(file.pages) <= MAX_PAGES:
        return list(file.series)
    return [tifffile.TiffPageSeries([file.pages.first], kind="generic")]


def images_of(file: tifffile.TiffFile, path: Path) -> list[tifffile.TiffPageSeries]:
    """Return the images of a file, whose metadata are checked before they are used.

    Raises
    ------
    DamagedTiffError
        If there is none, or the metadata are wrong.
    """
    found = None
    if file.pages:
        _check_planes(file, path)
        _check_companions(file, path)
        found = series_of(file)
    if not found:
        raise DamagedTiffError(f"{path} is no image that can be read: it has no pages.")
    return found


def check_series(
    series: tifffile.TiffPageSeries, file: tifffile.TiffFile, path: Path
) -> None:
    """Check an image against the size of its file.

    Raises
    ------
    DamagedTiffError
        If it is empty or cut off, or asks for absurd amounts of memory.
    """
    if not series.shape or 0 in series.shape:
        raise DamagedTiffError(f"{path} is no image that can be read: it is empty.")
    for number, level in enumerate(series.levels):
        page = level.keyframe
        _check_pieces(level, page, path)
        ends = (
            a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=False)
        )
        end = max(ends, default=0)
        if end > file.filehandle.size or not page.dataoffsets:
            raise DamagedTiffError(
                f"{path} is no image that can be read: the file is cut off (level "
                f"{number} ends at byte {end} of {file.filehandle.size})."
            )


def _check_pieces(
    level: tifffile.TiffPageSeries, page: tifffile.TiffPage, path: Path
) -> None:
    """Refuse what no writer writes before memory is asked for it."""
    if level.dtype is None:
        raise DamagedTiffError(
            f"{path} is no image that can be read: its type of pixels is unknown."
        )
    edges = tuple(page.chunks)
    size = math.prod(edges) * level.dtype.itemsize
    # What is neither tiled nor compressed is mapped, whatever its size.
    is_mapped = not page.is_tiled and level.dataoffset is not None
    if 0 in edges or (size > MAX_PIECE_BYTES and not is_mapped):
        raise DamagedTiffError(
            f"{path} is no image that can be read: it says that it is stored in "
            f"pieces of {' x '.join(map(str, edges))} pixels; at most "
            f"{MAX_PIECE_BYTES >> 20} MiB a piece are read."
        )
    tiles = math.prod(page.chunked)
    if page.is_tiled and tiles > len(page.dataoffsets):
        raise DamagedTiffError(
            f"{path} is no image that can be read: it lists {len(page.dataoffsets)} of "
            f"its {tiles} tiles."
        )


def _check_planes(file: tifffile.TiffFile, path: Path) -> None:
    """Refuse OME metadata of so many planes that their list would fill the memory."""
    text = file.ome_metadata if file.is_ome else None
    size = max(1, int(np.prod(file.pages.first.shape)))
    for element in re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", text or ""):
        sizes = re.findall(r"""\bSize[XYZCT]\s*=\s*["'](\d{1,30})["']""", element)
        planes = math.prod(map(int, sizes)) // size
        if planes > MAX_PLANES:
            raise DamagedTiffError(
                f"{path} is no image that can be read: its OME metadata tell of "
                f"{planes} planes."
            )


def _check_companions(file: tifffile.TiffFile, path: Path) -> None:
    """Refuse an OME-TIFF that leads out of its folder, or to what is no file."""
    text = file.ome_metadata if file.is_ome else None
    if not text or "FileName" not in text:
        return
    try:
        elements = ElementTree.fromstring(text).iter()
        names = {e.get("FileName") for e in elements} - {None, path.name}
    except ElementTree.ParseError:
        return
    for name in sorted(map(str, names)):
        other = path.parent / name
        if Path(name).name != name or (other.exists() and not other.is_file()):
            raise DamagedTiffError(
                f"{path} is no image that can be read: it says that a part of it is "
                f"{name[:100]!r}, which is no file in its folder."
            )


_OPEN = OpenLevels(most=64, max_bytes=2 * MAX_WHOLE_BYTES)


class TiffLevel:
    """A level of an image of a TIFF; the file is opened when it is read.

    Tiles are decoded one by one; a level in strips is decoded as a whole when it is
    small and mapped into memory when it is not compressed.

    Parameters
    ----------
    path
        The file.
    level
        Index of the level.
    image
        Index of the image (series) in the file.
    """

    def __init__(self, path: Path, level: int, image: int = 0) -> None:
        self.path = path
        self.level = level
        self.image = image
        self._lock = threading.Lock()
        self._pid = -1
        self._array: Any = None
        self._stamp = FileStamp.of(path)
        with tifffile.TiffFile(path) as file:
            series = series_of(file)[image].levels[level]
            page = series.keyframe
            self.shape: tuple[int, ...] = tuple(int(n) for n in series.shape)
            self.dtype: np.dtype[Any] = np.dtype(series.dtype)
            self.chunks = _chunks(series, page)

    def __reduce__(self) -> tuple[type[TiffLevel], tuple[Path, int, int]]:
        return (TiffLevel, (self.path, self.level, self.image))

    def __repr__(self) -> str:
        return f"<TiffLevel {self.path.name} {self.level} {self.shape} {self.dtype}>"

    def __getitem__(self, key: Any) -> Any:
        self._stamp.check()
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
            array = self._array
        in_memory = isinstance(array, np.ndarray) and not isinstance(array, np.memmap)
        _OPEN.used(self, array.nbytes if in_memory else 0)
        return array

    def close(self) -> None:
        """Let the file and the pixels go; they are opened again when they are read."""
        with self._lock:
            self._array = None

    def _open(self) -> Any:
        file = tifffile.TiffFile(self.path)
        series = series_of(file)[self.image].levels[self.level]
        if not series.keyframe.is_tiled:
            nbytes = math.prod(self.shape) * self.dtype.itemsize
            if nbytes <= MAX_WHOLE_BYTES:
                with file:
                    return series.asarray()
            if series.dataoffset is not None:
                with file:
                    return np.memmap(
                        self.path,
                        dtype=f"{file.byteorder}{series.dtype.char}",
                        mode="r",
                        offset=series.dataoffset,
                        shape=self.shape,
                    )
        # The store reads from the open file under its own lock.
        store = series_of(file)[self.image].aszarr(level=self.level)
        array = zarr.open_array(store, mode="r")
        # Not before a thread that still reads is done.
        weakref.finalize(array, file.close)
        return array


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
