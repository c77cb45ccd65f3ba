"""Bytes of a project file on the disk: appended safely, or replaced as a whole."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..errors import OutputError
from .project_log import MAX_BYTES


class AppendedFile:
    """A file that only grows by whole lines.

    Parameters
    ----------
    path
        The file, which is there.
    end
        Bytes that are kept; what lies behind is cut off by the next write.
    size
        Bytes that the file has now.
    """

    def __init__(self, path: Path, end: int, size: int) -> None:
        self.path = path
        self.end = end
        self._size: int | None = size

    def append(self, data: bytes) -> None:
        """Write behind the end, and return when it is on the disk.

        Raises
        ------
        OutputError
            If it cannot be written, or another program has changed the file. The file
            is then as it was.
        """
        if self.end + len(data) > MAX_BYTES:
            raise OutputError(
                f"{self.path} is full: {MAX_BYTES >> 20} MiB are possible. Compact it, "
                "or paint at a coarser scale."
            )
        self.check()
        try:
            handle = os.open(self.path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise _failed(self.path, error) from error
        try:
            self._write(handle, data)
        finally:
            os.close(handle)

    def check(self) -> None:
        """Raise `OutputError` when another program has changed the file."""
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise _failed(self.path, error) from error
        if self._size is not None and size != self._size:
            raise OutputError(
                f"{self.path} was changed by another program; nothing is written. Open "
                "it again."
            )

    def _write(self, handle: int, data: bytes) -> None:
        try:
            os.ftruncate(handle, self.end)
            os.lseek(handle, self.end, os.SEEK_SET)
            write_all(handle, data)
            os.fsync(handle)
        except OSError as error:
            # Unknown, until the next write cuts off what is too much.
            self._size = None
            with contextlib.suppress(OSError):
                os.ftruncate(handle, self.end)
                os.fsync(handle)
            raise _failed(self.path, error) from error
        self.end += len(data)
        self._size = self.end


def write_all(handle: int, data: bytes) -> None:
    """Write every byte."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def write_whole(path: Path, lines: Iterable[bytes]) -> None:
    """Write a file beside its place and move it there when it is on the disk.

    Raises
    ------
    OutputError
        If it cannot be written; the file at ``path`` is then as it was.
    """
    part = path.with_name(path.name + ".part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(part, flags, 0o666)
        try:
            for line in lines:
                write_all(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)
        if path.exists():
            shutil.copymode(path, part)
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise _failed(path, error) from error
        raise
    with contextlib.suppress(OSError):
        # So that the move itself is safe on the disk.
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def keep_copy(path: Path) -> Path:
    """Copy a damaged file beside it, under a name that is free; return its path.

    Raises
    ------
    OutputError
        If it cannot be copied.
    """
    names = (path.with_name(f"{path.name}.damaged{n}") for n in ("", *range(2, 1000)))
    copy = next(name for name in names if not name.exists())
    try:
        with path.open("rb") as file:
            write_whole(copy, iter(lambda: file.read(1 << 20), b""))
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise _failed(copy, error) from error
    return copy


def _failed(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path} cannot be written: {error.strerror or error}. Free the disk, or check "
        "the folder; what was there before is kept."
    )
