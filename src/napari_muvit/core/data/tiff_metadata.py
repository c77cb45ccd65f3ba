"""Pixel size and channel names out of the metadata of a TIFF."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from .units import is_pixel_size, micrometres

if TYPE_CHECKING:
    import tifffile

LARGEST_PIXEL = 50.0
"""Micrometres. Resolution tags that give more are a default for print, as 72 dpi."""


def tiff_pixel_size(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries
) -> tuple[float, float] | None:
    """Edge of a finest pixel (y, x) in micrometres, or None where it is not said.

    From OME metadata, Aperio's ``MPP``, ImageJ's unit or the resolution tags.
    """
    page = series.keyframe
    found = None
    if file.is_ome:
        found = _ome_pixel_size(file.ome_metadata)
    if found is None:
        text = page.description or ""
        match = re.search(r"\bMPP\s*=\s*([0-9.eE+-]+)", text)
        if match:
            found = _pair(match.group(1), match.group(1))
    if found is None:
        found = _tagged_pixel_size(file, page)
    return found


def _ome_pixel_size(text: str | None) -> tuple[float, float] | None:
    pixels = _ome_element(text, "Pixels")
    if pixels is None:
        return None
    sizes = []
    for axis in "YX":
        factor = micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        value = _pair(pixels.get(f"PhysicalSize{axis}", ""), "1")
        if factor is None or value is None:
            return None
        sizes.append(value[0] * factor)
    return (sizes[0], sizes[1]) if is_pixel_size(sizes) else None


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
        unit = (file.imagej_metadata or {}).get("unit")
        # ImageJ writes the micro sign as an escape.
        unit = re.sub(r"\\u00b5", "µ", str(unit), flags=re.IGNORECASE)
        factor = micrometres(unit)
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


def channel_names(file: tifffile.TiffFile, count: int) -> tuple[str, ...]:
    """Names of the channels by OME or PerkinElmer metadata, when all have one."""
    names: list[str] = []
    if file.is_ome:
        pixels = _ome_element(file.ome_metadata, "Pixels")
        if pixels is not None:
            names = [c.get("Name", "") for c in pixels.findall("{*}Channel")]
    elif file.is_qpi:
        for page in file.series[0].pages:
            text = getattr(page, "description", "")
            element = _ome_element(text.partition("?>")[2] or text, "Name")
            names.append((element.text or "") if element is not None else "")
    return tuple(names) if len(names) == count and all(names) else ()
