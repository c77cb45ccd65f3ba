"""Open anything that is an image: a path, an array, a list of arrays, a Pyramid."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageNotFoundError, PyramidError
from .block_cache import BlockCache
from .ome_zarr import is_zarr, open_ome_zarr
from .plain import guess_axes, levels_from_arrays
from .pyramid import Pyramid
from .slides import open_slide

_SUFFIXES = {
    ".zarr", ".ome", ".tif", ".tiff", ".svs", ".ndpi", ".scn", ".qptiff", ".btf",
    ".tf8", ".tf2", ".png", ".jpg", ".jpeg", ".mrxs", ".dcm", ".czi", ".vms", ".vmu",
    ".bif", ".svslide",
}  # fmt: skip


def stem(path: Path) -> str:
    """Return the file name without the suffixes of image formats.

    ``a.b.ome.zarr`` -> ``a.b``.
    """
    name = Path(os.path.abspath(path)).name
    while True:
        suffix = Path(name).suffix
        if suffix.lower() not in _SUFFIXES or suffix == name:
            return name
        name = name[: -len(suffix)]


def open_pyramid(
    source: Any,
    *,
    name: str | None = None,
    channels: Sequence[int | str] | None = None,
    pixel_size: float | Sequence[float] | None = None,
    axes: str | None = None,
    max_bytes: int | None = None,
) -> Pyramid:
    """Open an image as a Pyramid; no pixels of a file are read yet.

    Parameters
    ----------
    source
        A path (OME-Zarr or zarr folder, TIFF and slides that tifffile reads, PNG,
        JPEG), a numpy, zarr or dask array, a list of arrays from fine to coarse, or a
        Pyramid.
    name
        For people and file names; None: the file name.
    channels
        Indices or names of the channels to keep, in this order; None: all.
    pixel_size
        Edge of a finest pixel in micrometres, instead of what the file says.
    axes
        One letter an array axis, such as ``zyx``; None: guessed from the shape. Only
        for arrays.
    max_bytes
        Size of a cache of decoded pixels for this image alone; None: the one of
        256 MiB that all images share.

    Raises
    ------
    ImageNotFoundError
        If there is nothing at the path.
    MissingExtraError
        If the format needs an optional dependency.
    PyramidError
        If it cannot be read as an image.
    """
    if isinstance(source, Pyramid):
        pyramid = source
    elif isinstance(source, str | Path):
        pyramid = _open_path(source)
    elif isinstance(source, list | tuple):
        pyramid = _from_arrays(list(source), axes)
    elif hasattr(source, "shape") and hasattr(source, "dtype"):
        pyramid = _from_arrays([source], axes)
    else:
        raise PyramidError(
            f"{type(source).__name__} is no image; a path, an array or a list of "
            "arrays is needed."
        )
    changes: dict[str, Any] = {}
    if name is not None:
        changes["name"] = name
    if channels is not None:
        changes |= _chosen_channels(pyramid, channels)
    if pixel_size is not None:
        changes |= _stated_pixel_size(pyramid, pixel_size)
    if max_bytes is not None:
        changes["cache"] = BlockCache(max_bytes)
    return dataclasses.replace(pyramid, **changes) if changes else pyramid


def _open_path(source: str | Path) -> Pyramid:
    if "://" in str(source):
        raise PyramidError(
            f"{source} is a web address; download the image, or mount its folder."
        )
    path = Path(source).expanduser()
    try:
        is_there = path.exists()
    except OSError as error:  # a name that is too long, a folder that is locked
        raise PyramidError(
            f"{path} cannot be looked at: {error.strerror or error}."
        ) from error
    if not is_there:
        raise ImageNotFoundError(f"There is no image at {path}.")
    if path.is_file():
        return open_slide(path, stem(path))
    if not path.is_dir():
        # Opening a pipe would wait for somebody to write into it.
        raise PyramidError(f"{path} is a pipe or a device; an image file is needed.")
    if is_zarr(path):
        return open_ome_zarr(path, stem(path))
    dicom = sorted(path.glob("*.dcm"))
    if dicom:
        # The instances of a DICOM slide lie in a folder; each one leads to all.
        return open_slide(dicom[0], path.name)
    raise PyramidError(
        f"{path} is a folder, but no OME-Zarr: it holds neither zarr.json nor .zattrs."
    )


def _from_arrays(arrays: list[Any], axes: str | None) -> Pyramid:
    arrays = [a if hasattr(a, "dtype") else np.asarray(a) for a in arrays]
    if not arrays:
        raise PyramidError("A multiscale image needs at least one array, got none.")
    rgb = False
    if axes is None:
        axes, rgb = guess_axes(arrays[0].shape)
    else:
        axes = axes.lower()
        last = arrays[0].shape[-1] if arrays[0].shape else 0
        rgb = axes.endswith("c") and last in (3, 4)
    levels = levels_from_arrays(arrays, axes, rgb)
    note = "; ".join(
        f"{axis} is fixed at the first of {n}"
        for axis, n in zip(axes, arrays[0].shape, strict=True)
        if axis not in "cyx" and n > 1
    )
    return Pyramid(levels=levels, rgb=rgb, note=note)


def _chosen_channels(pyramid: Pyramid, channels: Sequence[int | str]) -> dict[str, Any]:
    """Fields of the pyramid with these channels only."""
    chosen = [_channel_index(pyramid, c) for c in channels]
    if not chosen:
        raise PyramidError(f"No channel of {pyramid.name} was chosen.")
    levels = []
    for level in pyramid.levels:
        before = level.source.channels or tuple(range(level.source.shape[0]))
        source = dataclasses.replace(
            level.source, channels=tuple(before[c] for c in chosen)
        )
        levels.append(dataclasses.replace(level, source=source))
    names = pyramid.channel_names
    return {
        "levels": tuple(levels),
        "channel_names": tuple(names[c] for c in chosen) if names else (),
        "rgb": pyramid.rgb and chosen == [0, 1, 2],
    }


def _channel_index(pyramid: Pyramid, channel: int | str) -> int:
    count = pyramid.num_channels
    if isinstance(channel, str) and channel in pyramid.channel_names:
        return pyramid.channel_names.index(channel)
    try:
        index = int(channel)
    except ValueError:
        index = -1
    if not 0 <= index < count:
        names = ", ".join(pyramid.channel_names)
        raise PyramidError(
            f"{pyramid.name} has no channel {channel!r}; choose from 0 to {count - 1}"
            + (f" or {names}." if names else ".")
        )
    return index


def _stated_pixel_size(
    pyramid: Pyramid, pixel_size: float | Sequence[float]
) -> dict[str, Any]:
    try:
        values = np.broadcast_to(np.asarray(pixel_size, dtype=float), (pyramid.ndim,))
    except ValueError:
        values = np.zeros(1)
    if not (np.all(np.isfinite(values)) and np.all(values > 0)):
        raise PyramidError(
            f"The pixel size {pixel_size} cannot be used; a positive number of "
            "micrometres is needed."
        )
    return {"pixel_size": tuple(float(v) for v in values), "unit": "micrometer"}
