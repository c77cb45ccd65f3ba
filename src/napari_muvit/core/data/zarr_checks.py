"""What a zarr may not ask of its reader: to wait, to leave its folder, all memory."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PyramidError

if TYPE_CHECKING:
    import zarr

MARKERS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
"""A folder with one of these is a zarr node."""
MAX_CHUNK_BYTES = 2**30
"""An array whose chunks are larger is refused: each read would take that much."""


def check_markers(folder: Path) -> None:
    """Refuse metadata that are no plain files, which zarr would wait for.

    Raises
    ------
    PyramidError
        If one of them is a pipe or a device.
    """
    for marker in MARKERS:
        path = os.path.join(folder, marker)
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise PyramidError(f"{path} is a pipe or a device; a file is needed.")


def inner_path(inside: object, where: object) -> str:
    """Return the path of a node inside a group as a text.

    Parameters
    ----------
    inside
        As the metadata say it.
    where
        The group, for the message.

    Raises
    ------
    PyramidError
        If it is no path, or leads out of the group.
    """
    text = str(inside).rstrip("/") if isinstance(inside, str | int) else ""
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts) or set(text) & set("\\:\0"):
        raise PyramidError(
            f"{where} names an image at {str(inside)[:100]!r}, which is no path inside "
            "it."
        )
    return text


def check_chunks(array: zarr.Array[Any], where: object) -> None:
    """Refuse an array of which one chunk would fill the memory.

    Raises
    ------
    PyramidError
        If a chunk has no pixels, or takes more than 1 GiB.
    """
    edges = " x ".join(map(str, array.chunks))
    size = math.prod(array.chunks) * np.dtype(array.dtype).itemsize
    if 0 in array.chunks and 0 not in array.shape:
        raise PyramidError(f"{where} has chunks of {edges} pixels, which hold nothing.")
    if size > MAX_CHUNK_BYTES:
        raise PyramidError(
            f"{where} has chunks of {edges} pixels ({size / 2**30:.3g} GiB each); at "
            "most 1 GiB is read at a time. Write it anew in smaller chunks, such as "
            "256 x 256."
        )
