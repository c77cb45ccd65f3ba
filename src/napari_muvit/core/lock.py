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
import uuid
from pathlib import Path

from .errors import OutputBusyError, OutputError

BEAT_SECONDS = 10.0
"""How often a holder touches its lock."""
WATCH_SECONDS = 3 * BEAT_SECONDS
"""How long a lock that looks left behind is watched for a touch."""
FOREIGN_STALE_SECONDS = 600.0
"""A lock of another machine looks left behind when untouched for this long."""
UNREADABLE_STALE_SECONDS = 10.0
"""So does one whose writer was killed before it could write its name."""

_held: set[Path] = set()
_held_guard = threading.Lock()


class OutputLock:
    """A lock file, taken on creation and freed by `release`.

    The lock of a process that is gone is taken over. Process numbers say nothing about
    another machine (a shared disk). A thread of the holder touches the file, so a lock
    of another machine that is old and stays untouched is taken over, too; clocks that
    differ or jump cannot make one of a live holder look so.

    Parameters
    ----------
    path
        The lock file; its folder exists.
    subject
        What it guards, for messages.

    Raises
    ------
    OutputBusyError
        If another writer is at work.
    """

    def __init__(self, path: Path, subject: Path) -> None:
        self.path = path.resolve()
        self._subject = subject
        self._mine = False
        self._pid = os.getpid()
        self.text = json.dumps(
            {"pid": self._pid, "host": socket.gethostname(), "token": uuid.uuid4().hex}
        )
        self._end = threading.Event()
        # A daemon: whoever forgets to release must still be able to end.
        self._thread = threading.Thread(
            target=self._beat, daemon=True, name="muvit-lock"
        )
        for _ in range(3):
            if self._create():
                self._thread.start()
                return
            self._take_over()
        raise OutputBusyError(_busy(self.path, self._subject, "another process"))

    def _create(self) -> bool:
        with _held_guard:
            try:
                handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                return False
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(self.text)
            except OSError:
                # The disk is full.
                self.path.unlink(missing_ok=True)
                raise
            _held.add(self.path)
            self._mine = True
            return True

    def _take_over(self) -> None:
        """Remove the lock if nobody holds it, else raise."""
        found = _state(self.path)
        check_free(self.path, self._subject)
        # One at a time: else a slow one would remove the lock that a fast one has
        # taken since both found the old one left behind.
        guard = self.path.with_name(f"{self.path.name}.taking")
        try:
            os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                age = time.time() - guard.stat().st_mtime
                # In the future: the clock was put back.
                if abs(age) > UNREADABLE_STALE_SECONDS:
                    guard.unlink()
            raise OutputBusyError(
                _busy(self.path, self._subject, "another process")
            ) from None
        try:
            if found is not None and _state(self.path) == found:
                self.path.unlink(missing_ok=True)
        finally:
            guard.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._end.wait(BEAT_SECONDS) and holds(self.path, self.text):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def check(self) -> None:
        """Raise `OutputError` when another process has taken the lock over.

        So it is after a machine has slept; what it still has to write is old.
        """
        if not holds(self.path, self.text):
            raise OutputError(
                f"{self._subject} was taken over by another process while this one did "
                "not answer. Wait for the other one, then run again."
            )

    def release(self) -> None:
        """Free the lock; calling it again does nothing."""
        self._end.set()
        if self._thread.is_alive() and os.getpid() == self._pid:
            # Not for ever: a disk may not answer.
            self._thread.join(1.0)
        with _held_guard:
            # Another one of this process may have taken the same path since; a process
            # that was forked from it does not hold it.
            if self._mine and os.getpid() == self._pid:
                self._mine = False
                _held.discard(self.path)
                with contextlib.suppress(OSError):
                    # Another machine has taken it over when it seemed left behind.
                    if self.path.read_text() == self.text:
                        self.path.unlink()


def holds(path: Path, text: str) -> bool:
    """Whether a lock is still that of the holder who wrote ``text`` into it."""
    try:
        return path.read_text() == text
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        # A disk that does not answer for a moment says nothing.
        return True


def check_free(path: Path, subject: Path) -> None:
    """Raise `OutputBusyError` when a live writer of ``subject`` holds the lock.

    Takes half a minute for a lock of another machine that looks left behind.
    """
    path = path.resolve()
    try:
        text = path.read_text()
    except FileNotFoundError:
        return
    owner = _live_owner(path, text)
    if owner is not None:
        raise OutputBusyError(_busy(path, subject, owner))


def _busy(path: Path, subject: Path, owner: str) -> str:
    return (
        f"{subject} is being written by {owner}. Wait for it, stop it, or "
        f"choose another output; if it is not running, remove {path}."
    )


def _live_owner(path: Path, text: str) -> str | None:
    """Name of the writer that holds the lock, None when it was left behind."""
    try:
        owner = json.loads(text)
        pid, host = int(owner["pid"]), str(owner["host"])
    except (ValueError, KeyError, TypeError):
        live = _is_kept(path, UNREADABLE_STALE_SECONDS)
        return "another process" if live else None
    if host != socket.gethostname():
        live = _is_kept(path, FOREIGN_STALE_SECONDS)
    elif pid == os.getpid():
        # A container gives the same number to each of its starts.
        live = path in _held
    else:
        live = is_running(pid)
    return f"process {pid} on {host}" if live else None


def _is_kept(path: Path, limit: float) -> bool:
    """Whether a lock was touched within ``limit`` seconds, or is while we watch.

    The two clocks may differ, and be put on or back, so an age alone proves little.
    """
    first = _state(path)
    if first is not None and 0 <= time.time() - first[1] <= limit:
        return True
    until = time.monotonic() + WATCH_SECONDS
    while first is not None and time.monotonic() < until:
        time.sleep(WATCH_SECONDS / 30)
        if _state(path) != first:
            # Freed, perhaps; whoever asks again will know.
            return True
    return False


def _state(path: Path) -> tuple[str, float] | None:
    """Text and time of the last touch, None where there is no file."""
    try:
        # Opened, so that a network disk asks its server.
        with path.open() as file:
            return file.read(), os.fstat(file.fileno()).st_mtime
    except OSError:
        return None


def is_running(pid: int) -> bool:
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
