"""Pieces of outlines: their numbers in memory, their corners in a file on disk.

An outline that closes within the rows that are followed at a time is one piece. One
that crosses from such rows into the next ones is a chain of pieces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..data.project_file import write_all
from ..errors import AnnotationError, OutputError
from .runs import Ints

PIECE = np.dtype(
    [
        ("part", np.int64),  # number of the part that it outlines, before merging
        ("next", np.int64),  # piece that follows; itself where it is closed
        ("offset", np.int64),  # its first corner in the file
        ("count", np.int64),  # its corners in the file
        ("area", np.int64),  # sum of the columns of its edges, down less up
        ("moment_y", np.int64),  # twice the sum of row centres over its area
        ("moment_x", np.int64),  # twice the sum of column centres over its area
        ("top", np.int64),  # key of its first left edge by row and column
        ("above", np.int64),  # piece over that edge; see `Tracer`
        ("y0", np.int32),
        ("x0", np.int32),
        ("y1", np.int32),
        ("x1", np.int32),
        ("value", np.uint8),
    ]
)
MOST_PIECES = 2**23
"""Of them, some 0.3 kB each, are kept in memory in the end."""
CORNER = np.dtype("<i4")
FAR = np.iinfo(np.int64).max
"""Key behind all others."""


class PieceTable:
    """A table of `PIECE` that grows."""

    def __init__(self) -> None:
        self._rows = np.empty(1024, dtype=PIECE)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> NDArray[Any]:
        """All pieces, (n,); to be changed in place."""
        return self._rows[: self._count]

    def append(self, rows: NDArray[Any]) -> None:
        """Add pieces.

        Raises
        ------
        AnnotationError
            If there are more than `MOST_PIECES`.
        """
        count = self._count + len(rows)
        if count > MOST_PIECES:
            raise AnnotationError(
                f"The labels have more than {MOST_PIECES:,} outlines, which is noise, "
                "or an image of single pixels. Give a minimum object size and no "
                "maximum hole size, choose fewer classes, or take a coarser image."
            )
        if count > len(self._rows):
            larger = np.empty(max(count, len(self._rows) * 3 // 2), dtype=PIECE)
            larger[: self._count] = self.rows
            self._rows = larger
        self._rows[self._count : count] = rows
        self._count = count


class CornerFile:
    """Corners (x, y) of all pieces, one after the other, in a file.

    A corner is where the outline leaves an upright edge; the row's other end is at the
    x of the next corner. So a ring of n corners here has 2 n in all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        # What does not fit on the disk is to be known when it is written.
        self._file = path.open("wb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def append(self, x: Ints, y: Ints) -> None:
        """Add corners behind those that are there.

        Raises
        ------
        OutputError
            If the disk refuses.
        """
        corners = np.stack([x, y], axis=1).astype(CORNER)
        try:
            write_all(self._file.fileno(), corners.tobytes())
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}. Outlines "
                "wait there, 8 bytes a corner; free the disk, or choose another folder."
            ) from error
        self.count += len(corners)

    def read(self) -> NDArray[np.int32]:
        """Close the file for writing and see it as (n, 2) corners (x, y)."""
        self._file.close()
        if self.count == 0:
            return np.empty((0, 2), dtype=np.int32)
        mapped = np.memmap(self.path, dtype=CORNER, mode="r", shape=(self.count, 2))
        # A plain array is cut into rings three times faster.
        return mapped.view(np.ndarray)
