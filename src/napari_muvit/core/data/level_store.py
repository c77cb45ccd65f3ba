"""Averaged levels as zarr arrays on disk of which no damage stays unnoticed.

Every chunk carries a checksum (crc32c), a missing one is an error instead of zeros, and
a record beside them says which files of which size there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import LocalStore, WrapperStore

from ..errors import PyramidError
from ..geometry import Vector
from .arrays import ArraySource
from .averaged import AveragedLevel
from .cache_folder import folder_files

RECORD, DAMAGED = "entry.json", "damaged"


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """A level that an entry holds."""

    index: int
    """The stored level that is averaged."""
    step: Vector
    """Pixels of that level per pixel of this one, one a spatial axis."""
    factor: float
    """World pixels per pixel, as `Pyramid.read` takes it."""
    shape: tuple[int, ...]
    """(C, *spatial)."""
    edge: int
    """Of a chunk, which is a file, along each spatial axis."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """(C, *edges)."""
        return (self.shape[0], *(min(self.edge, n) for n in self.shape[1:]))

    @property
    def nbytes(self) -> int:
        """Bytes without compression."""
        return int(np.prod(self.shape)) * 4

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each spatial axis."""
        return tuple(-(-n // self.edge) for n in self.shape[1:])

    def chunk_file(self, index: tuple[int, ...]) -> str:
        """Path of a chunk in the array's folder."""
        return "/".join(map(str, ("c", 0, *index)))

    def facts(self) -> dict[str, Any]:
        """Return what decides the pixels, in plain JSON types."""
        return {
            "index": self.index,
            "step": list(self.step),
            "shape": list(self.shape),
            "edge": self.edge,
        }


def create_level(path: Path, plan: LevelPlan) -> zarr.Array[Any]:
    """Make the empty array of a level."""
    return zarr.create_array(
        path,
        shape=plan.shape,
        chunks=plan.chunks,
        # Exact: a result must not depend on whether there is a cache. Means of integers
        # end in zero bits, which the shuffled bytes give back to the compressor.
        dtype="float32",
        compressors=[
            BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
            Crc32cCodec(),
        ],
        fill_value=0,
        # A chunk of zeros too: no missing chunk is right.
        config={"write_empty_chunks": True},
        zarr_format=3,
    )


class _StrictStore(WrapperStore[LocalStore]):
    """A store in which a chunk that is not there is an error."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        value = await super().get(key, prototype, byte_range)
        if value is None and key.startswith("c/"):
            raise ValueError(f"chunk {key} is missing")
        return value


class KeptArray:
    """A level of an entry as an array; damage raises and is noted in the entry.

    Parameters
    ----------
    entry
        Folder of the entry.
    name
        Of the level in it.
    plan
        What the level is.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, entry: Path, name: str, plan: LevelPlan) -> None:
        self.entry, self.name, self.plan = entry, name, plan
        self.shape, self.chunks = plan.shape, plan.chunks
        self._lock = threading.Lock()
        self._pid = -1
        self._array: Any = None
        self._broken = False

    def __reduce__(self) -> tuple[type[KeptArray], tuple[Path, str, LevelPlan]]:
        return (KeptArray, (self.entry, self.name, self.plan))

    def __repr__(self) -> str:
        return f"<KeptArray {self.entry.name}/{self.name} {self.shape}>"

    def __getitem__(self, key: Any) -> Any:
        if self._broken:
            raise PyramidError(f"{self!r} is damaged.")
        try:
            return self._opened()[key]
        except MemoryError:
            raise
        except Exception as error:  # a damaged chunk may raise anything
            self._broken = True
            # Noted for the next one who opens the entry, who makes it anew.
            with contextlib.suppress(OSError):
                (self.entry / DAMAGED).touch()
            raise PyramidError(f"{self!r} is damaged: {error}.") from error

    def _opened(self) -> Any:
        """Return the array, opened in this process."""
        with self._lock:
            if self._array is None or self._pid != os.getpid():
                store = _StrictStore(LocalStore(self.entry / self.name, read_only=True))
                array = zarr.open_array(store, mode="r", zarr_format=3)
                if array.shape != self.shape or array.dtype != self.dtype:
                    raise ValueError("its metadata are those of another array")
                self._array, self._pid = array, os.getpid()
            return self._array


def open_levels(
    entry: Path, plans: tuple[LevelPlan, ...], spatial: str
) -> tuple[AveragedLevel, ...]:
    """Levels of an entry; nothing is read yet."""
    axes = "c" + spatial
    return tuple(
        AveragedLevel(
            plan.index,
            plan.step,
            ArraySource(KeptArray(entry, str(number), plan), axes, spatial),
        )
        for number, plan in enumerate(plans)
    )


def write_record(entry: Path, facts: dict[str, Any], without: str) -> None:
    """Write down what the entry is of and which files it has, with a checksum.

    ``without`` names the file that will not stay.
    """
    files = {
        path.relative_to(entry).as_posix(): [size, _metadata_hash(path)]
        for path, size in folder_files(entry)
        if path.name != without
    }
    record = {"facts": facts, "files": dict(sorted(files.items()))}
    text = json.dumps({"sha256": _hash(_text(record)), "record": record})
    (entry / RECORD).write_text(text, encoding="utf-8")


def read_record(entry: Path) -> dict[str, Any] | None:
    """Facts of an entry, None where its record is missing or damaged."""
    try:
        content = json.loads((entry / RECORD).read_text(encoding="utf-8"))
        record: dict[str, Any] = content["record"]
        good = content["sha256"] == _hash(_text(record))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return record if good else None


def is_whole(entry: Path, facts: dict[str, Any]) -> bool:
    """Whether an entry is complete and of these facts; reads no chunk."""
    record = read_record(entry)
    if record is None or record["facts"] != facts or (entry / DAMAGED).exists():
        return False
    try:
        return all(
            (entry / name).stat().st_size == size
            and _metadata_hash(entry / name) == digest
            for name, (size, digest) in record["files"].items()
        )
    except OSError:
        return False


def _metadata_hash(path: Path) -> str | None:
    """Hash of a metadata file; chunks have a checksum of their own."""
    return _hash(path.read_bytes()) if path.name == "zarr.json" else None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _text(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True).encode()
