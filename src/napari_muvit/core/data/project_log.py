"""The lines of a project file: JSON, each with a checksum, read whatever happened.

A line is ``["<crc32>",{...}]``, the checksum (8 hexadecimals) being that of the bytes
of the second part. The first line names the format; the others are numbered edits.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AnnotationError, ImageNotFoundError
from .project_state import Entry, Json, ProjectState, checked_classes

FORMAT, VERSION = "napari-muvit annotations", 1
SUFFIX = ".muvit.jsonl"
MAX_BYTES = 2**30
"""A larger file is no project."""
_START, _MIDDLE, _END = b'["', b'",', b"]\n"
_BODY = len(_START) + 8 + len(_MIDDLE)


def is_project(source: Any) -> bool:
    """Whether a label source is named like a project file."""
    return isinstance(source, str | Path) and str(source).lower().endswith(SUFFIX)


def write_line(entry: Entry) -> bytes:
    """Return a line of a project file, with its end."""
    body = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode("ascii")
    return _START + b"%08x" % zlib.crc32(body) + _MIDDLE + body + _END


def read_line(line: bytes) -> Json | None:
    """Return the content of a whole line, or None when it is damaged."""
    body = line[_BODY : -len(_END)]
    if line != _START + b"%08x" % zlib.crc32(body) + _MIDDLE + body + _END:
        return None
    try:
        entry = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


@dataclass(frozen=True, slots=True)
class Header:
    """First line of a project file."""

    slide: str = ""
    """Name of the slide."""
    pixel_size: tuple[float, float] | None = None
    """Physical edge (y, x) of the slide's finest pixel; None: unknown."""
    unit: str = "micrometer"
    """Of the pixel size."""
    shape: tuple[int, int] | None = None
    """Pixels of the slide (height, width); None: unknown."""

    def entry(self, classes: Json) -> Entry:
        """Return the content of the line."""
        return {
            "n": 0,
            "format": FORMAT,
            "version": VERSION,
            "slide": self.slide,
            "pixel_size": self.pixel_size,
            "unit": self.unit,
            "shape": self.shape,
            "classes": classes,
        }


@dataclass(frozen=True, slots=True)
class ProjectLog:
    """What a project file holds."""

    header: Header
    state: ProjectState
    end: int
    """Bytes up to the end of the last whole line."""
    size: int
    """Bytes of the file; more than ``end`` where the last line is cut off."""
    damaged: tuple[int, ...]
    """Damaged lines, counted from 1."""
    has_header: bool
    """Whether the first line is there and whole."""

    @property
    def note(self) -> str:
        """What the user should know about the file; empty when it is whole."""
        if self.damaged:
            shown = ", ".join(str(n) for n in self.damaged[:5])
            more = ", ..." if len(self.damaged) > 5 else ""
            some = "lines are" if len(self.damaged) > 1 else "line is"
            return (
                f"{len(self.damaged)} {some} damaged and left out ({shown}{more}); all "
                "others are read."
            )
        if self.size > self.end:
            return "The last line was cut off while it was written; it is left out."
        return ""


def whole_lines(path: Path) -> Iterator[tuple[bytes, Json | None]]:
    """Each line that has its end, and its content; None where it is damaged."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line, read_line(line)


def check_there(path: Path) -> None:
    """Raise `ImageNotFoundError` when there is no file."""
    if not path.is_file():
        raise ImageNotFoundError(f"There is no annotation project at {path}.")


def read_log(path: Path) -> ProjectLog:
    """Read a project file; another process may be writing it.

    Raises
    ------
    ImageNotFoundError
        If there is no file.
    AnnotationError
        If it is no project file, or of a newer version.
    """
    check_there(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise AnnotationError(f"{path} is larger than {MAX_BYTES >> 20} MiB.")
        return _read(path)
    except OSError as error:
        raise AnnotationError(
            f"{path} cannot be read: {error.strerror or error}."
        ) from error


def _read(path: Path) -> ProjectLog:
    state, header = ProjectState(), None
    damaged: list[int] = []
    end = good = 0
    for number, (line, entry) in enumerate(whole_lines(path), start=1):
        end += len(line)
        try:
            if entry is None:
                raise ValueError("damaged")
            if number == 1:
                found, state.classes = _header(entry, path)
                header, state.next_number = found, 1
            else:
                state.apply(entry)
            good += 1
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, AnnotationError):
                raise
            damaged.append(number)
    size = os.path.getsize(path)
    if not good and not (end == 0 and _begins_like_one(path)):
        raise AnnotationError(
            f"{path} is no annotation project of napari-muvit; choose another file."
        )
    state.next_number = max(1, state.next_number)
    return ProjectLog(
        header or Header(), state, end, size, tuple(damaged), header is not None
    )


def _header(entry: Entry, path: Path) -> tuple[Header, Json]:
    """First line, and its list of classes."""
    if entry["format"] != FORMAT:
        raise ValueError("another format")
    if entry["version"] != VERSION:
        raise AnnotationError(
            f"{path} is a project of version {entry['version']!r}, this napari-muvit "
            f"reads {VERSION}; update it."
        )
    size = entry["pixel_size"]
    pixel_size = None if size is None else (float(size[0]), float(size[1]))
    shape = entry.get("shape")
    extent = None if shape is None else (int(shape[0]), int(shape[1]))
    header = Header(str(entry["slide"]), pixel_size, str(entry["unit"]), extent)
    return header, checked_classes(entry["classes"])


def _begins_like_one(path: Path) -> bool:
    """Whether a file without a whole line is the beginning of a first line."""
    wanted = write_line(Header().entry(None))
    # Up to where the name of the slide begins; the checksum depends on what follows.
    wanted = wanted[: wanted.index(b'"slide":"')]
    with path.open("rb") as file:
        found = file.read(len(wanted))
    first, last = len(_START), _BODY - len(_MIDDLE)
    checksum = found[first:last]
    same = found[:first] + wanted[first : first + len(checksum)] + found[last:]
    return set(checksum) <= set(b"0123456789abcdef") and wanted.startswith(same)
