"""Zarr nodes and the OME attributes in them, whatever the version of the format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from ..errors import ImageNotFoundError, PyramidError
from .zarr_checks import MARKERS, check_chunks, check_markers


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group or array."""
    return path.is_dir() and any((path / marker).is_file() for marker in MARKERS)


def open_node(path: Path) -> zarr.Array[Any] | zarr.Group:
    """Open a zarr node for reading; every failure is one line."""
    if not path.exists():
        raise ImageNotFoundError(f"There is no image at {path}.")
    try:
        if not is_zarr(path):
            raise PyramidError(f"{path} is a folder, but no zarr image.")
        check_markers(path)
        node = _open(path)
    except PyramidError:
        raise
    except Exception as error:
        raise PyramidError(
            f"{path} is no image that can be read: {one_line(error)}"
        ) from error
    if isinstance(node, zarr.Array):
        check_chunks(node, path)
    return node


def _open(path: Path) -> zarr.Array[Any] | zarr.Group:
    try:
        return zarr.open(path, mode="r")
    except (KeyError, TypeError, FileNotFoundError):
        # Left-over consolidated metadata of a part that was removed or moved.
        return zarr.open_group(path, mode="r", use_consolidated=False)


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


def read_label_info(path: str | Path) -> LabelInfo:
    """Read class names and colours of a label image; empty where it has none."""
    path = Path(path)
    if not is_zarr(path):
        return LabelInfo({}, {})
    node = open_node(path)
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
    return LabelInfo(names, colors)


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
