"""Zarr arrays on a local disk, read by tensorstore where it is installed.

tensorstore reads random crops several times faster than zarr-python. It must not be
used in a process that was forked from one that used it (it would abort), so such a
process falls back to zarr-python.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from .file_stamp import FileStamp

_DRIVERS = {2: "zarr", 3: "zarr3"}
_first_user: list[int] = []
"""Process that used tensorstore first, of this one and those it was forked from."""


def may_use_tensorstore() -> bool:
    """Whether tensorstore is installed and safe in this process."""
    if _first_user and _first_user[0] != os.getpid():
        return False
    try:
        import tensorstore  # noqa: F401
    except ImportError:
        return False
    return True


class FastZarr:
    """A zarr array that is sliced by tensorstore where that works.

    Parameters
    ----------
    array
        Array in a local folder.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array = array
        self._stamp = _stamp(array)
        self._lock = threading.Lock()
        self._pid = -1
        self._opened: Any = None

    def __reduce__(self) -> tuple[type[FastZarr], tuple[zarr.Array[Any]]]:
        return (FastZarr, (self.array,))

    def __getitem__(self, key: Any) -> Any:
        if self._stamp is not None:
            # A chunk that is missing is read as zeros, and so would a missing array.
            self._stamp.check()
        source = self._source()
        if source is self.array:
            return source[key]
        return source[key].read().result()

    def _source(self) -> Any:
        """Return what is sliced, opened in this process."""
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._opened = _open(self.array)
                    self._pid = os.getpid()
        return self._opened


def _stamp(array: zarr.Array[Any]) -> FileStamp | None:
    """Stamp of the file with the array's metadata."""
    store = array.store
    if not isinstance(store, LocalStore):
        return None
    folder = Path(store.root, array.path)
    name = ".zarray" if array.metadata.zarr_format == 2 else "zarr.json"
    return FileStamp.of(folder / name, folder)


def is_local(array: Any) -> bool:
    """Whether an array is a zarr in a local folder."""
    return isinstance(array, zarr.Array) and isinstance(array.store, LocalStore)


def _open(array: zarr.Array[Any]) -> Any:
    """Open by tensorstore; the array itself where that cannot be."""
    driver = _DRIVERS.get(array.metadata.zarr_format)
    store = array.store
    if driver is None or not isinstance(store, LocalStore) or not may_use_tensorstore():
        return array
    import tensorstore

    if not _first_user:
        _first_user.append(os.getpid())
    spec = {
        "driver": driver,
        "kvstore": {"driver": "file", "path": str(Path(store.root, array.path)) + "/"},
        "recheck_cached_data": False,
    }
    # Decoded blocks are kept by `BlockCache`, for all formats alike.
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": 0}})
    try:
        opened = tensorstore.open(spec, open=True, read=True, context=context).result()
    except (ValueError, OSError, NotImplementedError):
        # A codec or a data type that only zarr-python knows.
        return array
    same = opened.shape == array.shape and (
        opened.dtype.numpy_dtype == np.dtype(array.dtype).newbyteorder("=")
    )
    return opened if same else array
