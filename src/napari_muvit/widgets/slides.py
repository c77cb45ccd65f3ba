"""The slides of a project: which train together and are predicted together. No Qt."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.data.annotations import Annotations
from ..core.data.named_labels import read_project
from ..core.data.open import open_pyramid
from ..core.data.pyramid import Pyramid
from ..core.errors import AnnotationError, MuvitError
from ..core.files import write_json

SUFFIX = ".muvit-slides.json"
FORMAT, VERSION = "napari-muvit slides", 1
MAX_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class SlideEntry:
    """A slide of the project."""

    name: str
    """For people."""
    project: Path
    """File of its annotations, which need not be there yet; tells slides apart."""
    path: Path | None = None
    """File that it is opened from; None: it lies in the viewer only."""
    channels: tuple[int, ...] | None = None
    """Channels of the file; None: all."""
    pixel_size: float | None = None
    """Micrometres that the user typed; None: what the file says."""
    ticked: bool = True
    """Whether it is trained on and predicted."""
    opened: Callable[[], Pyramid | None] | None = field(
        default=None, compare=False, repr=False
    )
    """Returns it from the layers of the viewer; None where they are gone."""

    def pyramid(self) -> Pyramid:
        """Open the slide: from its layers while they are there, else from its file.

        Raises
        ------
        MuvitError
            If neither is there, or the file cannot be read.
        """
        found = None if self.opened is None else self.opened()
        if found is not None:
            return found
        if self.path is None:
            raise MuvitError(
                f"The layer of {self.name} is gone, and there is no file to open it "
                "from. Add it again, or untick it in the list of slides."
            )
        return open_pyramid(
            self.path, channels=self.channels, pixel_size=self.pixel_size
        )

    @property
    def alive(self) -> bool:
        """Whether it can be opened, as far as that is known without opening it."""
        if self.path is not None:
            return True
        return self.opened is not None and self.opened() is not None

    def annotations(self, names: Sequence[str]) -> Annotations | None:
        """Read its annotations; None where there are none.

        Parameters
        ----------
        names
            Classes in label order, which those of the file must be among.

        Raises
        ------
        AnnotationError
            If the file cannot be read, or holds another class.
        """
        if not self.project.is_file():
            return None
        found = read_project(self.project)
        return found.annotations(names) if found.items else None


@dataclass(frozen=True, slots=True)
class AnnotatedSlide:
    """A slide that is trained on."""

    entry: SlideEntry
    annotations: Annotations


def file_entry(path: Path, project: Path) -> SlideEntry:
    """Return the entry of a file that is not open as a layer; nothing is opened."""
    from ..core.data.open import stem

    return SlideEntry(stem(path), project, Path(os.path.abspath(path)))


def put(entries: Sequence[SlideEntry], new: SlideEntry) -> list[SlideEntry]:
    """Add a slide, or take over what is new of one that is there; its tick stays."""
    found = [
        dataclasses.replace(new, ticked=old.ticked) if _same(old, new) else old
        for old in entries
    ]
    return found if any(_same(old, new) for old in entries) else [*found, new]


def _same(one: SlideEntry, other: SlideEntry) -> bool:
    return one.project == other.project


def training_slides(
    entries: Sequence[SlideEntry],
    names: Sequence[str],
    shown: SlideEntry | None = None,
    annotations: Annotations | None = None,
) -> list[AnnotatedSlide]:
    """Return the ticked slides that are annotated, the shown one first.

    Parameters
    ----------
    entries
        Of the project.
    names
        Classes in label order.
    shown
        The slide on the Data page.
    annotations
        Of the shown slide, as they are on screen; those of the others are read.

    Raises
    ------
    AnnotationError
        If nothing is ticked, nothing is annotated, or a file does not fit.
    """
    ticked = [e for e in entries if e.ticked]
    if not ticked:
        raise AnnotationError(
            "No slide is ticked. Tick those to train on in the list of slides on the "
            "Data page."
        )
    found = []
    for entry in sorted(ticked, key=lambda e: shown is None or not _same(e, shown)):
        if shown is not None and _same(entry, shown):
            entry, marked = shown, annotations  # as it is on screen
        else:
            marked = entry.annotations(names)
        if marked is not None and marked.items:
            found.append(AnnotatedSlide(entry, marked))
    if not found:
        raise AnnotationError(
            "None of the ticked slides is annotated. Outline some regions of each "
            "class on the Annotate page."
        )
    return found


def prediction_slides(
    entries: Sequence[SlideEntry], shown: SlideEntry | None = None
) -> list[SlideEntry]:
    """Return the ticked slides, the shown one first; each is opened when it is due."""
    ticked = [e for e in entries if e.ticked]
    if shown is None or not any(_same(e, shown) for e in ticked):
        return ticked
    return [shown, *(e for e in ticked if not _same(e, shown))]


def count_regions(project: Path) -> int | None:
    """Return how many regions an annotation file holds; None where it is unreadable."""
    if not project.is_file():
        return 0
    try:
        return len(read_project(project).items)
    except MuvitError:
        return None


# ---- lists on disk


def save_list(entries: Sequence[SlideEntry], path: Path) -> int:
    """Write the slides that lie in files, relative to the list; return how many.

    Raises
    ------
    AnnotationError
        If none does.
    OutputError
        If it cannot be written.
    """
    kept = [e for e in entries if e.path is not None]
    if not kept:
        raise AnnotationError(
            "None of the slides lies in a file, so there is no list to save. Save the "
            "images first."
        )
    folder = Path(os.path.abspath(path)).parent
    slides = [
        {
            "path": _relative(entry.path, folder),
            "annotations": _relative(entry.project, folder),
            "channels": entry.channels,
            "pixel_size": entry.pixel_size,
            "ticked": entry.ticked,
        }
        for entry in kept
        if entry.path is not None
    ]
    write_json(path, {"format": FORMAT, "version": VERSION, "slides": slides})
    return len(slides)


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another drive
        return path.as_posix()


def open_list(path: Path) -> list[SlideEntry]:
    """Read a list of slides; none of them is opened.

    Raises
    ------
    AnnotationError
        If it is no such list, in one line.
    """
    folder = Path(os.path.abspath(path)).parent
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("it is too large")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if content["format"] != FORMAT or content["version"] > VERSION:
            raise ValueError(f"it says {content['format']} {content['version']}")
        return [_entry(said, folder) for said in content["slides"]]
    except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise AnnotationError(
            f"{path} is no list of slides that can be read: {why}."
        ) from error


def _entry(said: dict[str, Any], folder: Path) -> SlideEntry:
    place = Path(os.path.normpath(folder / str(said["path"])))
    channels, size = said.get("channels"), said.get("pixel_size")
    return dataclasses.replace(
        file_entry(place, Path(os.path.normpath(folder / str(said["annotations"])))),
        channels=None if channels is None else tuple(int(c) for c in channels),
        pixel_size=None if size is None else float(size),
        ticked=bool(said.get("ticked", True)),
    )
