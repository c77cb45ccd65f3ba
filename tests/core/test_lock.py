"""One writer at a time."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

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
