"""Image files as pyramids: TIFF and slides, PNG, JPEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from ..errors import MuvitError, PyramidError
from .arrays import ArraySource
from .openslide_levels import is_openslide, open_with_openslide
from .pictures import Picture
from .pyramid import Pyramid, PyramidLevel
from .tiff_levels import (
    MAX_PAGES,
    DamagedTiffError,
    TiffLevel,
    open_series,
    series_of,
)
from .tiff_metadata import channel_names, tiff_pixel_size
from .units import snap_factors

PICTURES = {".png", ".jpg", ".jpeg"}
BY_OPENSLIDE = {".mrxs", ".dcm", ".czi", ".vms", ".vmu", ".bif", ".svslide"}
"""Formats that tifffile does not read."""
UNSUPPORTED = {".vsi", ".isyntax", ".nd2", ".lif", ".zvi", ".ims", ".h5", ".jp2"}
"""Known formats that this version does not read."""
MAX_CHANNELS = 16
"""A longer axis without a meaning is not taken for channels."""


def open_slide(path: Path, name: str) -> Pyramid:
    """Open an image file; its pixels are read when asked for.

    Axes other than y, x and channels are fixed at their first index.

    Parameters
    ----------
    path
        The file.
    name
        Of the pyramid.

    Raises
    ------
    PyramidError
        If it cannot be read as an image, in one line.
    """
    suffix = path.suffix.lower()
    if suffix in UNSUPPORTED:
        raise PyramidError(
            f"{path} cannot be read: this version does not support {suffix} yet. "
            "Convert it to OME-Zarr or OME-TIFF, for example with bioformats2raw."
        )
    try:
        if suffix in PICTURES:
            return _open_picture(path, name)
        if suffix in BY_OPENSLIDE:
            return open_with_openslide(path, name)
        return _open_tiff_or_slide(path, name)
    except MuvitError:
        raise
    except MemoryError as error:
        raise PyramidError(
            f"{path} asks for more memory than there is: it is damaged or too large."
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise PyramidError(
            f"{path} is no image that can be read: {reason.rstrip('.')}."
        ) from error


def _open_picture(path: Path, name: str) -> Pyramid:
    picture = Picture(path)
    axes = "yx" if len(picture.shape) == 2 else "yxc"
    level = PyramidLevel(ArraySource(picture, axes), (1.0, 1.0), (0.0, 0.0))
    return Pyramid(levels=(level,), name=name, path=path, rgb=axes == "yxc")


def _open_tiff_or_slide(path: Path, name: str) -> Pyramid:
    """By tifffile, which hands out stored tiles as they are, else by OpenSlide."""
    try:
        return _open_tiff(path, name)
    except (MemoryError, DamagedTiffError):
        raise
    except Exception:
        if not is_openslide(path):
            raise
        pyramid = open_with_openslide(path, name)
        # One pixel shows whether the codec is there.
        pyramid.levels[-1].source.read([0] * pyramid.ndim, [1] * pyramid.ndim)
        return pyramid


def _open_tiff(path: Path, name: str) -> Pyramid:
    with tifffile.TiffFile(path) as file:
        series = open_series(file, path)
        axes = _axes(series.axes, series.shape)
        levels: list[PyramidLevel] = []
        rgb = _is_rgb(series, axes)
        drop_alpha = rgb and series.shape[axes.index("c")] == 4
        for number in range(len(series.levels)):
            source = ArraySource(
                TiffLevel(path, number),
                axes,
                channels=(0, 1, 2) if drop_alpha else None,
            )
            finest = levels[0].shape if levels else source.shape[1:]
            factors = snap_factors(finest, source.shape[1:])
            levels.append(PyramidLevel(source, factors, (0.0, 0.0)))
        fixed = [
            f"{axis} is fixed at the first of {n}"
            for axis, n in zip(axes, series.shape, strict=True)
            if axis not in "cyx" and n > 1
        ]
        images = series_of(file)
        more = len(images) - 1
        # Slides keep a thumbnail and a label beside the image.
        if more and not (file.is_svs or file.is_qpi or file.is_ndpi or file.is_scn):
            fixed.append(f"the first of {more + 1} images in the file")
        if len(file.pages) > MAX_PAGES >= len(series.pages):
            fixed.append(f"the first of {len(file.pages)} pages")
        pyramid = Pyramid(
            levels=tuple(levels),
            name=name,
            pixel_size=tiff_pixel_size(file, series),
            path=path,
            rgb=rgb,
            channel_names=() if rgb else channel_names(file, levels[0].source.shape[0]),
            note="; ".join(fixed),
        )
    # One pixel of the coarsest level shows whether the codec is there.
    last = pyramid.levels[-1].source
    last.read([0] * pyramid.ndim, [1] * pyramid.ndim)
    return pyramid


def _axes(letters: str, shape: tuple[int, ...]) -> str:
    """tifffile's axes as ours: samples or channels are c, the rest is fixed."""
    axes = list(letters.lower())
    if "y" not in axes or "x" not in axes:
        raise PyramidError(f"it has the axes {letters}, but y and x are needed")
    channel = next((a for a in "sc" if a in axes and _length(axes, shape, a) > 1), None)
    if channel is None:
        # Pages that nobody named: channels, if there are few.
        unnamed = (a for a in "qi" if a in axes)
        channel = next(
            (a for a in unnamed if _length(axes, shape, a) <= MAX_CHANNELS), None
        )
    spare = iter("abdefghjklmnopruvw")
    out = []
    for axis in axes:
        if axis == channel:
            out.append("c")
        elif axis in "yxzt":
            out.append(axis)
        else:
            out.append(next(spare))
    return "".join(out)


def _length(axes: list[str], shape: tuple[int, ...], axis: str) -> int:
    return shape[axes.index(axis)]


def _is_rgb(series: tifffile.TiffPageSeries, axes: str) -> bool:
    if "c" not in axes or series.dtype != np.uint8:
        return False
    photometric = getattr(series.keyframe.photometric, "name", "")
    count = series.shape[axes.index("c")]
    return photometric in ("RGB", "YCBCR") and "S" in series.axes and count in (3, 4)
