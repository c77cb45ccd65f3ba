"""Open anything that is an image: a path, a web address, arrays, a Pyramid."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageNotFoundError, PyramidError
from .block_cache import BlockCache
from .choice import AxisNames, Choice
from .ome_zarr import open_ome_zarr
from .place import is_remote, is_zarr, is_zip, local_path
from .plain import guess_axes, levels_from_arrays
from .pyramid import Pyramid
from .slides import open_slide

_SUFFIXES = {
    ".zarr", ".ome", ".tif", ".tiff", ".svs", ".ndpi", ".scn", ".qptiff", ".btf",
    ".tf8", ".tf2", ".png", ".jpg", ".jpeg", ".mrxs", ".dcm", ".czi", ".vms", ".vmu",
    ".bif", ".svslide", ".zip", ".ozx",
}  # fmt: skip


def stem(path: str | Path) -> str:
    """Return the file name without the suffixes of image formats.

    ``a.b.ome.zarr`` -> ``a.b``, ``s3://bucket/c.zarr`` -> ``c``.
    """
    if is_remote(path):
        name = str(path).rstrip("/").rsplit("/", 1)[-1]
    else:
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
    channels: Sequence[int | str] | int | str | None = None,
    pixel_size: float | Sequence[float] | None = None,
    axes: str | None = None,
    image: str | int | None = None,
    planes: Mapping[str, int] | None = None,
    ndim: int = 2,
    as_labels: bool = False,
    max_bytes: int | None = None,
) -> Pyramid:
    """Open an image as a Pyramid; no pixels of a file are read yet.

    Parameters
    ----------
    source
        A path (OME-Zarr or zarr as folder or zip, TIFF and slides that tifffile or
        OpenSlide reads, PNG, JPEG), a web address of a zarr (``https://``, ``s3://``),
        a numpy, zarr or dask array, a list of arrays from fine to coarse, or a
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
    image
        Which image of a file with several: ``B/03/0`` of a plate, a path or index of a
        collection, ``labels/cells`` of an OME-Zarr, a name or index of a TIFF. None:
        the first; ``note`` of the pyramid says so.
    planes
        Index along axes that are neither spatial nor channels, such as
        ``{"t": 3, "z": 10}``; what is missing is 0.
    ndim
        Spatial axes: 2 (y, x), or 3 (z, y, x).
    as_labels
        The indices of a PNG's palette are wanted, not its colours.
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
        If it cannot be read as an image, or has no such image, plane or channel.
    """
    wanted = None if image is None else str(image)
    choice = Choice(wanted, dict(planes or {}), ndim, as_labels)
    if isinstance(source, Pyramid):
        pyramid = _as_it_is(source, choice)
    elif isinstance(source, str | Path):
        pyramid = _open_path(source, choice)
    elif isinstance(source, list | tuple):
        pyramid = _from_arrays(list(source), axes, choice)
    elif hasattr(source, "shape") and hasattr(source, "dtype"):
        pyramid = _from_arrays([source], axes, choice)
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


def open_labels(source: Any, image: Pyramid) -> Pyramid:
    """Open a label image; of a stack the planes that were chosen of its image.

    Parameters
    ----------
    source
        Anything that `open_pyramid` opens.
    image
        What the labels are of.
    """
    labels = open_pyramid(source, as_labels=True)
    lengths = dict(labels.contents.axes)
    planes = {
        axis: index
        for axis, index in image.contents.planes.items()
        if axis in labels.contents.planes and lengths[axis] > 1
    }
    if isinstance(source, Pyramid) or not any(planes.values()):
        return labels
    return open_pyramid(source, as_labels=True, planes=planes)


def _as_it_is(pyramid: Pyramid, choice: Choice) -> Pyramid:
    """Return a pyramid that is open, of which nothing more can be chosen."""
    if choice.image is not None or choice.planes:
        raise PyramidError(
            f"{pyramid.name} is open already; choose image and planes when opening it."
        )
    return pyramid


def name_of(source: str | Path, image: str | None = None) -> str:
    """Return the name that `open_pyramid` gives to an image.

    Parameters
    ----------
    source
        A path or a web address; nothing is opened.
    image
        Which image of a file with several.

    Raises
    ------
    PyramidError
        If there is nothing at the path.
    """
    if not is_remote(source):
        _found(source)
    name = stem(source)
    if image is None:
        return name
    # So that two images of one file are predicted into two outputs.
    return f"{name}_{re.sub(r'[^A-Za-z0-9.-]+', '_', image).strip('_')}"


def _found(source: str | Path) -> Path:
    """Return the path of something that is there."""
    path = local_path(source)
    try:
        is_there = path.exists()
    except OSError as error:  # a name that is too long, a folder that is locked
        raise PyramidError(
            f"{path} cannot be looked at: {error.strerror or error}."
        ) from error
    if not is_there:
        raise ImageNotFoundError(f"There is no image at {path}.")
    return path


def _open_path(source: str | Path, choice: Choice) -> Pyramid:
    name = name_of(source, choice.image)
    if is_remote(source):
        return _open_url(str(source), name, choice)
    path = _found(source)
    if is_zip(path):
        return open_ome_zarr(path, name, choice)
    if path.is_file():
        return open_slide(path, name, choice)
    if not path.is_dir():
        # Opening a pipe would wait for somebody to write into it.
        raise PyramidError(f"{path} is a pipe or a device; an image file is needed.")
    if is_zarr(path):
        return open_ome_zarr(path, name, choice)
    dicom = sorted(path.glob("*.dcm"))
    if dicom:
        # The instances of a DICOM slide lie in a folder; each one leads to all.
        return open_slide(dicom[0], name, choice)
    raise PyramidError(
        f"{path} is a folder, but no OME-Zarr: it holds neither zarr.json nor .zattrs."
    )


def _open_url(url: str, name: str, choice: Choice) -> Pyramid:
    suffix = Path(url.rstrip("/")).suffix.lower()
    if suffix in _SUFFIXES - {".zarr", ".ome"}:
        raise PyramidError(
            f"{url} is a {suffix} file; only zarr folders are read from the web. "
            "Download it first."
        )
    return open_ome_zarr(url, name, choice)


def _from_arrays(arrays: list[Any], axes: str | None, choice: Choice) -> Pyramid:
    arrays = [a if hasattr(a, "dtype") else np.asarray(a) for a in arrays]
    if not arrays:
        raise PyramidError("A multiscale image needs at least one array, got none.")
    if choice.image is not None:
        raise PyramidError(f"Arrays are one image; there is no {choice.image!r}.")
    shape = tuple(arrays[0].shape)
    if axes is None:
        letters, rgb = guess_axes(shape, ndim=choice.ndim)
    else:
        letters = axes.lower()
        rgb = letters.endswith("c") and bool(shape) and shape[-1] in (3, 4)
    if len(letters) != len(shape) or len(set(letters)) != len(letters):
        raise PyramidError(f"Axes {letters!r} do not fit an array of shape {shape}.")
    named = AxisNames(letters, shape)
    planes = named.pick(choice, "The array")
    levels = levels_from_arrays(arrays, named, rgb, choice.spatial, planes)
    return Pyramid(
        levels=levels,
        rgb=rgb,
        note="; ".join(named.note(planes, choice)),
        contents=named.contents("memory", planes),
    )


def _chosen_channels(
    pyramid: Pyramid, channels: Sequence[int | str] | int | str
) -> dict[str, Any]:
    """Fields of the pyramid with these channels only."""
    # A lone name is one channel, not one a letter.
    wanted = [channels] if isinstance(channels, int | str) else channels
    chosen = [_channel_index(pyramid, c) for c in wanted]
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
        "averaged": (),
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
