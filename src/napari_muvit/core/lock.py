"""One writer at a time: a lock file that names its process."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

from .errors import OutputError

FOREIGN_STALE_SECONDS = 600.0
"""A lock of another machine counts as left behind when untouched for this long."""
UNREADABLE_STALE_SECONDS = 10.0
"""So does one whose writer was killed before it could write its name."""

_held: set[Path] = set()
_held_guard = threading.Lock()


class OutputLock:
    """A lock file, taken on creation and freed by `release`.

    The lock of a process that is gone is taken over. Process numbers say nothing about
    another machine (a shared disk), so there the time of the last `touch` decides.

    Parameters
    ----------
    path
        The lock file; its folder exists.
    subject
        What it guards, for messages.

    Raises
    ------
    OutputError
        If another writer is at work.
    """

    def __init__(self, path: Path, subject: Path) -> None:
        self.path = path.resolve()
        self._subject = subject
        self._mine = False
        self._pid = os.getpid()
        self._text = json.dumps({"pid": self._pid, "host": socket.gethostname()})
        for _ in range(3):
            if self._create():
                return
            self._take_over()
        raise OutputError(_busy(self.path, self._subject, "another process"))

    def _create(self) -> bool:
        with _held_guard:
            try:
                handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                return False
            with os.fdopen(handle, "w") as file:
                file.write(self._text)
            _held.add(self.path)
            self._mine = True
            return True

    def _take_over(self) -> None:
        """Remove the lock if nobody holds it, else raise."""
        check_free(self.path, self._subject)
        # One at a time: else a slow one would remove the lock that a fast one has
        # taken since both found the old one left behind.
        guard = self.path.with_name(f"{self.path.name}.taking")
        try:
            os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - guard.stat().st_mtime > UNREADABLE_STALE_SECONDS:
                    guard.unlink()
            raise OutputError(
                _busy(self.path, self._subject, "another process")
            ) from None
        try:
            check_free(self.path, self._subject)
            self.path.unlink(missing_ok=True)
        finally:
            guard.unlink(missing_ok=True)

    def touch(self) -> None:
        """Say that the writer is still at work."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def release(self) -> None:
        """Free the lock; calling it again does nothing."""
        with _held_guard:
            # Another one of this process may have taken the same path since; a process
            # that was forked from it does not hold it.
            if self._mine and os.getpid() == self._pid:
                self._mine = False
                _held.discard(self.path)
                with contextlib.suppress(OSError):
                    # Another machine has taken it over when it seemed left behind.
                    if self.path.read_text() == self._text:
                        self.path.unlink()


def check_free(path: Path, subject: Path) -> None:
    """Raise `OutputError` when a live writer of ``subject`` holds the lock."""
    path = path.resolve()
    try:
        text = path.read_text()
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return
    owner = _live_owner(path, text, age)
    if owner is not None:
        raise OutputError(_busy(path, subject, owner))


def _busy(path: Path, subject: Path, owner: str) -> str:
    return (
        f"{subject} is being written by {owner}. Wait for it, stop it, or "
        f"choose another output; if it is not running, remove {path}."
    )


def _live_owner(path: Path, text: str, age: float) -> str | None:
    """Name of the writer that holds the lock, None when it was left behind."""
    try:
        owner = json.loads(text)
        pid, host = int(owner["pid"]), str(owner["host"])
    except (ValueError, KeyError, TypeError):
        return "another process" if age < UNREADABLE_STALE_SECONDS else None
    if host != socket.gethostname():
        live = age < FOREIGN_STALE_SECONDS
    elif pid == os.getpid():
        # A container gives the same number to each of its starts.
        live = path in _held
    else:
        live = _is_running(pid)
    return f"process {pid} on {host}" if live else None


def _is_running(pid: int) -> bool:
    """Whether a process of this machine is alive."""
    if sys.platform == "win32":
        # os.kill(pid, 0) would send Ctrl-C there.
        query_limited_information, still_active = 0x1000, 259
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(query_limited_information, False, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == still_active
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
