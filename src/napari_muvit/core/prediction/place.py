"""The place of a prediction on disk: made aside, moved there, and removed."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import socket
from pathlib import Path

from ..errors import OutputError
from ..lock import OutputLock, is_running
from .marks import check_no_shard
from .record import LOCK, PRIVATE, read_record

NEW, OLD = ".new", ".old"
"""Endings of stores that lie aside: not yet in place, not yet removed."""
ZARR_MARKERS = ("zarr.json", ".zgroup", ".zarray")
"""Files of which a Zarr store has one."""


def aside(path: Path, ending: str) -> Path:
    """Return where a store lies before it is in place, or while it is removed."""
    return path.with_name(f"{_prefix(path)}{os.getpid()}{ending}")


def _prefix(path: Path) -> str:
    return f".{path.name}.{socket.gethostname()}-"


def remove_left(path: Path) -> None:
    """Remove what processes that were killed have left aside."""
    prefix = _prefix(path)
    for ending in (NEW, OLD):
        for found in path.parent.glob(f"{glob.escape(prefix)}*{ending}"):
            number = found.name.removeprefix(prefix).removesuffix(ending)
            if number.isdigit() and not is_running(int(number)):
                shutil.rmtree(found, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Rename a folder; `FileExistsError` where the target is there meanwhile."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(str(target)) from error
        raise


def refuse_image(path: Path, image: Path | None) -> None:
    """Never write into, over or around the image that is read."""
    if image is None:
        return
    out, source = path.resolve(), Path(image).resolve()
    if out == source or out in source.parents or source in out.parents:
        raise OutputError(
            f"The output {path} and the image {image} lie inside each other; choose "
            "another output."
        )


def remove_store(path: Path) -> None:
    """Remove a prediction or a single Zarr image, never anything else.

    Raises
    ------
    OutputError
        If it is something else, or somebody is writing it.
    OSError
        If it cannot be removed.
    """
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir() or not _is_single_store(path):
        raise OutputError(
            f"{path} is not a single Zarr image, so it is not overwritten; remove it "
            "yourself or choose another output."
        )
    lock = None
    if (path / PRIVATE).is_dir():
        # Held until it has gone: nobody begins to write into what is removed.
        lock = OutputLock(path / PRIVATE / LOCK, path)
    gone = aside(path, OLD)
    try:
        check_no_shard(path)
        # Moved first: a kill while removing must not leave half a store at the path.
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
    finally:
        if lock is not None:
            lock.release()
    shutil.rmtree(gone)


def _is_single_store(path: Path) -> bool:
    """Whether a folder is our store, or a Zarr image that holds no other group."""
    if read_record(path) is not None:
        return True
    if not any((path / name).is_file() for name in ZARR_MARKERS):
        return False
    return not any(_is_group(child) for child in path.iterdir())


def _is_group(path: Path) -> bool:
    if (path / ".zgroup").is_file():
        return True
    try:
        metadata = json.loads((path / "zarr.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return bool(metadata.get("node_type") == "group")
