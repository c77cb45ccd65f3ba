"""Annotations from and to GeoJSON, as QuPath writes and reads it.

A file holds a FeatureCollection, a list of features, or one feature. The class is
``properties.classification.name``; its colour is ``color`` ([r, g, b]) or, in older
files, ``colorRGB`` (a signed integer). Coordinates are (x, y) in pixels of the full
resolution, from the corner of the first pixel, which is this package's world.

As in QuPath, a class whose name ends with ``*`` is not learned: ``Region*`` is an area
in which everything unmarked is background, any other (``Ignore*``) takes away what lies
below it.
"""

from __future__ import annotations

import json
import math
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import AnnotationError, ImageNotFoundError, MuvitError, OutputError
from .annotations import Annotations
from .items import Area, Region
from .label_image import LabelImage
from .outlines import outlines
from .polygons import MAX_COORDINATE, Polygon, Vertices

SUFFIXES = {".geojson", ".json"}
REGION, BACKGROUND = "Region*", "background"
MAX_BYTES = 2**30
"""A larger file is no annotation by hand."""
MAX_DEPTH = 8
"""Collections inside collections that are followed."""
Json = Any


@dataclass(frozen=True, slots=True)
class Outline:
    """One closed area of a file."""

    class_name: str
    vertices: Vertices
    """(n, 2), (y, x)."""
    holes: tuple[Vertices, ...]


@dataclass(frozen=True, slots=True)
class GeoJson:
    """What a file holds, before its classes are numbered."""

    path: Path
    outlines: tuple[Outline, ...]
    colors: Mapping[str, str]
    """Colour of a class as ``#rrggbb``, where the file has one."""
    note: str
    """What was left out."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes to be learned, in order of appearance; background first."""
        names = [o.class_name for o in self.outlines if not o.class_name.endswith("*")]
        if any(_is_region(o.class_name) for o in self.outlines):
            names.append(BACKGROUND)
        return _ordered(names)

    def annotations(self, class_names: Sequence[str] | None = None) -> Annotations:
        """Number the classes.

        Parameters
        ----------
        class_names
            Names of the labels 1..K, upper and lower case alike; None: `class_names`.

        Raises
        ------
        AnnotationError
            If the file holds another class, or a region and no class ``background``.
        """
        names = tuple(class_names) if class_names is not None else self.class_names
        labels = {name.strip().lower(): k for k, name in enumerate(names, start=1)}
        items: list[Area] = []
        for outline in self.outlines:
            name = outline.class_name
            is_region = _is_region(name)
            label = 0
            if is_region or not name.endswith("*"):
                label = self._label(BACKGROUND if is_region else name, labels, names)
            polygon = Polygon(label, outline.vertices, outline.holes)
            items.append(Region(polygon) if is_region else polygon)
        known = {name.strip().lower(): color for name, color in self.colors.items()}
        colors = tuple(known.get(name.strip().lower(), "") for name in names)
        return Annotations(
            tuple(items),
            names or None,
            colors if colors and all(colors) else None,
            note=f"{self.path.name}: {self.note}" if self.note else "",
        )

    def _label(self, name: str, labels: Mapping[str, int], names: Sequence[str]) -> int:
        label = labels.get(name.strip().lower())
        if label is None:
            known = ", ".join(names) or "none"
            raise AnnotationError(
                f"{self.path} holds the class {name!r}, which is not among the classes "
                f"{known}. Rename it, or name all classes."
            )
        return label


class NamesClasses(Protocol):
    """A label file that names its classes."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""


def _is_region(name: str) -> bool:
    return name.lower() == REGION.lower()


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, upper and lower case alike; background first."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.strip().lower(), name)
    return tuple(first[k] for k in sorted(first, key=lambda k: k != BACKGROUND))


def class_names_of(files: Sequence[NamesClasses]) -> tuple[str, ...] | None:
    """Classes of all files together, or None without any."""
    return _ordered(name for file in files for name in file.class_names) or None


def is_geojson(source: Any) -> bool:
    """Whether a label source is named like a GeoJSON file."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() in SUFFIXES


def read_geojson(path: str | Path, plane: tuple[int, int] = (0, 0)) -> GeoJson:
    """Read the areas of a file.

    Parameters
    ----------
    path
        The file.
    plane
        (z, t) of the areas to take.

    Raises
    ------
    ImageNotFoundError
        If there is no file.
    AnnotationError
        If it is no GeoJSON, or an area is broken.
    """
    path = Path(path)
    outlines: list[Outline] = []
    colors: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for number, feature in enumerate(_features(_content(path), path)):
        properties = feature.get("properties") or {}
        geometry = feature.get("geometry")
        if not isinstance(properties, Mapping) or not isinstance(geometry, Mapping):
            left_out["without a geometry"] += 1
            continue
        name, color = _classification(properties)
        if not name:
            left_out["without a class"] += 1
            continue
        if _plane(geometry) not in (None, plane):
            left_out["on other planes"] += 1
            continue
        if color:
            colors.setdefault(name, color)
        where = f"feature {number} of {path}"
        outlines += [
            Outline(name, rings[0], tuple(rings[1:]))
            for rings in _areas(geometry, left_out, where)
        ]
    note = "; ".join(f"left out: {n} features {why}" for why, n in left_out.items())
    return GeoJson(path, tuple(outlines), colors, note)


def _content(path: Path) -> Json:
    try:
        if not path.exists():
            raise ImageNotFoundError(f"There is no GeoJSON file at {path}.")
        if not path.is_file():
            # Reading a pipe or a device might never end.
            raise AnnotationError(f"{path} is no file; a GeoJSON file is needed.")
        if path.stat().st_size > MAX_BYTES:
            raise AnnotationError(f"{path} is larger than {MAX_BYTES >> 20} MiB.")
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, MuvitError):
            raise
        raise AnnotationError(
            f"{path} is no GeoJSON: {' '.join(str(error).split())[:200]}."
        ) from error


def _features(content: Json, path: Path) -> Iterator[Mapping[str, Json]]:
    """Features of a collection, a list, or one alone."""
    if isinstance(content, Mapping) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    elif isinstance(content, Mapping) and content.get("type") == "Feature":
        content = [content]
    if not isinstance(content, list):
        raise AnnotationError(
            f"{path} is no GeoJSON: a FeatureCollection, a list of features or a "
            "feature is needed."
        )
    for feature in content:
        if not isinstance(feature, Mapping) or feature.get("type") != "Feature":
            raise AnnotationError(f"{path} holds an entry that is no feature.")
        yield feature


def _classification(properties: Mapping[str, Json]) -> tuple[str, str | None]:
    """Name and colour of the class; an empty name without one."""
    found = properties.get("classification")
    if isinstance(found, str):
        return _text(found), None
    if not isinstance(found, Mapping):
        return "", None
    name = found.get("name")
    if name is None and isinstance(found.get("names"), list):
        # Newer files list the parts of a derived class.
        name = ": ".join(str(part) for part in found["names"])
    color = found.get("color")
    if color is None and isinstance(found.get("colorRGB"), int):
        color = (found["colorRGB"] & 0xFFFFFF).to_bytes(3, "big")
    try:
        red, green, blue = (int(v) & 0xFF for v in color)  # type: ignore[union-attr]
    except (TypeError, ValueError, OverflowError):
        return _text(name), None
    return _text(name), f"#{red:02x}{green:02x}{blue:02x}"


def _text(name: Json) -> str:
    """Return a class name that can be printed and written: no halves of characters."""
    return str(name or "").strip().encode("utf-8", "replace").decode("utf-8")


def _plane(geometry: Mapping[str, Json]) -> tuple[int, int] | None:
    """(z, t), or None where the file does not say."""
    plane = geometry.get("plane")
    if not isinstance(plane, Mapping):
        return None
    try:
        return int(plane.get("z", 0)), int(plane.get("t", 0))
    except (TypeError, ValueError, OverflowError):
        return None


def _areas(
    geometry: Mapping[str, Json], left_out: Counter[str], where: str, depth: int = 0
) -> Iterator[list[Vertices]]:
    """Rings of each area, the outer one first."""
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "Polygon":
        yield _rings(coordinates, where)
    elif kind == "MultiPolygon" and isinstance(coordinates, list):
        for part in coordinates:
            yield _rings(part, where)
    elif kind == "GeometryCollection" and depth < MAX_DEPTH:
        parts = geometry.get("geometries")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, Mapping):
                yield from _areas(part, left_out, where, depth + 1)
    else:
        left_out[f"that are no areas ({kind})"] += 1


def _rings(coordinates: Json, where: str) -> list[Vertices]:
    if not isinstance(coordinates, list) or not coordinates:
        raise AnnotationError(f"The polygon in {where} has no coordinates.")
    return [_ring(ring, where) for ring in coordinates]


def _ring(ring: Json, where: str) -> Vertices:
    """(x, y) of a ring to (n, 2) vertices (y, x); the repeated last one is dropped."""
    try:
        points = np.array([p[:2] for p in ring], dtype=np.float64)
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise AnnotationError(
            f"The polygon in {where} has coordinates that are no pairs of numbers."
        ) from error
    if len(points) > 1 and np.array_equal(points[0], points[-1]):
        points = points[:-1]
    near = np.abs(points) <= MAX_COORDINATE  # false for NaN
    if len(points) < 3 or points.shape[1] != 2 or not near.all():
        raise AnnotationError(
            f"The polygon in {where} has a ring of {len(points)} points; at least "
            "three with finite coordinates are needed."
        )
    return np.ascontiguousarray(points[:, ::-1])


def write_geojson(
    annotations: Annotations, path: str | Path, plane: tuple[int, int] = (0, 0)
) -> None:
    """Write areas as a FeatureCollection that QuPath reads.

    What takes away (label 0) becomes ``Ignore*``. A region becomes ``Region*`` where
    its class is named background, else an ordinary area below all others. An ellipse
    becomes a polygon within a tenth of a pixel, a mask its outlines along pixel edges.

    Parameters
    ----------
    annotations
        Anything but label images, which have no outlines.
    path
        File to write; it is replaced as a whole.
    plane
        (z, t) to say in the file.

    Raises
    ------
    AnnotationError
        If there is a label image among the items.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    names = annotations.class_names or ()
    colors = annotations.class_colors or ()
    if any(name.endswith("*") for name in names) or len(_ordered(names)) < len(names):
        raise AnnotationError(
            f"The classes {', '.join(names)} cannot be written as GeoJSON: a name with "
            "* at its end means something else there, and upper and lower case are "
            "the same."
        )
    features = []
    for number, item in enumerate(annotations.items):
        if isinstance(item, LabelImage):
            raise AnnotationError(
                "A label image has no outlines, so it cannot be written as GeoJSON."
            )
        name = f"class {item.label}" if item.label else "Ignore*"
        if 0 < item.label <= len(names):
            name = names[item.label - 1]
        color = colors[item.label - 1] if 0 < item.label <= len(colors) else None
        if isinstance(item, Region) and name.strip().lower() == BACKGROUND:
            name = REGION
        features.append(_feature(item, name, color, plane, number))
    text = json.dumps({"type": "FeatureCollection", "features": features})
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}."
        ) from error


def _feature(
    item: Area, name: str, color: str | None, plane: tuple[int, int], number: int
) -> Json:
    parts = [
        [_closed(ring) for ring in (part.vertices, *part.holes)]
        for part in outlines(item)
    ]
    classification: dict[str, Json] = {"name": name}
    if color:
        classification["color"] = list(bytes.fromhex(color.removeprefix("#")))
    single = len(parts) == 1
    coordinates = parts[0] if single else parts
    geometry = {
        "type": "Polygon" if single else "MultiPolygon",
        "coordinates": coordinates,
        "plane": {"c": -1, "z": plane[0], "t": plane[1]},
    }
    # The same outline keeps its id, so that QuPath knows it again.
    identity = uuid.uuid5(uuid.NAMESPACE_OID, f"{number} {name} {coordinates}")
    return {
        "type": "Feature",
        "id": str(identity),
        "geometry": geometry,
        "properties": {"objectType": "annotation", "classification": classification},
    }


def _closed(ring: Vertices) -> list[list[float]]:
    """(y, x) vertices as (x, y) pairs, the first one repeated at the end."""
    pairs = [[_short(x), _short(y)] for y, x in ring.tolist()]
    return [*pairs, pairs[0]]


def _short(value: float) -> float:
    """Whole numbers without a decimal point."""
    return int(value) if math.isfinite(value) and value.is_integer() else value
