"""The paper's *Synthetic* task as files: pairs of OME-Zarr pyramids.

What is in the images: see `napari_muvit.core.data.synthetic_slide`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..errors import ConfigError, OutputError
from ..progress import Progress, ProgressFn, StopFn, ignore_progress, never_stop
from .ome_zarr import is_zarr
from .synthetic_slide import CLASS_COLORS, CLASS_NAMES, SyntheticSlide
from .zarr_writer import BlockReader, write_pyramid

__all__ = [
    "CLASS_COLORS",
    "CLASS_NAMES",
    "PIXEL_SIZE",
    "SyntheticSlide",
    "write_synthetic",
]

PIXEL_SIZE = 0.5
"""Micrometres; made up, so that physical sizes are exercised."""
VERSION = 1
"""Of the task: files of another version are not taken for the same ones."""
_KEY = "napari-muvit-synthetic"
_SEED_STEP = 7919


def write_synthetic(
    out: str | Path,
    images: int,
    size: int,
    field: int = 256,
    seed: int = 0,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> list[tuple[Path, Path]]:
    """Write images and labels: OUT/000_image.zarr, OUT/000_labels.zarr, ...

    Files of the same parameters are kept, so a stopped run continues.

    Parameters
    ----------
    out
        Folder; made where it is missing.
    images
        Number of images.
    size
        Edge of an image, pixels.
    field
        A ring fits into a window of this edge, pixels.
    seed
        Of the first image; each image has its own.
    on_progress, should_stop
        See `napari_muvit.core.progress`; the unit is images.

    Returns
    -------
    list of (Path, Path)
        Image and labels of each.

    Raises
    ------
    ConfigError
        If a number is too small.
    OutputError
        If other files of these names are there.
    Cancelled
        If ``should_stop`` said so; finished files are kept.
    """
    if images < 1:
        raise ConfigError(f"images is {images}; at least 1 is needed.", "images")
    out = Path(out)
    slides = [SyntheticSlide(size, field, seed + _SEED_STEP * n) for n in range(images)]
    pairs = [
        (out / f"{n:03d}_image.zarr", out / f"{n:03d}_labels.zarr")
        for n in range(images)
    ]
    wanted = [
        {"version": VERSION, "size": size, "field": field, "seed": seed, "number": n}
        for n in range(images)
    ]
    # Look at all of them before anything is written.
    for pair, parameters in zip(pairs, wanted, strict=True):
        for path in pair:
            _found(path, parameters)
    for n, (slide, pair) in enumerate(zip(slides, pairs, strict=True)):
        write = partial(
            _write, shape=slide.shape, parameters=wanted[n], should_stop=should_stop
        )
        write(pair[0], slide.image, channel_names=("cells",))
        write(
            pair[1],
            slide.labels,
            labels=True,
            class_names=CLASS_NAMES,
            class_colors=CLASS_COLORS,
        )
        on_progress(Progress(stage="write", done=n + 1, total=images, unit="image"))
    return pairs


def _found(path: Path, parameters: Mapping[str, Any]) -> bool:
    """Whether the finished file is there; raise for anything that is not ours."""
    if not path.exists():
        return False
    state: Any = None
    if is_zarr(path):
        try:
            state = zarr.open_group(path, mode="r").attrs.get(_KEY)
        except (OSError, ValueError, TypeError, KeyError):
            state = None
    if not isinstance(state, Mapping) or state.get("parameters") != parameters:
        raise OutputError(
            f"{path} exists already and is not of these settings; choose another "
            "folder, or remove it."
        )
    return state.get("finished") is True


def _write(
    path: Path,
    source: BlockReader,
    shape: tuple[int, int],
    parameters: Mapping[str, Any],
    should_stop: StopFn,
    **meta: Any,
) -> None:
    """Write one pyramid, marked finished only when all of it is there."""
    if not _clear(path, parameters):
        return
    write_pyramid(
        path,
        source,
        shape=shape,
        dtype=np.uint8,
        pixel_size=PIXEL_SIZE,
        attributes={_KEY: {"parameters": dict(parameters), "finished": False}},
        should_stop=should_stop,
        **meta,
    )
    _finish(path, parameters)


def _clear(path: Path, parameters: Mapping[str, Any]) -> bool:
    """Make room for a file; False when it is there and finished."""
    if _found(path, parameters):
        return False
    if path.exists():
        # Ours and unfinished: `_found` has looked.
        shutil.rmtree(path)
    return True


def _finish(path: Path, parameters: Mapping[str, Any]) -> None:
    group = zarr.open_group(path, mode="r+")
    group.attrs[_KEY] = {"parameters": dict(parameters), "finished": True}
