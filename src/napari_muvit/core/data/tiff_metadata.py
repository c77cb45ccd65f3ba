"""Pixel size and channel names out of the metadata of a TIFF."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from .units import is_pixel_size, micrometres

if TYPE_CHECKING:
    import tifffile

LARGEST_PIXEL = 50.0
"""Micrometres. Resolution tags that give more are a default for print, as 72 dpi."""


def tiff_pixel_size(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, spatial: str = "yx"
) -> tuple[float, ...] | None:
    """Edge of a finest pixel in micrometres, or None where it is not said.

    From OME metadata, Aperio's ``MPP``, ImageJ's unit or the resolution tags.

    Parameters
    ----------
    file, series
        The file and the image in it.
    spatial
        ``yx`` or ``zyx``: along which axes.
    """
    plane = _plane_pixel_size(file, series)
    if spatial == "yx" or plane is None:
        return plane
    step = _z_step(file, series)
    return None if step is None else (step, *plane)


def tiff_classes(
    path: Path,
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Class names and colours in label order, as `write_label_image` describes them."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            found = json.loads(file.pages.first.description)
        names, colors = found["class_names"], found["class_colors"]
    except (OSError, LookupError, TypeError, ValueError, RecursionError):
        return None, None
    return _texts(names), _texts(colors)


def _texts(values: object) -> tuple[str, ...] | None:
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        return None
    return tuple(values) or None


def _z_step(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> float | None:
    """Micrometres between two planes of a stack, by OME or ImageJ."""
    if file.is_ome:
        pixels = _ome_pixels(file, series)
        return None if pixels is None else _ome_size(pixels, "Z")
    if file.is_imagej:
        found = _pair(str((file.imagej_metadata or {}).get("spacing")), "1")
        factor = _imagej_unit(file)
        return None if found is None or factor is None else found[0] * factor
    return None


def _plane_pixel_size(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries
) -> tuple[float, float] | None:
    page = series.keyframe
    found = None
    if file.is_ome:
        found = _ome_pixel_size(_ome_pixels(file, series))
    if found is None:
        text = page.description or ""
        match = re.search(r"\bMPP\s*=\s*([0-9.eE+-]+)", text)
        if match:
            found = _pair(match.group(1), match.group(1))
    if found is None:
        found = _tagged_pixel_size(file, page)
    return found


def _ome_pixel_size(
    pixels: ElementTree.Element | None,
) -> tuple[float, float] | None:
    if pixels is None:
        return None
    y, x = _ome_size(pixels, "Y"), _ome_size(pixels, "X")
    return None if y is None or x is None else (y, x)


def _ome_size(pixels: ElementTree.Element, axis: str) -> float | None:
    factor = micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    value = _pair(pixels.get(f"PhysicalSize{axis}", ""), "1")
    if factor is None or value is None or not is_pixel_size([value[0] * factor]):
        return None
    return value[0] * factor


def _ome_pixels(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries
) -> ElementTree.Element | None:
    """Element of the OME metadata that describes an image of the file."""
    try:
        root = ElementTree.fromstring(file.ome_metadata or "")
    except ElementTree.ParseError:
        return None
    found = root.findall(".//{*}Image/{*}Pixels")
    whole = len(found) == len(file.series)
    number = next((i for i, s in enumerate(file.series) if s is series), 0)
    return found[number if whole else 0] if found else None


def _ome_element(text: str | None, name: str) -> ElementTree.Element | None:
    try:
        root = ElementTree.fromstring(text or "")
    except ElementTree.ParseError:
        return None
    return root.find(f".//{{*}}{name}")


def _pair(y: str, x: str) -> tuple[float, float] | None:
    """Two positive finite numbers, or None."""
    try:
        values = float(y), float(x)
    except ValueError:
        return None
    return values if is_pixel_size(values) else None


def _tagged_pixel_size(
    file: tifffile.TiffFile, page: tifffile.TiffPage
) -> tuple[float, float] | None:
    """From XResolution and YResolution: pixels per unit."""
    factor = None
    if file.is_imagej:
        factor = _imagej_unit(file)
    if factor is None:
        code = page.tags.valueof("ResolutionUnit")
        factor = {2: 25400.0, 3: 10000.0}.get(int(code) if code is not None else 0)
    if factor is None:
        return None
    sizes = []
    for name in ("YResolution", "XResolution"):
        value = page.tags.valueof(name)
        if not isinstance(value, tuple) or len(value) != 2 or 0 in value:
            return None
        sizes.append(factor * value[1] / value[0])
    if max(sizes) > LARGEST_PIXEL or min(sizes) <= 0:
        return None
    return sizes[0], sizes[1]


def _imagej_unit(file: tifffile.TiffFile) -> float | None:
    """Micrometres of ImageJ's unit."""
    unit = (file.imagej_metadata or {}).get("unit")
    # ImageJ writes the micro sign as an escape.
    return micrometres(re.sub(r"\\u00b5", "µ", str(unit), flags=re.IGNORECASE))


def channel_names(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, count: int
) -> tuple[str, ...]:
    """Names of the channels by OME or PerkinElmer metadata, when all have one."""
    names: list[str] = []
    if file.is_ome:
        pixels = _ome_pixels(file, series)
        if pixels is not None:
            names = [c.get("Name", "") for c in pixels.findall("{*}Channel")]
    elif file.is_qpi:
        for page in series.pages:
            text = getattr(page, "description", "")
            element = _ome_element(text.partition("?>")[2] or text, "Name")
            names.append((element.text or "") if element is not None else "")
    return tuple(names) if len(names) == count and all(names) else ()
