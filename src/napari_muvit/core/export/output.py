"""The folder of an export: all of it appears, or nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..data.place import is_zarr
from ..errors import OutputError
from ..lock import OutputLock

if TYPE_CHECKING:
    from types import TracebackType

LAST = "report.json"
"""Moved last: where it is, the others are of the same export."""


class OutputFolder:
    """Files are written aside and moved into place by `commit`.

    Parameters
    ----------
    path
        The folder.
    overwrite
        Write into a folder that holds files, and replace those of the same names;
        others are left alone.

    Raises
    ------
    OutputError
        If something else is there, it cannot be written, or another process is at it.
    """

    def __init__(self, path: str | Path, overwrite: bool = False) -> None:
        self.path = Path(os.path.abspath(path))
        _check(self.path, overwrite)
        self.part = self.path.with_name(f".{self.path.name}.part")
        self._lock: OutputLock | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_name(f".{self.path.name}.lock")
            self._lock = OutputLock(lock, self.path)
            # Left by a process that was killed.
            shutil.rmtree(self.part, ignore_errors=True)
            self.part.mkdir()
        except OSError as error:
            self.__exit__(None, None, None)
            raise _failed(self.path, error) from error
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            shutil.rmtree(self.part, ignore_errors=True)
            self._lock.release()
            self._lock = None

    def commit(self) -> None:
        """Move the files into place.

        Raises
        ------
        OutputError
            If they cannot be moved.
        """
        try:
            if not self.path.exists():
                self.part.rename(self.path)
                return
            (self.path / LAST).unlink(missing_ok=True)
            names = sorted(p.name for p in self.part.iterdir())
            for name in sorted(names, key=lambda name: name == LAST):
                os.replace(self.part / name, self.path / name)
        except OSError as error:
            raise _failed(self.path, error) from error


def _check(path: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot be meant; nothing is made."""
    inside = next((p for p in (path, *path.parents) if is_zarr(p)), None)
    if path.suffix == ".zarr" or inside is not None:
        raise OutputError(
            f"{path} is itself a .zarr, or lies inside one; give a folder for the "
            "files."
        )
    above = next(p for p in (path, *path.parents) if p.exists())
    if not above.is_dir():
        raise OutputError(f"{above} is a file; a folder for the files is needed.")
    if path.is_dir() and not overwrite:
        with contextlib.suppress(StopIteration):
            next(path.iterdir())
            raise OutputError(
                f"{path} holds files already; choose another folder, or overwrite them "
                "(--overwrite)."
            )


def _failed(path: Path, error: OSError) -> OutputError:
    if isinstance(error, OutputError):
        return error
    return OutputError(
        f"{path} cannot be written: {error.strerror or error}. Free the disk, or "
        "choose another folder."
    )
