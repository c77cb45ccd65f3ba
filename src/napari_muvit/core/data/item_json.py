"""Areas as plain JSON types and back, exactly; read without trusting a single value."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError
from .areas import Ellipse, Rectangle
from .brush_mask import MAX_PIXELS, BrushMask
from .items import Area, Outlined, Region
from .polygons import Polygon

MAX_TOTAL_PIXELS = 2**30
"""Pixels of all masks that are unpacked together."""
Json = Any


def encode_item(item: Area) -> dict[str, Json]:
    """Return an area as plain JSON types; coordinates are (y, x)."""
    area = item.area if isinstance(item, Region) else item
    entry = {**_encode_area(area), "label": area.label}
    return {**entry, "region": True} if isinstance(item, Region) else entry


def _encode_area(area: Outlined) -> dict[str, Json]:
    if isinstance(area, Polygon):
        entry = {"kind": "polygon", "vertices": area.vertices.tolist()}
        holes = [hole.tolist() for hole in area.holes]
        return {**entry, "holes": holes} if holes else entry
    if isinstance(area, Rectangle):
        return {
            "kind": "rectangle",
            "corner": list(area.corner),
            "size": list(area.size),
        }
    if isinstance(area, Ellipse):
        return {
            "kind": "ellipse",
            "centre": list(area.centre),
            "radii": list(area.radii),
            "angle": area.angle,
        }
    packed = zlib.compress(np.packbits(area.mask).tobytes(), 6)
    return {
        "kind": "mask",
        "shape": list(area.mask.shape),
        "offset": list(area.offset),
        "scale": list(area.scale),
        "bits": base64.b64encode(packed).decode("ascii"),
    }


def decode_item(entry: Json) -> Area:
    """Return the area that `encode_item` has written.

    Raises
    ------
    AnnotationError
        If it is anything else, or a mask is larger than it may be.
    """
    try:
        area = _decode_area(entry)
        return Region(area) if entry.get("region") is True else area
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(
            f"An entry is no readable area: {type(error).__name__} {error}"[:300]
        ) from error


def _decode_area(entry: Mapping[str, Json]) -> Outlined:
    kind, label = entry["kind"], entry["label"]
    if kind == "polygon":
        holes = tuple(np.asarray(h, np.float64) for h in entry.get("holes", ()))
        return Polygon(label, np.asarray(entry["vertices"], np.float64), holes)
    if kind == "rectangle":
        return Rectangle(label, entry["corner"], entry["size"])
    if kind == "ellipse":
        return Ellipse(label, entry["centre"], entry["radii"], entry["angle"])
    if kind == "mask":
        return BrushMask(label, _unpack(entry), entry["offset"], entry["scale"])
    raise AnnotationError(
        f"An entry is of the kind {kind!r}, which this version does not know; update "
        "napari-muvit."
    )


def _unpack(entry: Mapping[str, Json]) -> NDArray[np.bool_]:
    height, width = mask_shape(entry)
    count = height * width
    wanted = -(-count // 8)
    try:
        stream = zlib.decompressobj()
        packed = base64.b64decode(entry["bits"], validate=True)
        # Never more than the shape says: a few bytes could stand for gigabytes.
        raw = stream.decompress(packed, wanted + 1)
    except (zlib.error, binascii.Error) as error:
        raise AnnotationError(f"A brush mask cannot be unpacked: {error}.") from error
    if len(raw) != wanted or not stream.eof:
        raise AnnotationError(
            f"A brush mask of {height} x {width} pixels holds another number of pixels."
        )
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=count)
    return bits.view(np.bool_).reshape(height, width)


def mask_shape(entry: Mapping[str, Json]) -> tuple[int, int]:
    """Shape that the entry of a mask gives, within bounds."""
    height, width = entry["shape"]
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise AnnotationError(
            f"A brush mask has the shape {entry['shape']!r}; two whole numbers from 1 "
            "are needed."
        )
    if height * width > MAX_PIXELS:
        raise AnnotationError(
            f"A brush mask has {height} x {width} pixels; {MAX_PIXELS} are possible."
        )
    return height, width


def decode_items(entries: Iterable[Json]) -> list[Area]:
    """Decode many; refused before unpacking when their masks are too large together.

    Raises
    ------
    AnnotationError
        See `decode_item`.
    """
    entries = list(entries)
    total = 0
    for entry in entries:
        if isinstance(entry, Mapping) and entry.get("kind") == "mask":
            try:
                height, width = mask_shape(entry)
            except (KeyError, TypeError, ValueError) as error:
                raise AnnotationError(f"A brush mask has no shape: {error}") from error
            total += height * width
    if total > MAX_TOTAL_PIXELS:
        raise AnnotationError(
            f"The brush masks have {total} pixels together; {MAX_TOTAL_PIXELS} are "
            "possible. Paint at a coarser scale."
        )
    return [decode_item(entry) for entry in entries]
