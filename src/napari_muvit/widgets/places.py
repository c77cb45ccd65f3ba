"""Where results go: beside the image, or in the user's data folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from qtpy.QtCore import QStandardPaths

from ..core.data.open import stem as stem_of
from ..core.data.project_log import SUFFIX as PROJECT

_given: set[Path] = set()
"""Model folders of this session; a training makes its own with its first save only."""


def user_folder() -> Path:
    """Return this user's folder for results of images that lie in memory."""
    base = QStandardPaths.writableLocation(
        QStandardPaths.StandardLocation.GenericDataLocation
    )
    return Path(base) / "napari-muvit"


def cache_folder() -> Path:
    """Return this user's folder for what can be made again."""
    base = QStandardPaths.writableLocation(
        QStandardPaths.StandardLocation.GenericCacheLocation
    )
    return Path(base) / "napari-muvit"


def log_file() -> Path:
    """Return where the process that trains and predicts writes what it says."""
    return cache_folder() / "logs" / "worker.log"


def result_folder(image_path: Path | None) -> Path:
    """Return the image's folder where it can be written, else the user's."""
    if image_path is not None and not _in_cache(image_path):
        folder = image_path.parent
        if folder.is_dir() and os.access(folder, os.W_OK):
            return folder
    return user_folder()


def _in_cache(path: Path) -> bool:
    """Whether it is a sample: a cache may be emptied, results in it would be lost."""
    return path.absolute().is_relative_to(cache_folder().absolute())


def file_stem(name: str, image_path: Path | None) -> str:
    """Return a plain file name for a layer."""
    of_file = image_path is not None and not _in_cache(image_path)
    stem = stem_of(image_path) if image_path is not None and of_file else name
    stem = stem.removesuffix(".npy")
    return re.sub(r"[^\w.-]+", "_", stem).strip("_.") or "image"


def model_folder(
    name: str, image_path: Path | None, now: datetime | None = None
) -> Path:
    """Return a new folder name for a model: image and time, never given before."""
    stamp = (now or datetime.now().astimezone()).strftime("%Y-%m-%d_%H-%M-%S")
    stem = f"{file_stem(name, image_path)}_muvit-model_{stamp}"
    paths = _numbered(result_folder(image_path), stem, "")
    path = next(p for p in paths if not p.exists() and p not in _given)
    _given.add(path)
    return path


def prediction_paths(name: str, image_path: Path | None) -> Iterator[Path]:
    """Yield ``<name>_muvit.zarr``, then ``_2``, ``_3``, ... for one image."""
    stem = f"{file_stem(name, image_path)}_muvit"
    return _numbered(result_folder(image_path), stem, ".zarr")


def project_path(name: str, image_path: Path | None, shape: Sequence[int] = ()) -> Path:
    """Return the file that the annotations of an image live in.

    Parameters
    ----------
    name
        Of the layer.
    image_path
        Its file; None: it lies in memory.
    shape
        (height, width) of its finest level. In the user's folder it is part of the
        name, because there are many arrays called "Image".
    """
    folder, stem = result_folder(image_path), file_stem(name, image_path)
    if shape and folder == user_folder():
        stem = f"{stem}_{'x'.join(str(n) for n in shape)}"
    return folder / f"{stem}{PROJECT}"


def shared_project(
    name: str, image_path: Path | None, shape: Sequence[int] = ()
) -> Path | None:
    """Return the project beside an image where it can be read, but not written."""
    if image_path is None or _in_cache(image_path):
        return None
    path = image_path.parent / f"{file_stem(name, image_path)}{PROJECT}"
    written = project_path(name, image_path, shape)
    return path if path != written and path.is_file() else None


def _numbered(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    yield folder / f"{stem}{suffix}"
    number = 2
    while True:
        yield folder / f"{stem}_{number}{suffix}"
        number += 1
