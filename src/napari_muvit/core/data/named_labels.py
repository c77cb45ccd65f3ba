"""Label files that name their classes, read together: GeoJSON and project files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AnnotationError
from .annotations import Annotations
from .geojson import GeoJson, class_names_of, is_geojson, read_geojson
from .item_json import decode_items
from .items import Area, relabelled
from .project_log import is_project, read_log


@dataclass(frozen=True, slots=True)
class ProjectLabels:
    """What a project file says, before its classes are numbered with others."""

    path: Path
    slide: str
    """Name of the slide that it was made for."""
    items: tuple[Area, ...]
    class_names: tuple[str, ...]
    """Names of its labels 1..K; empty: they are numbers only."""
    colors: Mapping[str, str]
    """Colour of a class as ``#rrggbb``, where the file has one."""
    note: str = ""
    """What was left out."""

    def annotations(self, class_names: Sequence[str] | None = None) -> Annotations:
        """Number the classes.

        Parameters
        ----------
        class_names
            Names of the labels 1..K, upper and lower case alike; None: `class_names`.
            Labels without names stay what they are.

        Raises
        ------
        AnnotationError
            If an item has another class.
        """
        note = f"{self.path.name}: {self.note}" if self.note else ""
        if not self.class_names:
            return Annotations(self.items, note=note)
        names = self.class_names if class_names is None else tuple(class_names)
        labels = {name.strip().lower(): k for k, name in enumerate(names, start=1)}

        def label_of(label: int) -> int:
            name = f"class {label}"
            if label <= len(self.class_names):
                name = self.class_names[label - 1]
            if name.strip().lower() not in labels:
                raise AnnotationError(
                    f"{self.path} holds the class {name!r}, which is not among the "
                    f"classes {', '.join(names)}. Rename it, or name all classes."
                )
            return labels[name.strip().lower()]

        items = tuple(relabelled(item, label_of) for item in self.items)
        known = {name.strip().lower(): color for name, color in self.colors.items()}
        colors = tuple(known.get(name.strip().lower(), "") for name in names)
        return Annotations(items, names, colors if all(colors) else None, note)


def read_project(path: str | Path) -> ProjectLabels:
    """Read a project file, which another process may have open.

    Raises
    ------
    ImageNotFoundError
        If there is no file.
    AnnotationError
        If it is no project file, or holds what cannot be read.
    """
    path = Path(path)
    log = read_log(path)
    try:
        items = decode_items(log.state.ordered().values())
    except AnnotationError as error:
        raise AnnotationError(f"{path}: {error}") from error
    names = tuple(log.state.classes["names"])
    colors = dict(zip(names, log.state.classes["colors"] or (), strict=False))
    return ProjectLabels(path, log.header.slide, tuple(items), names, colors, log.note)


def read_annotations(
    path: str | Path, class_names: Sequence[str] | None = None
) -> Annotations:
    """Read a project or GeoJSON file, which another process may have open.

    Parameters
    ----------
    path
        File of one slide.
    class_names
        Names of the labels 1..K; None: as the file has them.

    Raises
    ------
    ImageNotFoundError
        If there is no file.
    AnnotationError
        If it cannot be read, or an item has another class.
    """
    (file,) = read_named([path])
    names = shared_names([file]) if class_names is None else class_names
    return file.annotations(names)


def is_named(source: Any) -> bool:
    """Whether a label source is named like a GeoJSON or a project file."""
    return is_geojson(source) or is_project(source)


def read_named(
    sources: Sequence[str | Path], planes: Sequence[tuple[int, int]] | None = None
) -> list[GeoJson | ProjectLabels]:
    """Read files; each has the colours that any of them has.

    Parameters
    ----------
    sources
        GeoJSON and project files.
    planes
        (z, t) of the areas to take from each; None: the first ones.

    Raises
    ------
    ImageNotFoundError
        If there is no file.
    AnnotationError
        If one cannot be read.
    """
    planes = planes or [(0, 0)] * len(sources)
    files: list[GeoJson | ProjectLabels] = [
        read_project(source) if is_project(source) else read_geojson(source, plane)
        for source, plane in zip(sources, planes, strict=True)
    ]
    colors: dict[str, str] = {}
    for file in files:
        for name, color in file.colors.items():
            colors.setdefault(name, color)
    return [dataclasses.replace(file, colors=colors) for file in files]


def has_names(file: GeoJson | ProjectLabels) -> bool:
    """Whether a file names its classes; a project may number them only."""
    return isinstance(file, GeoJson) or bool(file.class_names)


def shared_names(files: Sequence[GeoJson | ProjectLabels]) -> tuple[str, ...] | None:
    """Class names of all files; None without any.

    In the order of the files where they agree on it, else background first.
    """
    first = files[0].class_names if files else ()
    if first and all(file.class_names == first for file in files):
        return first
    return class_names_of(files)


def covering_names(
    names: Sequence[str], files: Sequence[GeoJson | ProjectLabels]
) -> tuple[str, ...] | None:
    """Return ``names`` where all classes of the files are among them, else None."""
    known = {name.strip().lower() for name in names}
    found = {name.strip().lower() for name in class_names_of(files) or ()}
    return tuple(names) if names and found <= known else None
