"""Slides as napari layers: every format that the core opens, level by level.

Nothing is read before napari shows it. Imports neither torch nor Qt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._level_view import LevelView

if TYPE_CHECKING:
    from .core.data.pyramid import Pyramid

LayerData = tuple[Any, dict[str, Any], str]
FALSE_COLOURS = ("cyan", "magenta", "yellow", "green", "red", "blue", "gray")
"""Of the channels of a fluorescence image, in turn."""


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return what reads a slide, or None where it is none.

    Parameters
    ----------
    path
        One path, or several, which are then opened one by one.
    """
    paths = [path] if isinstance(path, str) else list(path)
    return read_slides if all(_may_be_slide(p) for p in paths) else None


def _may_be_slide(path: str) -> bool:
    if "://" in path:
        return True
    place = Path(path)
    return place.exists()


def read_slides(path: str | Sequence[str]) -> list[LayerData]:
    """Open slides as layers.

    Raises
    ------
    MuvitError
        If one cannot be read, in one line.
    """
    from .core.data.open import open_pyramid

    layers: list[LayerData] = []
    for one in [path] if isinstance(path, str) else path:
        layers += layers_of(open_pyramid(one))
    return layers


def layers_of(pyramid: Pyramid) -> list[LayerData]:
    """Return a slide as image layers, one a channel, or as a Labels layer."""
    from .core.data.ome_zarr import read_label_info

    info = read_label_info(pyramid.path) if pyramid.path is not None else None
    if info is not None and info.names and pyramid.dtype.kind in "bui":
        return [_labels_layer(pyramid, info)]
    if pyramid.rgb:
        options = {"name": pyramid.name, "rgb": True}
        return [_image_layer(pyramid, None, options)]
    count = pyramid.num_channels
    names = pyramid.channel_names or tuple(f"channel {k}" for k in range(count))
    layers = []
    for number in range(count):
        options = {"name": pyramid.name}
        if count > 1:
            options = {
                "name": f"{pyramid.name}: {names[number] or f'channel {number}'}",
                "colormap": FALSE_COLOURS[number % len(FALSE_COLOURS)],
                "blending": "additive",
            }
        layers.append(_image_layer(pyramid, number, options))
    return layers


def _image_layer(
    pyramid: Pyramid, channel: int | None, options: dict[str, Any]
) -> LayerData:
    levels = [LevelView(level, channel) for level in pyramid.levels]
    if channel is not None:
        options["contrast_limits"] = _contrast_limits(levels[-1])
    return _layer(pyramid, levels, options, "image")


def _labels_layer(pyramid: Pyramid, info: Any) -> LayerData:
    colors: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    colors.update(info.colors)
    highest = max(info.names)
    names = [info.names.get(k, "") for k in range(1, highest + 1)]
    options: dict[str, Any] = {
        "name": pyramid.name,
        "features": {
            "index": list(range(highest + 1)), "class": ["not annotated", *names],
        },
    }  # fmt: skip
    if info.colors:
        options["colormap"] = colors
    levels = [LevelView(level, 0) for level in pyramid.levels]
    return _layer(pyramid, levels, options, "labels")


def _layer(
    pyramid: Pyramid, levels: list[LevelView], options: dict[str, Any], kind: str
) -> LayerData:
    leading = levels[0].leading
    options |= {"multiscale": len(levels) > 1, "axis_labels": (*leading, "y", "x")}
    if pyramid.pixel_size is not None:
        ones, zeros = (1.0,) * len(leading), (0.0,) * len(leading)
        options["scale"] = (*ones, *pyramid.pixel_size)
        options["translate"] = (*zeros, *(pyramid.translation or (0.0, 0.0)))
        options["units"] = ("pixel",) * len(leading) + ("um", "um")
    if pyramid.path is not None:
        options["metadata"] = {"path": str(pyramid.path)}
    return (levels if len(levels) > 1 else levels[0], options, kind)


def _contrast_limits(coarsest: LevelView) -> tuple[float, float]:
    """Where the values lie, by the middle of the coarsest level."""
    if coarsest.dtype == np.bool_:
        return 0.0, 1.0
    lead = coarsest.ndim - 2
    middle: list[Any] = [n // 2 for n in coarsest.shape[:lead]]
    for size in coarsest.shape[lead:]:
        edge = min(size, 1024)
        middle.append(slice((size - edge) // 2, (size - edge) // 2 + edge))
    values = np.asarray(coarsest[tuple(middle)], dtype=np.float32)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.8)))
    return (low, high) if high > low else (low, low + 1.0)
