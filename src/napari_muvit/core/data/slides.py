"""Image files as pyramids: TIFF and slides, PNG, JPEG."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tifffile

from ..errors import MuvitError, PyramidError
from .arrays import ArraySource
from .choice import FIRST, AxisNames, Choice, choose_image
from .openslide_levels import is_openslide, open_with_openslide
from .pictures import Picture
from .pyramid import Pyramid, PyramidLevel
from .tiff_levels import (
    MAX_PAGES,
    DamagedTiffError,
    TiffLevel,
    check_series,
    images_of,
)
from .tiff_metadata import channel_names, tiff_pixel_size
from .units import level_factors

PICTURES = {".png", ".jpg", ".jpeg"}
BY_OPENSLIDE = {".mrxs", ".dcm", ".czi", ".vms", ".vmu", ".bif", ".svslide"}
"""Formats that tifffile does not read."""
UNSUPPORTED = {".vsi", ".isyntax", ".nd2", ".lif", ".zvi", ".ims", ".h5", ".jp2"}
"""Known formats that this version does not read."""
RGB_NAMES = ("Red", "Green", "Blue")
MAX_CHANNELS = 16
"""A longer axis without a meaning is not taken for channels."""


def open_slide(path: Path, name: str, choice: Choice = FIRST) -> Pyramid:
    """Open an image file; its pixels are read when asked for.

    Parameters
    ----------
    path
        The file.
    name
        Of the pyramid.
    choice
        Image, planes and spatial axes; what is not chosen is the first.

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
            return _open_picture(path, name, choice)
        if suffix in BY_OPENSLIDE:
            return _open_with_openslide(path, name, choice)
        return _open_tiff_or_slide(path, name, choice)
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


def _open_picture(path: Path, name: str, choice: Choice) -> Pyramid:
    picture = Picture(path, choice.as_labels)
    axes = AxisNames("yx" if len(picture.shape) == 2 else "yxc", picture.shape)
    _check_single(path, axes, choice)
    level = PyramidLevel(ArraySource(picture, axes.letters), (1.0, 1.0), (0.0, 0.0))
    return Pyramid(
        levels=(level,),
        name=name,
        path=path,
        rgb="c" in axes.letters and picture.dtype == np.uint8,
        contents=axes.contents("picture"),
    )


def _open_with_openslide(path: Path, name: str, choice: Choice) -> Pyramid:
    pyramid = open_with_openslide(path, name)
    array = pyramid.levels[0].source.array
    axes = AxisNames("yxc", tuple(array.shape))
    _check_single(path, axes, choice)
    return dataclasses.replace(pyramid, contents=axes.contents("OpenSlide"))


def _check_single(path: Path, axes: AxisNames, choice: Choice) -> None:
    """Refuse a choice in a file of one image and one plane."""
    if choice.image not in (None, "0"):
        raise PyramidError(f"{path} holds one image; there is no {choice.image!r}.")
    axes.pick(choice, path)


def _open_tiff_or_slide(path: Path, name: str, choice: Choice) -> Pyramid:
    """By tifffile, which hands out stored tiles as they are, else by OpenSlide."""
    try:
        return _open_tiff(path, name, choice)
    except (MemoryError, DamagedTiffError):
        raise
    except Exception:
        chosen = choice.image is not None or choice.planes or choice.ndim != 2
        if chosen or not is_openslide(path):
            raise
        pyramid = _open_with_openslide(path, name, choice)
        # One pixel shows whether the codec is there.
        pyramid.levels[-1].source.read([0] * pyramid.ndim, [1] * pyramid.ndim)
        return pyramid


def _open_tiff(path: Path, name: str, choice: Choice) -> Pyramid:
    with tifffile.TiffFile(path) as file:
        found = images_of(file, path)
        images = _image_names(found)
        number = 0
        if choice.image is not None:
            offered = [str(i) for i in range(len(images))]
            number, _ = choose_image(choice.image, offered, path, images)
        series = found[number]
        check_series(series, file, path)
        axes = AxisNames(
            _axes(series.axes, series.shape, choice.ndim),
            series.shape,
            tuple(series.axes.lower()),
        )
        planes = axes.pick(choice, path)
        rgb = _is_rgb(series, axes.letters)
        levels = _tiff_levels(path, series, number, axes, choice, planes)
        channels = levels[0].source.shape[0]
        notes = axes.note(planes, choice)
        # Slides keep a thumbnail and a label beside the image.
        is_slide = file.is_svs or file.is_qpi or file.is_ndpi or file.is_scn
        if len(images) > 1 and choice.image is None and not is_slide:
            notes.append(f"the first of {len(images)} images in the file")
        if len(file.pages) > MAX_PAGES >= len(series.pages):
            notes.append(f"the first of {len(file.pages)} pages")
        pyramid = Pyramid(
            levels=levels,
            name=name,
            pixel_size=tiff_pixel_size(file, series, choice.spatial),
            path=path,
            rgb=rgb and series.dtype == np.uint8,
            channel_names=_colours(series)
            if rgb
            else channel_names(file, series, channels),
            note="; ".join([*notes, *_palette_note(series, choice)]),
            contents=axes.contents(
                "TIFF",
                planes,
                image=images[number] if len(images) > 1 else "",
                images=images if len(images) > 1 else (),
            ),
        )
    # One pixel of the coarsest level shows whether the codec is there.
    last = pyramid.levels[-1].source
    last.read([0] * pyramid.ndim, [1] * pyramid.ndim)
    # Nothing stays open or in memory that nobody has asked for.
    if isinstance(last.array, TiffLevel):
        last.array.close()
    return pyramid


def _image_names(found: Sequence[tifffile.TiffPageSeries]) -> tuple[str, ...]:
    """Name of each image in a file; its number where it has none of its own."""
    names = [str(series.name or "") for series in found]
    return tuple(
        name if name and names.count(name) == 1 else str(number)
        for number, name in enumerate(names)
    )


def _tiff_levels(
    path: Path,
    series: tifffile.TiffPageSeries,
    number: int,
    axes: AxisNames,
    choice: Choice,
    planes: Mapping[str, int],
) -> tuple[PyramidLevel, ...]:
    alpha = _is_rgb(series, axes.letters) and _channels(series, axes.letters) == 4
    levels: list[PyramidLevel] = []
    for index in range(len(series.levels)):
        array = TiffLevel(path, index, number)
        source = ArraySource(
            array,
            axes.letters,
            choice.spatial,
            axes.at_level(planes, array.shape),
            channels=(0, 1, 2) if alpha else None,
        )
        finest = levels[0].shape if levels else source.shape[1:]
        factors = level_factors(finest, source.shape[1:])
        levels.append(PyramidLevel(source, factors, (0.0,) * len(factors)))
    return tuple(levels)


def _colours(series: tifffile.TiffPageSeries) -> tuple[str, ...]:
    """Names of colours that are no RGB image of ours, because they are no bytes."""
    return () if series.dtype == np.uint8 else RGB_NAMES


def _palette_note(series: tifffile.TiffPageSeries, choice: Choice) -> list[str]:
    photometric = getattr(series.keyframe.photometric, "name", "")
    if photometric != "PALETTE" or choice.as_labels:
        return []
    return ["its pixels are indices of a palette, which is not applied"]


def _axes(letters: str, shape: tuple[int, ...], ndim: int = 2) -> str:
    """tifffile's axes as ours: samples or channels are c, the rest is fixed."""
    axes = list(letters.lower())
    if ndim == 3 and "z" not in axes:
        # Pages that nobody named are the planes of a volume, where one is wanted.
        page = next((i for i, a in enumerate(axes) if a in "qi"), None)
        if page is not None:
            axes[page] = "z"
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


def _channels(series: tifffile.TiffPageSeries, axes: str) -> int:
    return int(series.shape[axes.index("c")]) if "c" in axes else 1


def _is_rgb(series: tifffile.TiffPageSeries, axes: str) -> bool:
    """Whether the channels are red, green and blue, of any pixel type."""
    photometric = getattr(series.keyframe.photometric, "name", "")
    is_colour = photometric in ("RGB", "YCBCR") and "S" in series.axes
    return is_colour and _channels(series, axes) in (3, 4)
