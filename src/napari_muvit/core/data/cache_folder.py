"""The folder of the level cache: entries, who uses them, and which ones go.

An entry is a folder named by its key. It grows as ``KEY.part`` and is renamed when it
is complete. Locks are the operating system's, so a process that is killed holds none.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from .cache_settings import CacheSettings

PART = ".part"
GONE = ".gone"
"""An entry that is being removed."""
_KEYS = ".keys"
"""List of the entries that a process uses, beside the lock that it holds."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One entry, complete or not."""

    key: str
    path: Path
    nbytes: int
    used: float
    """When it was used last, seconds since 1970."""

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return self.path.suffix != PART


class CacheFolder:
    """Entries on disk. Every method may raise OSError.

    Parameters
    ----------
    settings
        Where it lies and how large it may grow.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self.settings = settings
        # The version of what lies in it: another one leaves this one alone.
        self.root = settings.folder / "levels-1"
        self._users = self.root / "users"
        self._locks = self.root / "locks"

    def prepare(self) -> None:
        """Make the folder."""
        for folder in (self._users, self._locks):
            folder.mkdir(parents=True, exist_ok=True)

    def entry(self, key: str) -> Path:
        """Return the place of a complete entry."""
        return self.root / key

    def part(self, key: str) -> Path:
        """Return the place of an entry that grows."""
        return self.root / (key + PART)

    def lock(self, key: str) -> FileLock:
        """Lock that is held while an entry is built or removed."""
        return FileLock(self._locks / key)

    def use(self, key: str) -> None:
        """Say that this process reads an entry as long as it lives."""
        _process_mark(self._users).add(key)

    def touch(self, key: str) -> None:
        """Note that an entry was used now."""
        with contextlib.suppress(OSError):
            os.utime(self.entry(key))

    def entries(self) -> list[CacheEntry]:
        """All entries, the one that was not used for longest first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for item in os.scandir(self.root):
                if item.name in ("users", "locks") or GONE in item.name:
                    continue
                with contextlib.suppress(OSError):
                    path = Path(item.path)
                    key = item.name.removesuffix(PART)
                    used = item.stat().st_mtime
                    found.append(CacheEntry(key, path, folder_bytes(path), used))
        return sorted(found, key=lambda entry: entry.used)

    def make_room(self, nbytes: int, keep: str) -> bool:
        """Remove entries until ``nbytes`` more fit; whether they do.

        Parameters
        ----------
        nbytes
            Room that is needed.
        keep
            Key of an entry that stays, and does not count.
        """
        entries = [entry for entry in self.entries() if entry.key != keep]
        room = self.settings.limit_bytes - nbytes
        total = sum(entry.nbytes for entry in entries)
        if room < 0 or total <= room:
            return room >= 0
        used = self._used()
        for entry in entries:
            if entry.key not in used and self.remove(entry):
                total -= entry.nbytes
                if total <= room:
                    return True
        return False

    def clear(self) -> tuple[int, int]:
        """Remove all that no process uses or builds; return the bytes gone and left."""
        used, gone, left = self._used(), 0, 0
        for entry in self.entries():
            if entry.key not in used and self.remove(entry):
                gone += entry.nbytes
            else:
                left += entry.nbytes
        for rest in self.root.glob(f"*{GONE}*"):
            shutil.rmtree(rest, ignore_errors=True)
        return gone, left

    def remove(self, entry: CacheEntry) -> bool:
        """Remove an entry unless a process builds it; whether it is gone."""
        try:
            with self.lock(entry.key).acquire(blocking=False):
                discard(entry.path)
        except (Timeout, OSError):
            return False
        return True

    def _used(self) -> set[str]:
        """Keys that living processes use; marks of the dead are removed."""
        keys: set[str] = set()
        own = _process_mark(self._users)
        for path in self._users.glob(f"*{_KEYS}"):
            lock = FileLock(path.with_suffix(".lock"))
            alive = path == own.path
            if not alive:
                try:
                    with lock.acquire(blocking=False):
                        path.unlink(missing_ok=True)
                    Path(lock.lock_file).unlink(missing_ok=True)
                except (Timeout, OSError):
                    alive = True
            if alive:
                with contextlib.suppress(OSError):
                    keys.update(path.read_text(encoding="utf-8").split())
        return keys


class _ProcessMark:
    """Which entries this process uses: a list, and a lock that ends with the process.

    One lock for all entries: a process may read thousands of slides.
    """

    def __init__(self, folder: Path) -> None:
        name = uuid.uuid4().hex
        self.path = folder / (name + _KEYS)
        self._lock = FileLock(folder / (name + ".lock"), thread_local=False)
        self._keys: set[str] = set()
        self._guard = threading.Lock()

    def add(self, key: str) -> None:
        with self._guard:
            if key in self._keys:
                return
            if not self._lock.is_locked:
                self._lock.acquire(blocking=False)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(key + "\n")
            self._keys.add(key)


_marks: dict[tuple[int, Path], _ProcessMark] = {}
_marks_guard = threading.Lock()


def _process_mark(folder: Path) -> _ProcessMark:
    with _marks_guard:
        # A forked process makes its own.
        return _marks.setdefault((os.getpid(), folder), _ProcessMark(folder))


def discard(path: Path) -> None:
    """Remove a folder at once, as others see it."""
    if path.exists():
        aside = path.with_name(f"{path.name}{GONE}-{uuid.uuid4().hex[:8]}")
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def folder_bytes(path: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(size for _, size in folder_files(path))


def folder_files(path: Path) -> Iterator[tuple[Path, int]]:
    """All files below a folder with their sizes, in no order."""
    for item in os.scandir(path):
        if item.is_dir(follow_symlinks=False):
            yield from folder_files(Path(item.path))
        else:
            yield Path(item.path), item.stat(follow_symlinks=False).st_size
