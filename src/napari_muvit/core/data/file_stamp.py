"""Whether a file is still the one that was opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageNotFoundError, PyramidError


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Size and time of a file when it was opened.

    A file that is replaced under an open image gives old and new pixels side by side,
    a zarr that is removed gives zeros; neither may pass for the image.
    """

    path: Path
    """The file."""
    shown: Path
    """What the user knows it by."""
    facts: tuple[int, int] | None
    """Bytes and nanoseconds; None: there was no such file."""

    @classmethod
    def of(cls, path: Path, shown: Path | None = None) -> FileStamp:
        """Take the stamp of a file as it is now."""
        return cls(path, shown or path, _facts(path))

    def check(self) -> None:
        """Check that the file is there, and the same.

        Raises
        ------
        ImageNotFoundError
            If it is gone.
        PyramidError
            If it was changed.
        """
        facts = _facts(self.path)
        if facts is None:
            raise ImageNotFoundError(f"There is no image at {self.shown} any more.")
        if facts != self.facts:
            raise PyramidError(
                f"{self.shown} was changed after it was opened; open it again."
            )


def _facts(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
