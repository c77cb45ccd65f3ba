"""Arrays that wait on disk, in a file without a name: no kill leaves it behind."""

from __future__ import annotations

import contextlib
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError

if TYPE_CHECKING:
    from io import FileIO


@dataclass(frozen=True, slots=True)
class Stored:
    """Where an array lies, and what it is."""

    offset: int
    """Bytes from the start of the file."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int


class Spill:
    """A temporary file; what was fetched leaves its place to others of its size."""

    def __init__(self) -> None:
        self._file: FileIO | None = None
        self._end = 0
        self._free: defaultdict[int, list[int]] = defaultdict(list)

    def store(self, array: NDArray[Any]) -> Stored:
        """Write an array.

        Raises
        ------
        OutputError
            If the folder for temporary files cannot be written.
        """
        array = np.ascontiguousarray(array)
        free = self._free[array.nbytes]
        offset = free.pop() if free else self._end
        try:
            if self._file is None:
                # Unbuffered: a full disk is met here, not when the file is closed.
                self._file = tempfile.TemporaryFile(  # noqa: SIM115 - see `close`
                    prefix="napari-muvit-", buffering=0
                )
            self._file.seek(offset)
            left = array.data.cast("B")
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise OutputError(
                f"The folder for temporary files, {tempfile.tempdir}, cannot be "
                f"written: {error.strerror or error}. What is finished is kept; free "
                "its disk, or name another folder in TMPDIR, and run again."
            ) from error
        self._end = max(self._end, offset + array.nbytes)
        return Stored(offset, array.shape, array.dtype, array.nbytes)

    def fetch(self, stored: Stored) -> NDArray[Any]:
        """Return an array, which is then forgotten."""
        array = np.empty(stored.shape, stored.dtype)
        left = array.data.cast("B")
        if self._file is not None:
            self._file.seek(stored.offset)
            while left and (count := self._file.readinto(left)):
                left = left[count:]
        if left:
            raise OutputError("A temporary file has lost its end; run again.")
        self.forget(stored)
        return array

    def forget(self, stored: Stored) -> None:
        """Give the place of an array to others."""
        self._free[stored.nbytes].append(stored.offset)

    def close(self) -> None:
        """Remove the file; calling it again does nothing."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        self._free.clear()
        self._end = 0
