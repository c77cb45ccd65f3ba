"""Where a zarr node lies: a folder, a zip or a web address, and a path inside it."""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import ImageNotFoundError, PyramidError
from .zarr_checks import MARKERS, inner_path

METADATA = (*MARKERS, ".zmetadata")
"""Every file of a zarr that is no chunk."""
ZIPS = (".zip", ".ozx")
"""Suffixes of zipped OME-Zarr."""
MAX_ENTRY_BYTES, MAX_METADATA_BYTES = 2**30, 2**26
"""A packed entry of a zip that unpacks to more is refused: a chunk or shard, a text."""


@dataclass(frozen=True, slots=True)
class Place:
    """A zarr node: a store and a path inside it. Holds nothing open."""

    root: Path | str
    """Folder or zip; or a web address, as text."""
    inside: str = ""
    """Names of groups, separated by ``/``."""

    def __truediv__(self, inside: str) -> Place:
        """Return a node further inside, and never one outside.

        Raises
        ------
        PyramidError
            If ``inside`` is no path, or leads out of the node.
        """
        text = inner_path(inside, self)
        return dataclasses.replace(self, inside=f"{self.inside}/{text}".lstrip("/"))

    def __str__(self) -> str:
        """For people: the root and the path inside."""
        root = str(self.root)
        return f"{root.rstrip('/')}/{self.inside}" if self.inside else root

    @property
    def kind(self) -> str:
        """``folder``, ``zip``, or the scheme of the web address."""
        if isinstance(self.root, str):
            return urlsplit(self.root).scheme
        return "zip" if is_zip(self.root) else "folder"

    @property
    def folder(self) -> Path | None:
        """The folder of the node, where it has one."""
        if isinstance(self.root, str) or is_zip(self.root):
            return None
        return self.root / self.inside

    @property
    def local_root(self) -> Path | None:
        """The folder or zip of the whole store, where it is on this machine."""
        return None if isinstance(self.root, str) else self.root

    @property
    def url(self) -> str | None:
        """The web address of the root, if it is one."""
        return self.root if isinstance(self.root, str) else None


def is_remote(source: str | Path) -> bool:
    """Whether this is a web address (``https://``, ``s3://``, ...)."""
    if not isinstance(source, str) or source.lower().startswith("file://"):
        return False
    return re.match(r"[A-Za-z][\w+.-]+://", source) is not None


def is_zip(path: Path) -> bool:
    """Whether the name is one of a zipped OME-Zarr."""
    return path.suffix.lower() in ZIPS and path.is_file()


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group or array."""
    return path.is_dir() and any((path / marker).is_file() for marker in MARKERS)


def local_path(source: str | Path) -> Path:
    """Return a path as a Path: ``~`` and ``file://`` are understood."""
    if isinstance(source, str) and source.lower().startswith("file://"):
        return Path(unquote(urlsplit(source).path))
    return Path(source).expanduser()


def find_place(source: str | Path | Place) -> Place:
    """Return the place of a folder, a zipped zarr or a web address.

    The zarr in a zip lies at its top, or in the only folder that is one.

    Raises
    ------
    PyramidError
        If a zip is broken or unsafe, or holds no zarr.
    """
    if isinstance(source, Place):
        return source
    if isinstance(source, str) and is_remote(source):
        return Place(source.rstrip("/"))
    path = local_path(source)
    return Place(path, _root_in_zip(path)) if is_zip(path) else Place(path)


def _root_in_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
    except FileNotFoundError as error:
        raise ImageNotFoundError(f"There is no image at {path}.") from error
    except Exception as error:  # a damaged zip may raise anything
        raise PyramidError(f"{path} is no zip that can be read: {error}.") from error
    _check_entries(path, entries)
    names = {entry.filename for entry in entries}
    if any(marker in names for marker in MARKERS):
        return ""
    tops = sorted(
        {
            name.split("/")[0]
            for name in names
            if name.count("/") == 1 and name.split("/")[1] in MARKERS
        }
    )
    if len(tops) == 1:
        return tops[0]
    found = f"{len(tops)} of them ({', '.join(tops[:5])})" if tops else "none"
    raise PyramidError(
        f"{path} must hold one zarr, at its top or in one folder; it holds {found}."
    )


def _check_entries(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse entries that are encrypted, or small only until they are unpacked."""
    for entry in entries:
        if entry.flag_bits & 1:
            raise PyramidError(f"{path} is encrypted; unpack it first.")
        is_text = entry.filename.rsplit("/", 1)[-1] in METADATA
        limit = MAX_METADATA_BYTES if is_text else MAX_ENTRY_BYTES
        packed = entry.compress_type != zipfile.ZIP_STORED
        if entry.file_size > limit and (packed or is_text):
            raise PyramidError(
                f"{path} holds {entry.filename!r}, which unpacks to "
                f"{entry.file_size / 2**20:,.0f} MiB; at most {limit // 2**20} MiB are "
                "unpacked. Pack the zarr without compression (zip -0)."
            )
