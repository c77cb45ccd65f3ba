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
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import AnnotationError, ImageNotFoundError, MuvitError
from .annotations import Annotations
from .items import Area, Item, Region
from .label_image import LabelImage
from .outlines import masks_of, outlines
from .polygons import MAX_COORDINATE, Polygon, Vertices
from .project_file import write_whole

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
        # A region is written in the colour of its class.
        known.setdefault(BACKGROUND, known.get(REGION.lower(), ""))
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


def read_geojson(
    path: str | Path, plane: tuple[int, int] = (0, 0), *, unnamed: bool = False
) -> GeoJson:
    """Read the areas of a file.

    Parameters
    ----------
    path
        The file.
    plane
        (z, t) of the areas to take. An area that names none lies on the first one, as
        QuPath means it, where others of the file name theirs; else it counts on any.
    unnamed
        Keep areas without a class, too, whose name is then empty: for who wants places.

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
    features = list(_features(_content(path), path))
    unsaid = (0, 0) if any(_plane(f.get("geometry")) for f in features) else plane
    for number, feature in enumerate(features):
        properties = feature.get("properties") or {}
        geometry = feature.get("geometry")
        if not isinstance(properties, Mapping) or not isinstance(geometry, Mapping):
            left_out["without a geometry"] += 1
            continue
        name, color = _classification(properties)
        if not name and not unnamed:
            left_out["without a class"] += 1
            continue
        if (_plane(geometry) or unsaid) != plane:
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
    """Return a class name that can be printed and written on one line."""
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", str(name or "")).strip()
    # No halves of characters.
    return text.encode("utf-8", "replace").decode("utf-8")


def _plane(geometry: Json) -> tuple[int, int] | None:
    """(z, t), or None where the file does not say."""
    plane = geometry.get("plane") if isinstance(geometry, Mapping) else None
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
    if kind == "Polygon" and coordinates == []:
        left_out["without an area"] += 1
    elif kind == "Polygon":
        yield _rings(coordinates, where)
    elif kind == "MultiPolygon" and isinstance(coordinates, list):
        if not coordinates:
            left_out["without an area"] += 1
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
        pairs = np.array([p[:2] for p in ring])
        if pairs.dtype.kind not in "iufO":
            raise TypeError("no numbers")
        points = pairs.astype(np.float64)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
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
    becomes a polygon within a tenth of a pixel, a mask its outlines along pixel edges,
    and a label image one mask a class.

    Parameters
    ----------
    annotations
        Label images among them have up to 2**26 pixels.
    path
        File to write; it is replaced as a whole.
    plane
        (z, t) to say in the file.

    Raises
    ------
    AnnotationError
        If names or colours cannot be written, or an image is too large to outline.
    OutputError
        If the file cannot be written.
    """
    names = annotations.class_names or ()
    _check_names(names)
    colors = [_rgb(color) for color in annotations.class_colors or ()]
    write_whole(Path(path), _pieces(annotations.items, names, colors, plane))


def _check_names(names: Sequence[str]) -> None:
    unclear = any(not name.strip() or name.endswith("*") for name in names)
    if unclear or len(_ordered(names)) < len(names):
        raise AnnotationError(
            f"The classes {', '.join(names)} cannot be written as GeoJSON: an empty "
            "name or one with * at its end means something else there, and upper and "
            "lower case are the same."
        )


def _rgb(color: str) -> list[int]:
    if re.fullmatch("#[0-9a-fA-F]{6}", color) is None:
        raise AnnotationError(
            f"The colour {color!r} cannot be written as GeoJSON; #rrggbb is needed."
        )
    return list(bytes.fromhex(color[1:]))


def _pieces(
    items: Iterable[Item],
    names: Sequence[str],
    colors: Sequence[list[int]],
    plane: tuple[int, int],
) -> Iterator[bytes]:
    """Text of the file, feature by feature."""
    yield b'{"type": "FeatureCollection", "features": ['
    parts = (
        part
        for item in items
        for part in (masks_of(item) if isinstance(item, LabelImage) else (item,))
    )
    for number, item in enumerate(parts):
        name = f"class {item.label}" if item.label else "Ignore*"
        if 0 < item.label <= len(names):
            name = names[item.label - 1]
        color = colors[item.label - 1] if 0 < item.label <= len(colors) else None
        if isinstance(item, Region) and name.strip().lower() == BACKGROUND:
            name = REGION
        feature = _feature(item, name, color, plane, number)
        yield (",\n" if number else "\n").encode() + json.dumps(feature).encode()
    yield b"\n]}\n"


def _feature(
    item: Area, name: str, color: list[int] | None, plane: tuple[int, int], number: int
) -> Json:
    parts = [
        [_closed(ring) for ring in (part.vertices, *part.holes)]
        for part in outlines(item)
    ]
    classification: dict[str, Json] = {"name": name}
    if color:
        classification["color"] = color
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
