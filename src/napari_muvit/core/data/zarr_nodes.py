"""Zarr nodes and the OME attributes in them, whatever the version of the format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from ..errors import ImageNotFoundError, MuvitError, PyramidError
from .place import Place, find_place, is_zarr
from .stores import open_store
from .zarr_checks import check_chunks, check_markers

__all__ = [
    "LabelInfo",
    "is_zarr",
    "ome_attributes",
    "one_line",
    "open_node",
    "read_label_info",
]


def open_node(source: str | Path | Place) -> zarr.Array[Any] | zarr.Group:
    """Open a zarr node for reading; every failure is one line.

    Raises
    ------
    ImageNotFoundError
        If there is nothing.
    MissingExtraError
        If a web address needs packages that are not installed.
    PyramidError
        If it is no zarr, cannot be reached, or its chunks are absurdly large.
    """
    place = find_place(source)
    folder = place.folder
    if folder is not None and not folder.exists():
        raise ImageNotFoundError(f"There is no image at {place}.")
    try:
        if folder is not None and not is_zarr(folder):
            raise PyramidError(f"{place} is a folder, but no zarr image.")
        if folder is not None:
            check_markers(folder)
        node = _open(place if folder is None else Place(folder))
    except MuvitError:
        raise
    except Exception as error:
        # Of a folder it is known that metadata are there.
        if folder is None and isinstance(error, FileNotFoundError):
            raise ImageNotFoundError(
                f"There is no image at {place}: no zarr.json, .zgroup or .zarray that "
                "may be read."
            ) from error
        raise PyramidError(
            f"{place} is no image that can be read: {one_line(error).rstrip('.')}."
        ) from error
    if isinstance(node, zarr.Array):
        check_chunks(node, place)
    return node


def _open(place: Place) -> zarr.Array[Any] | zarr.Group:
    store = open_store(place)
    try:
        return zarr.open(store, path=place.inside, mode="r")
    except (KeyError, TypeError, FileNotFoundError):
        # Left-over consolidated metadata of a part that was removed or moved.
        return zarr.open_group(
            store, path=place.inside, mode="r", use_consolidated=False
        )


def one_line(error: BaseException) -> str:
    """Message of an error in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def ome_attributes(group: zarr.Group) -> dict[str, Any]:
    """OME metadata, which 0.5 keeps under ``ome`` and 0.4 at the top."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome")
    return dict(ome) if isinstance(ome, Mapping) else attributes


@dataclass(frozen=True, slots=True)
class LabelInfo:
    """What a label image says of its classes."""

    names: Mapping[int, str]
    """Class name of each label."""
    colors: Mapping[int, str]
    """Colour of each label, ``#rrggbb``."""
    is_label: bool = False
    """Whether it says that it is one: its pixels are labels, named or not."""


def read_label_info(source: str | Path | Place | None) -> LabelInfo:
    """Read class names and colours of a label image; empty where it has none."""
    if source is None:
        return LabelInfo({}, {})
    place = find_place(source)
    if place.folder is not None and not is_zarr(place.folder):
        return LabelInfo({}, {})
    node = open_node(place)
    if isinstance(node, zarr.Array):
        return LabelInfo({}, {})
    label = ome_attributes(node).get("image-label")
    if not isinstance(label, Mapping):
        return LabelInfo({}, {})
    names, colors = {}, {}
    for entry in _entries(label, "properties"):
        text = next((entry[k] for k in ("class", "name") if k in entry), None)
        if isinstance(text, str):
            names[entry["label-value"]] = " ".join(text.split())
    for entry in _entries(label, "colors"):
        color = _color(entry.get("rgba"))
        if color is not None:
            colors[entry["label-value"]] = color
    return LabelInfo(names, colors, is_label=True)


def _color(rgba: object) -> str | None:
    """``#rrggbb`` of four numbers from 0 to 255; None of anything else."""
    if not isinstance(rgba, Sequence) or len(rgba) != 4:
        return None
    if not all(isinstance(v, int | float) and 0 <= v <= 255 for v in rgba[:3]):
        return None
    return "#" + "".join(f"{int(v):02x}" for v in rgba[:3])


def _entries(label: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Entries of a list in ``image-label`` that belong to a whole label value."""
    listed = label.get(key)
    if not isinstance(listed, list):
        return []
    return [
        {**e, "label-value": int(e["label-value"])}
        for e in listed
        if isinstance(e, Mapping)
        and isinstance(value := e.get("label-value"), int | float)
        and math.isfinite(value)
    ]
