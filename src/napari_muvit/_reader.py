"""Slides as napari layers: every format that the core opens, level by level.

Nothing is read before napari shows it. Imports neither torch nor Qt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._level_view import AveragedView, LevelView

if TYPE_CHECKING:
    from .core.data.channel_display import ChannelDisplay
    from .core.data.pyramid import Pyramid

LayerData = tuple[Any, dict[str, Any], str]
FALSE_COLOURS = ("cyan", "magenta", "yellow", "green", "red", "blue", "gray")
"""Of the channels of a fluorescence image, in turn."""
TRUE_COLOURS = ("red", "green", "blue")
WHITE = "#ffffff"
SHOWN_WHOLE = 2**26
"""Pixels of a plane that napari may load at once."""
OVERVIEW = 2**22
"""Pixels of the coarsest level that is made for the screen, at most."""
COARSER = 4
"""Step between levels that are averaged for the screen."""
SCORES = (0.0, 255.0)
"""What probabilities and confidences of a prediction are stored as."""


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
    from .core.data.place import is_zarr

    if "://" in path:
        return True
    place = Path(path)
    if not place.is_dir():
        return place.exists()
    # Of other folders napari's own reader may make something.
    return is_zarr(place) or next(place.glob("*.dcm"), None) is not None


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
        pyramid = open_pyramid(one)
        depth = None
        if dict(pyramid.contents.axes).get("z", 1) > 1:
            volume = open_pyramid(one, ndim=3).pixel_size
            depth = None if volume is None else volume[0]
        layers += layers_of(pyramid, depth)
    return layers


def layers_of(pyramid: Pyramid, depth: float | None = None) -> list[LayerData]:
    """Return a slide as image layers, one a channel, or as a Labels layer.

    Parameters
    ----------
    pyramid
        The slide.
    depth
        Of a stack: from one z plane to the next, in micrometres; None: unknown.
    """
    from .core.data.ome_zarr import read_label_info

    info = read_label_info(pyramid.contents.place)
    if info.is_label and pyramid.dtype.kind in "bui":
        return [_labels_layer(pyramid, info, depth)]
    if pyramid.rgb:
        photograph = {"name": pyramid.name, "rgb": True}
        return [_image_layer(pyramid, None, photograph, depth)]
    count = pyramid.num_channels
    names = pyramid.channel_names or tuple(f"channel {k}" for k in range(count))
    displays = _displays(pyramid)
    colours = _colours(names, displays)
    layers = []
    for number in range(count):
        options: dict[str, Any] = {"name": pyramid.name}
        if count > 1:
            options = {
                "name": f"{pyramid.name}: {names[number] or f'channel {number}'}",
                "colormap": colours[number % len(colours)],
                "blending": "additive",
            }
        elif displays[number].color not in (None, WHITE):
            options["colormap"] = displays[number].color
        if limits := displays[number].limits:
            options["contrast_limits"] = limits
        layers.append(_image_layer(pyramid, number, options, depth))
    return layers


def _displays(pyramid: Pyramid) -> tuple[ChannelDisplay, ...]:
    """Return how the file wants its channels to be shown."""
    from .core.data.channel_display import ChannelDisplay, channel_displays
    from .core.prediction.record import read_record

    displays = channel_displays(pyramid.contents.place, pyramid.num_channels)
    place = pyramid.contents.place
    folder = None if place is None else place.folder
    if folder is not None and read_record(folder.parent) is not None:
        # An image inside of a prediction: half-sure must look half-bright.
        return tuple(ChannelDisplay(d.color, SCORES) for d in displays)
    return displays


def _colours(
    names: Sequence[str], displays: Sequence[ChannelDisplay]
) -> tuple[str, ...]:
    """Return the file's colours where they tell channels apart, else ours."""
    if tuple(name.lower() for name in names) == TRUE_COLOURS:
        return TRUE_COLOURS
    said = tuple(d.color for d in displays if d.color)
    if len(said) == len(names) and len(set(said)) == len(said):
        return said
    return FALSE_COLOURS


def _image_layer(
    pyramid: Pyramid,
    channel: int | None,
    options: dict[str, Any],
    depth: float | None,
) -> LayerData:
    levels = _views(pyramid, channel)
    if channel is not None and "contrast_limits" not in options:
        options["contrast_limits"] = _contrast_limits(levels[-1])
    levels += _for_the_screen(levels[-1])
    return _layer(pyramid, levels, options, "image", depth)


def _views(pyramid: Pyramid, channel: int | None) -> list[LevelView]:
    """Levels of the file; those whose z is coarser keep the axis."""
    finest = LevelView(pyramid.levels[0], channel)
    rest = (LevelView(v, channel, finest.leading) for v in pyramid.levels[1:])
    return [finest, *rest]


def _for_the_screen(coarsest: LevelView) -> list[LevelView]:
    """Levels to show a large slide by that has no such ones."""
    views: list[LevelView] = []
    rows, columns = coarsest.level.shape
    step = 1
    while rows * columns > (SHOWN_WHOLE if step == 1 else OVERVIEW) * step**2:
        step *= COARSER
        views.append(
            AveragedView(coarsest.level, coarsest.channel, coarsest.leading, step)
        )
    return views


def _labels_layer(pyramid: Pyramid, info: Any, depth: float | None) -> LayerData:
    colors: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    colors.update(info.colors)
    highest = max(info.names, default=0)
    names = [info.names.get(k, "") for k in range(1, highest + 1)]
    options: dict[str, Any] = {
        "name": pyramid.name,
        "features": {
            "index": list(range(highest + 1)), "class": ["not annotated", *names],
        },
    }  # fmt: skip
    if info.names and info.colors:
        # Objects without names are told apart by colours of napari's own.
        options["colormap"] = colors
    return _layer(pyramid, _views(pyramid, 0), options, "labels", depth)


def _layer(
    pyramid: Pyramid,
    levels: list[LevelView],
    options: dict[str, Any],
    kind: str,
    depth: float | None,
) -> LayerData:
    leading = levels[0].leading
    options |= {"multiscale": len(levels) > 1, "axis_labels": (*leading, "y", "x")}
    if pyramid.pixel_size is not None:
        steps = {"z": depth} if depth is not None else {}
        zeros = (0.0,) * len(leading)
        options["scale"] = (*(steps.get(a, 1.0) for a in leading), *pyramid.pixel_size)
        options["translate"] = (*zeros, *(pyramid.translation or (0.0, 0.0)))
        units = ["um" if a in steps else "pixel" for a in leading]
        options["units"] = (*units, "um", "um")
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
