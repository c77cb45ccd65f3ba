"""One writer at a time."""

import errno
import json
import os
import socket
import time
from pathlib import Path

import pytest

from napari_muvit.core import lock
from napari_muvit.core.errors import OutputError
from napari_muvit.core.lock import OutputLock, check_free


def test_only_the_holder_frees_a_lock(tmp_path: Path) -> None:
    path, subject = tmp_path / "lock", tmp_path / "labels.zarr"
    first = OutputLock(path, subject)
    with pytest.raises(OutputError, match=r"labels\.zarr is being written by process"):
        OutputLock(path, subject)
    first.release()
    second = OutputLock(path, subject)
    first.release()
    with pytest.raises(OutputError, match="being written"):
        check_free(path, subject)
    # Taken over by another machine in between.
    path.write_text(json.dumps({"pid": 1, "host": "another"}))
    second.release()
    assert path.exists()


def test_a_lock_of_a_process_that_is_gone_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = OutputLock(path, tmp_path)
    gone = json.loads(path.read_text()) | {"pid": 2**22 + 1}
    first.release()
    path.write_text(json.dumps(gone))
    check_free(path, tmp_path)
    OutputLock(path, tmp_path).release()
    assert not path.exists()


def test_a_forked_process_does_not_free_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = OutputLock(path, tmp_path)
    lock._pid += 1  # as in a child
    lock.release()
    assert path.exists()


def test_one_at_a_time_takes_over(tmp_path: Path) -> None:
    path, guard = tmp_path / "lock", tmp_path / "lock.taking"
    left = json.dumps({"pid": 2**22 + 1, "host": socket.gethostname()})
    path.write_text(left)
    guard.touch()
    with pytest.raises(OutputError, match="another process"):
        OutputLock(path, tmp_path)
    assert path.read_text() == left
    # Whoever was at it was killed.
    os.utime(guard, (time.time() - 60,) * 2)
    with pytest.raises(OutputError, match="another process"):
        OutputLock(path, tmp_path)
    OutputLock(path, tmp_path).release()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A wall clock that a test puts on or back; what is not wall time stays."""
    offset, real = {"hours": 0.0}, time.time
    monkeypatch.setattr(lock.time, "time", lambda: real() + 3600 * offset["hours"])
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "WATCH_SECONDS", 0.3)
    return offset


def as_if_elsewhere(held: OutputLock) -> None:
    """The same lock, as another machine sees it."""
    held.text = json.dumps({"pid": 1, "host": "elsewhere"})
    held.path.write_text(held.text)


@pytest.mark.parametrize("hours", [-48, -1, 0, 1, 48])
def test_a_clock_that_jumps_takes_no_lock_from_a_live_holder(
    tmp_path: Path, clock: dict[str, float], hours: float
) -> None:
    held = OutputLock(tmp_path / "lock", tmp_path)
    as_if_elsewhere(held)
    clock["hours"] = hours
    with pytest.raises(OutputError, match="process 1 on elsewhere"):
        OutputLock(tmp_path / "lock", tmp_path)
    held.check()
    held.release()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hours", [-48, -1, 1, 48])
@pytest.mark.parametrize("text", ["", '{"pid": 1, "host": "elsewhere"}'])
def test_a_clock_that_jumps_keeps_no_lock_that_was_left_behind(
    tmp_path: Path, clock: dict[str, float], hours: float, text: str
) -> None:
    (tmp_path / "lock").write_text(text)
    (tmp_path / "lock.taking").touch()
    clock["hours"] = hours
    with pytest.raises(OutputError, match="another process"):
        OutputLock(tmp_path / "lock", tmp_path)
    OutputLock(tmp_path / "lock", tmp_path).release()
    assert not list(tmp_path.iterdir())


def test_a_holder_touches_its_lock_and_ends_with_it(
    tmp_path: Path, clock: dict[str, float]
) -> None:
    held = OutputLock(tmp_path / "lock", tmp_path)
    os.utime(held.path, (1e9, 1e9))
    until = time.monotonic() + 10
    while held.path.stat().st_mtime < 1.1e9 and time.monotonic() < until:
        time.sleep(0.01)
    assert time.time() - held.path.stat().st_mtime < 10
    held.release()
    held._thread.join(10)
    assert not held._thread.is_alive()


def test_a_holder_is_told_that_another_machine_took_over(tmp_path: Path) -> None:
    held = OutputLock(tmp_path / "lock", tmp_path)
    held.check()
    held.path.write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with pytest.raises(OutputError, match="was taken over by another process"):
        held.check()
    held.release()
    assert held.path.exists()


def test_a_full_disk_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, _mode: str) -> None:
        os.close(handle)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lock.os, "fdopen", full)
    with pytest.raises(OSError, match="No space left"):
        OutputLock(tmp_path / "lock", tmp_path)
    assert not list(tmp_path.iterdir())
