"""Reading what a prediction on disk says about itself; torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..files import write_json

PRIVATE = ".muvit"
"""Folder inside the store that holds what is ours."""
LOCK = "lock"
"""File in it that names the one writer."""
LATER = ("seams", "seams_of")
"""What is put into ``run.json`` after a run."""
STOP = "stop"
"""File in it whose presence ends all workers."""


def read_record(path: Path) -> dict[str, Any] | None:
    """Return ``run.json`` of a prediction, None where there is none."""
    return _read_json(path / PRIVATE / "run.json")


def add_seams(path: Path, score: Mapping[str, Any]) -> None:
    """Put the seam score of what is finished into ``run.json`` of a prediction.

    Raises
    ------
    OutputError
        If there is no prediction, or it cannot be written.
    """
    record = read_record(path)
    if record is None:
        raise OutputError(f"{path} holds no prediction of napari-muvit any more.")
    added = {"seams": dict(score), "seams_of": _count_finished(path)}
    write_json(path / PRIVATE / "run.json", record | added)


def read_seams(path: Path) -> dict[str, Any] | None:
    """Return the seam score of a prediction; None where more is finished since."""
    record = read_record(path) or {}
    if record.get("seams_of") != _count_finished(path):
        return None
    return record.get("seams")


def same_run(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two records are of the same store, whatever was added to one of them."""
    return _without_later(one) == _without_later(other)


def _without_later(record: Mapping[str, Any] | None) -> dict[str, Any]:
    return {k: v for k, v in (record or {}).items() if k not in LATER}


def _count_finished(path: Path) -> int:
    """Tiles that are finished, those of parts left out that nobody has taken over."""
    marks = (path / PRIVATE / "done").read_bytes()
    return len(marks) - marks.count(0)


def read_classes(path: Path) -> tuple[tuple[str, ...], int | None]:
    """Return class names and background of a prediction on disk.

    Parameters
    ----------
    path
        A prediction of ours, or an OME-Zarr label image of somebody else.

    Returns
    -------
    tuple of (tuple of str, int or None)
        Names in label order, empty where the store has none; background label.
    """
    record = read_record(path) or {}
    if record.get("class_names"):
        return tuple(record["class_names"]), record.get("background")
    from ..data.zarr_nodes import read_label_info

    names = read_label_info(path).names
    found = {k: name for k, name in names.items() if k != 0}
    if sorted(found) != list(range(1, len(found) + 1)):
        return (), None
    return tuple(found[k] for k in sorted(found)), None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) else None
