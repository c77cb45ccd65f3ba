"""Slides as napari layers: every format that the core opens, level by level.

Nothing is read before napari shows it. Imports neither torch nor Qt.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .core.data.arrays import ArraySource
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


class LevelView:
    """A level as napari wants it: leading axes, rows, columns, and colours if any.

    Parameters
    ----------
    source
        The level.
    channel
        Channel that is shown; None: all, as colours.
    """

    def __init__(self, source: ArraySource, channel: int | None) -> None:
        axes = source.axes
        lengths = dict(zip(axes, source.array.shape, strict=True))
        self.source = source
        self.channel = channel
        self._planes: dict[tuple[int, ...], ArraySource] = {}
        self.leading = "".join(a for a in axes if a not in "cyx" and lengths[a] > 1)
        colours = () if channel is not None else (source.shape[0],)
        self.shape: tuple[int, ...] = (
            *(lengths[a] for a in self.leading), lengths["y"], lengths["x"], *colours,
        )  # fmt: skip
        self.dtype = source.dtype
        rows, columns = source.chunks or source.shape[1:]
        self.chunks: tuple[int, ...] = (1,) * len(self.leading) + (rows, columns)
        self.chunks += colours

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Pixels."""
        return int(np.prod(self.shape))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        del copy
        return np.asarray(self[()], dtype=dtype)

    def __getitem__(self, key: Any) -> Any:
        """Slice; only what is asked for is read."""
        key = _whole_key(key, self.ndim)
        spans, then = zip(
            *(_span(k, n) for k, n in zip(key, self.shape, strict=True)), strict=True
        )
        block = self._read(spans)
        return block[tuple(then)]

    def _read(self, spans: Sequence[slice]) -> Any:
        """Pixels of whole spans, in the order of `shape`."""
        lead = len(self.leading)
        rows, columns = spans[lead : lead + 2]
        planes = list(
            itertools.product(*(range(s.start, s.stop) for s in spans[:lead]))
        )
        shape = [s.stop - s.start for s in spans]
        if 0 in shape or not planes:
            return np.empty(shape, dtype=self.dtype)
        blocks = [self._plane(plane, rows, columns) for plane in planes]
        out = blocks[0][None] if len(blocks) == 1 else np.stack(blocks)
        if self.channel is None:
            out = out[..., spans[-1]]
        return out.reshape(shape)

    def _plane(self, plane: tuple[int, ...], rows: slice, columns: slice) -> Any:
        """Pixels of one plane: (y, x), or with colours last."""
        from .core.data.block_cache import shared_cache
        from .core.data.level_reading import read_stored

        source = self.source
        if plane:
            fixed = {**source.fixed, **dict(zip(self.leading, plane, strict=True))}
            # Kept, because the cache tells pixels from others by their source.
            source = self._planes.setdefault(
                plane, dataclasses.replace(source, fixed=fixed)
            )
        lower, upper = (rows.start, columns.start), (rows.stop, columns.stop)
        block = read_stored(source, lower, upper, shared_cache())
        return (
            np.moveaxis(block, 0, -1) if self.channel is None else block[self.channel]
        )


def _whole_key(key: Any, ndim: int) -> tuple[Any, ...]:
    """A key for every axis, without an ellipsis."""
    key = key if isinstance(key, tuple) else (key,)
    if Ellipsis in key:
        at = key.index(Ellipsis)
        gap = (slice(None),) * (ndim - len(key) + 1)
        key = (*key[:at], *gap, *key[at + 1 :])
    if len(key) > ndim:
        raise IndexError(f"{len(key)} indices were given for {ndim} axes.")
    return (*key, *(slice(None),) * (ndim - len(key)))


def _span(key: Any, size: int) -> tuple[slice, Any]:
    """What to read along an axis, and how to index what was read."""
    if isinstance(key, slice):
        start, stop, step = key.indices(size)
        if step > 0:
            return slice(start, max(start, stop)), slice(None, None, step)
        chosen = np.arange(size)[key]
    else:
        index = np.asarray(key)
        if index.ndim == 0:
            number = int(index) + (size if int(index) < 0 else 0)
            if not 0 <= number < size:
                raise IndexError(f"Index {int(index)} is outside 0 to {size - 1}.")
            return slice(number, number + 1), 0
        chosen = np.arange(size)[key]
    if len(chosen) == 0:
        return slice(0, 0), chosen
    first = int(chosen.min())
    return slice(first, int(chosen.max()) + 1), chosen - first


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
    levels = [LevelView(level.source, channel) for level in pyramid.levels]
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
    levels = [LevelView(level.source, 0) for level in pyramid.levels]
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
