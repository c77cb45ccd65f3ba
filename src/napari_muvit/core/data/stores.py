"""Zarr stores in zips and behind web addresses, opened anew in each process."""

from __future__ import annotations

import copy
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarr.abc.store import (
    ByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.storage import FsspecStore, LocalStore, WrapperStore, ZipStore

from ..errors import MissingExtraError, PyramidError
from .file_stamp import FileStamp
from .place import METADATA, Place

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype

CONNECT_SECONDS, READ_SECONDS = 15, 30
"""A server that does not answer for so long ends a request with an error."""


class PerProcessStore(WrapperStore[Store]):
    """A read-only store that is opened on first use, and anew after a fork.

    An open zip has one place in the file, a web session belongs to one event loop:
    neither may be shared with another process.

    Parameters
    ----------
    place
        Its root; the path inside is not part of the store.
    """

    def __init__(self, place: Place) -> None:
        self.place = Place(place.root)
        is_file = isinstance(place.root, Path)
        self._stamp = FileStamp.of(Path(place.root)) if is_file else None
        self._open_here()

    def _open_here(self) -> None:
        self._opened, self._pid = _open(self.place), os.getpid()
        weakref.finalize(self, self._opened.close)

    @property
    def _store(self) -> Store:  # type: ignore[override]
        if self._pid != os.getpid():
            self._open_here()
        return self._opened

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the bytes of a key, or None where there is none."""
        if self._stamp is not None:
            self._stamp.check()
        try:
            return _asked_for(
                await self._store.get(key, prototype, byte_range), byte_range
            )
        except Exception as error:
            # Public buckets that may not be listed deny what they do not have. Which
            # metadata there are is found by asking; a chunk that is denied is an error.
            if _is_denied(error) and key.rsplit("/", 1)[-1] in METADATA:
                return None
            raise

    def __reduce__(self) -> tuple[type[PerProcessStore], tuple[Place]]:
        return (PerProcessStore, (self.place,))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerProcessStore) and self.place == other.place

    def __hash__(self) -> int:
        return hash(self.place)

    def __str__(self) -> str:
        return str(self.place)

    def __repr__(self) -> str:
        return f"PerProcessStore({str(self.place)!r})"


def _asked_for(found: Buffer | None, asked: ByteRequest | None) -> Buffer | None:
    """Cut a part out of the whole, which simple web servers send instead."""
    if found is None:
        return None
    if isinstance(asked, RangeByteRequest) and len(found) > asked.end - asked.start:
        return found[asked.start : asked.end]
    if isinstance(asked, SuffixByteRequest) and len(found) > asked.suffix:
        return found[len(found) - asked.suffix :]
    return found


def _is_denied(error: Exception) -> bool:
    return isinstance(error, PermissionError) or getattr(error, "status", 0) == 403


def open_store(place: Place) -> Store:
    """Open the store of a place for reading.

    Raises
    ------
    MissingExtraError
        That says what to install for a web address.
    PyramidError
        If nothing can read from such an address.
    """
    if place.kind == "folder":
        return LocalStore(place.root, read_only=True)
    return PerProcessStore(place)


def _open(place: Place) -> Store:
    if isinstance(place.root, str):
        return _open_remote(place.root, place.kind)
    # A copied zip store is an open one; to open it otherwise needs an event loop.
    return copy.copy(ZipStore(place.root, mode="r"))


def _open_remote(url: str, scheme: str) -> Store:
    try:
        return FsspecStore.from_url(
            url, storage_options=_options(scheme), read_only=True
        )
    except ImportError as error:
        extra = 'pip install "napari-muvit[remote]"'
        if scheme not in ("http", "https", "s3"):
            extra = f"{extra}, and what {scheme}:// needs besides ({error})"
        raise MissingExtraError(
            f"{url} needs packages that are not installed: {extra}."
        ) from error
    except ValueError as error:
        raise PyramidError(
            f"{url} cannot be opened: {str(error).rstrip('.')}."
        ) from error


def _options(scheme: str) -> dict[str, Any]:
    """Settings of the client: time-outs, and whether to go without credentials."""
    if scheme in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(
            total=None, connect=CONNECT_SECONDS, sock_read=READ_SECONDS
        )
        # trust_env: proxies, as other programs use them.
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    if scheme in ("s3", "s3a"):
        return {
            "anon": not _has_credentials(),
            "config_kwargs": {
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": READ_SECONDS,
                "retries": {"max_attempts": 2},
            },
        }
    return {}


def _has_credentials() -> bool:
    """Whether this machine knows any for S3; public buckets need none."""
    from botocore.session import get_session

    return get_session().get_credentials() is not None
