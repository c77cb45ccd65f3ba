"""Crops, labels and boxes as small pictures for people.

Shapes: L levels, C channels, H x W pixels of a plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...data.sampling import PlainSlide, TrainingSlide
from ...geometry import Box
from .curve_lines import rgb

Picture = NDArray[np.uint8]
"""(H, W, 3) red, green, blue."""
Floats = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)
EDGE, LARGEST = 256, 320
"""Edge that small pictures are enlarged to, and that of the largest one, pixels."""
LEVEL_COLORS = ("#ffd92f", "#00d5ff", "#ff5fd2", "#7cff6b", "#ff8c42")
"""Of the box of each level, on dark and on bright pictures."""
CHANNEL_COLORS = {
    1: ("#ffffff",),
    2: ("#ff00ff", "#00ff00"),
    3: ("#ff00ff", "#00ff00", "#00a0ff"),
}
"""By the number of channels."""
MORE_CHANNELS = ("#ff00ff", "#00ff00", "#00a0ff", "#ffe000", "#ff3020", "#ffffff")
COLOR_NAMES = {
    "#ff00ff": "magenta", "#00ff00": "green", "#00a0ff": "blue", "#ffe000": "yellow",
    "#ff3020": "red", "#ffffff": "white",
}  # fmt: skip
PERCENTILES = (0.5, 99.7)
LEAST = 0.2
"""A level is stretched no further than by this share of what the crop spans."""
HIDDEN = 190
"""Grey of what a masked autoencoder does not see."""
FADED = 0.4
"""How much is left of a picture where nothing is annotated."""


@dataclass(frozen=True, eq=False, slots=True)
class Panel:
    """A picture with what is written at it."""

    title: str
    picture: Picture
    note: str = ""
    """Below the picture."""
    color: str = ""
    """Of its frame, ``#rrggbb``; empty: none."""


class Look:
    """How the pixels of a nested crop become colours.

    RGB slides look as they are. Other channels are stretched between two percentiles
    of their level, since averaging takes the brightest from the coarser ones, and are
    added up in colours.

    Parameters
    ----------
    pixels
        (L, C, H, W), normalised, of the whole nested crop.
    slide
        That it was read from.
    """

    def __init__(self, pixels: Floats, slide: PlainSlide | TrainingSlide) -> None:
        pyramid, channels = slide.pyramid, pixels.shape[1]
        self.normalisation = slide.normalisation
        self.rgb = pyramid.rgb and channels == 3
        self.colors = channel_colors(pyramid.channel_names, channels)
        if self.rgb:
            raw = self.normalisation.revert(pixels[0])
            byte = pyramid.dtype == np.uint8
            self.white = 255.0 if byte else max(1e-6, float(raw.max()))
            return
        shown = pixels[:, : len(self.colors)]
        low, high = np.percentile(shown, PERCENTILES, axis=(2, 3))
        # The noise of an empty crop is no structure.
        whole = high.max(axis=0) - low.min(axis=0)
        self.low = low.astype(np.float32)
        self.span = np.maximum(high - low, LEAST * whole + 1e-9).astype(np.float32)

    def __call__(self, pixels: Floats, level: int = 0) -> Picture:
        """Return (C, H, W) of a level, normalised, as a picture."""
        if self.rgb:
            values = self.normalisation.revert(pixels) / self.white
            return _bytes(np.moveaxis(values, 0, -1))
        part = pixels[: len(self.colors)] - self.low[level][:, None, None]
        stretched = (part / self.span[level][:, None, None]).clip(0, 1)
        colors = np.array([rgb(c) for c in self.colors], dtype=np.float32) / 255
        return _bytes(np.einsum("chw,ck->hwk", stretched, colors))


def channel_colors(names: Sequence[str], channels: int) -> tuple[str, ...]:
    """Colours of the channels that are shown, at most six."""
    if tuple(names) == ("Red", "Green", "Blue"):
        return ("#ff0000", "#00ff00", "#0000ff")
    return CHANNEL_COLORS.get(channels, MORE_CHANNELS[:channels])


def channels_text(slide: PlainSlide | TrainingSlide) -> str:
    """Say which colour is which channel; empty where it goes without saying."""
    image = slide.pyramid
    colors = channel_colors(image.channel_names, image.num_channels)
    if image.rgb or image.num_channels == 1 or colors[0] == "#ff0000":
        return ""
    names = image.channel_names or tuple(
        f"channel {n}" for n in range(1, image.num_channels + 1)
    )
    shown = ", ".join(
        f"{COLOR_NAMES[color]} {name}"
        for color, name in zip(colors, names, strict=False)
    )
    more = image.num_channels - len(colors)
    return f"Colours: {shown}" + (f"; {more} more are not shown. " if more else ". ")


def _bytes(values: NDArray[np.floating]) -> Picture:
    known = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0)
    return np.asarray(known.clip(0, 1) * 255 + 0.5, dtype=np.uint8)


def enlarged(picture: Picture, exact: bool = False) -> Picture:
    """Repeat the pixels of a small picture, or shrink a large one.

    Parameters
    ----------
    picture
        (H, W, 3).
    exact
        Take pixels instead of averaging them, for the colours of classes.
    """
    longest = max(picture.shape[:2])
    if longest > LARGEST:
        size = [max(1, round(n * LARGEST / longest)) for n in picture.shape[:2]]
        how = Image.Resampling.NEAREST if exact else Image.Resampling.BOX
        return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), how))
    times = max(1, EDGE // longest)
    return np.repeat(np.repeat(picture, times, axis=0), times, axis=1)


def with_boxes(picture: Picture, view: Box, boxes: Sequence[Box]) -> Picture:
    """Draw the outlines of boxes, finest first, each in the colour of its level.

    Parameters
    ----------
    picture
        Of ``view``, in any size.
    view, boxes
        World coordinates; the last two axes are those of the picture.
    """
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for level, box in reversed(list(enumerate(boxes))):
        y, x = (
            _span(box, view, axis, count)
            for axis, count in zip((-2, -1), picture.shape, strict=False)
        )
        inner = (x[0], y[0], x[1], y[1])
        outer = (x[0] - 1, y[0] - 1, x[1] + 1, y[1] + 1)
        pen.rectangle(outer, outline="black", width=5)
        pen.rectangle(inner, outline=level_color(level), width=3)
    return np.asarray(image)


def _span(box: Box, view: Box, axis: int, count: int) -> tuple[int, int]:
    """First and last pixel of a box's outline along an axis, at least 5 apart."""
    step = view.shape[axis] / count
    first = (box.lower[axis] - view.lower[axis]) / step
    last = (box.upper[axis] - view.lower[axis]) / step - 1
    short = max(0.0, 5 - (last - first)) / 2
    return round(first - short), round(last + short)


def level_color(level: int) -> str:
    """Colour of a level's box."""
    return LEVEL_COLORS[level % len(LEVEL_COLORS)]


def label_picture(
    labels: NDArray[np.integer], colors: Sequence[str], beneath: Picture | None = None
) -> Picture:
    """Return a map of classes.

    Parameters
    ----------
    labels
        (H, W), 0 = not annotated, classes from 1.
    colors
        ``#rrggbb`` of each class.
    beneath
        (H, W, 3) seen, faded, where nothing is annotated; None: white.
    """
    table = np.array([(255, 255, 255), *map(rgb, colors)], dtype=np.uint8)
    out = table[np.clip(labels, 0, len(colors))]
    if beneath is not None:
        grey = beneath.mean(axis=-1, keepdims=True) * FADED + 255 * (1 - FADED)
        out = np.where((labels == 0)[..., None], grey.astype(np.uint8), out)
    return np.asarray(out, dtype=np.uint8)


def plane_of(array: NDArray[T], box: Box, centre: Sequence[float]) -> NDArray[T]:
    """Return the plane of a volume that runs through a place.

    Parameters
    ----------
    array
        (..., *spatial) pixels of ``box``.
    box
        World box.
    centre
        World position along the axes before the last two.
    """
    if box.ndim == 2:
        return array
    index: list[slice | int] = [slice(None)] * (array.ndim - box.ndim)
    for axis, at in enumerate(centre):
        count = array.shape[array.ndim - box.ndim + axis]
        place = (at - box.lower[axis]) / (box.shape[axis] / count)
        index.append(int(min(max(place, 0), count - 1)))
    return array[tuple(index)]
