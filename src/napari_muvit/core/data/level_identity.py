"""Which slide an entry of the level cache is of: the file as it is, and what is read.

Unlike `hash_image`, which knows a slide again on another disk, this must notice that a
file was changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .identity import sample_blocks
from .level_store import LevelPlan
from .pyramid import Pyramid

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


def describe_source(pyramid: Pyramid, plans: Sequence[LevelPlan]) -> dict[str, Any]:
    """Return what tells one entry from another, in plain JSON types.

    The path, size and time of a file, or the metadata and times of folders of a zarr;
    image, planes and channels; and seeded blocks of pixels of each level that is
    averaged. How the slide is named or viewed does not matter.

    Raises
    ------
    OSError
        If the file is gone.
    """
    path = Path(os.path.realpath(pyramid.path or ""))
    levels = []
    for index in sorted({plan.index for plan in plans}):
        source = pyramid.levels[index].source
        digest = hashlib.sha256()
        for block in sample_blocks(source):
            digest.update(np.ascontiguousarray(block).data)
        levels.append(
            {
                "index": index,
                "shape": list(source.shape),
                "dtype": str(source.dtype),
                "fixed": {a: i for a, i in sorted(source.fixed.items()) if i},
                "channels": list(source.channels or range(source.shape[0])),
                "pixels": digest.hexdigest(),
                "folder": _folder_state(source.array),
            }
        )
    return {
        "path": str(path),
        "file": _file_state(path),
        "image": pyramid.contents.image,
        "planes": {a: i for a, i in sorted(pyramid.contents.planes.items()) if i},
        "sources": levels,
        "levels": [plan.facts() for plan in plans],
    }


def entry_key(facts: dict[str, Any]) -> str:
    """Name of the entry, made of what tells it from others."""
    text = json.dumps(facts, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()[:32]


def _file_state(path: Path) -> Any:
    if path.is_dir():
        return _hash(_metadata(path, deep=False))
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def _folder_state(array: Any) -> str | None:
    """State of the folder of a zarr array; None for what lies in one file."""
    root = getattr(getattr(array, "store", None), "root", None)
    if root is None:
        return None
    folder = Path(root) / str(getattr(array, "path", ""))
    return _hash(_metadata(folder, deep=True)) if folder.is_dir() else None


def _metadata(folder: Path, deep: bool) -> Iterator[bytes]:
    """Metadata files of a folder; of a deep one also when which chunks came.

    Files are replaced by renaming, which the time of their folder shows. To ask for the
    time of each of 100,000 chunks would take long on a network disk.
    """
    for name in _METADATA:
        path = folder / name
        if path.is_file():
            yield name.encode() + path.read_bytes()
    for parent, folders, _ in os.walk(folder) if deep else ():
        folders.sort()
        yield f"{parent} {os.stat(parent).st_mtime_ns}".encode()


def _hash(parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
