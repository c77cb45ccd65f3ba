"""Several layers as the channels of one slide, and channels of one layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._layers import layer_arrays, layer_path, layer_pyramid, placement
from .core.data.channel_stack import stack_sources
from .core.data.open import open_pyramid, stem
from .core.data.pyramid import Pyramid, PyramidLevel
from .core.errors import PyramidError

if TYPE_CHECKING:
    from napari.layers import Image

CHANNEL_LABELS = ("c", "channel", "channels")
OF_FILE = ": "
"""Between the name of a file and that of its channel, in the name of a layer."""


def layers_pyramid(
    layers: Sequence[Image],
    point: Sequence[float] | None = None,
    channels: Sequence[int] | None = None,
    pixel_size: float | None = None,
) -> Pyramid:
    """See one layer, or several as channels, as the core sees a slide.

    Parameters
    ----------
    layers
        One of any kind, or several of one channel each, upon each other.
    point
        ``viewer.dims.point``: chooses the plane of a stack. None: the first one.
    channels
        Which channels of it, in this order; None: all.
    pixel_size
        Micrometres, instead of what the scale of the layer says.

    Raises
    ------
    PyramidError
        If a layer is rotated, sheared or mirrored, or they do not lie upon each other.
    """
    pyramids = [layer_pyramid(layer, point) for layer in layers]
    pyramid = pyramids[0] if len(pyramids) == 1 else _joined(layers, pyramids)
    if channels is None and pixel_size is None:
        return pyramid
    return open_pyramid(pyramid, channels=channels, pixel_size=pixel_size)


def channel_candidates(image: Image, layers: Sequence[Any]) -> list[Image]:
    """Return the layers that may be channels of one slide together with ``image``.

    Parameters
    ----------
    image
        Is among them. An image that has channels of its own stands alone.
    layers
        Of the viewer, bottom first, which is the order of the channels.
    """
    from napari.layers import Image

    if _has_channels(image):
        return [image]
    return [
        other
        for other in layers
        if other is image or (isinstance(other, Image) and _fits(image, other))
    ]


def same_file(image: Image, candidates: Sequence[Image]) -> list[Image]:
    """Return those of the candidates that lie in the file of ``image``."""
    path = layer_path(image)
    return [x for x in candidates if path is not None and layer_path(x) == path]


def channel_title(layer: Image) -> str:
    """Return what a layer is called as a channel: without the name of its file."""
    return str(layer.name).split(OF_FILE, 1)[-1]


def _has_channels(image: Image) -> bool:
    labels = [str(a).lower() for a in image.axis_labels[:-2]]
    return bool(image.rgb) or any(a in CHANNEL_LABELS for a in labels)


def _fits(image: Image, other: Image) -> bool:
    """Whether a layer has the pixels of ``image``, level by level, at its place."""
    if _has_channels(other) or image.ndim != other.ndim:
        return False
    sizes, others = ([a.shape for a in layer_arrays(x)] for x in (image, other))
    if sizes != others or image.units != other.units:
        return False
    try:
        one, two = placement(image), placement(other)
    except PyramidError:
        return False
    off = np.abs(np.subtract(one.translate, two.translate)) / one.scale
    return bool(np.allclose(one.scale, two.scale, rtol=1e-4) and (off < 0.1).all())


def _joined(layers: Sequence[Image], pyramids: Sequence[Pyramid]) -> Pyramid:
    first = pyramids[0]
    strangers = [x for x in layers[1:] if not _fits(layers[0], x)]
    if strangers or _has_channels(layers[0]):
        other = (strangers or layers)[0].name
        raise PyramidError(
            f"{other!r} and {layers[0].name!r} cannot be channels of one slide: images "
            "of one channel with the same size, levels, scale and place are needed. "
            "Untick one of them."
        )
    levels = tuple(
        PyramidLevel(
            stack_sources([p.levels[k].source for p in pyramids]),
            level.scale,
            level.offset,
        )
        for k, level in enumerate(first.levels)
    )
    paths = {p.path for p in pyramids}
    path = first.path if len(paths) == 1 else None
    return dataclasses.replace(
        first,
        levels=levels,
        name=first.name if path is None else stem(path),
        path=path,
        channel_names=tuple(channel_title(layer) for layer in layers),
    )
