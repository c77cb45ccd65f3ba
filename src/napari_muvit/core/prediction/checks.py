"""Whether a model can read a slide, and what the user should know about it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..data.resample import snap
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..config import ModelConfig, PredictionConfig
    from ..data.pyramid import Pyramid
    from ..geometry import Box

PixelBox = tuple[int, int, int, int]
"""(y0, x0, y1, x1) in whole pixels, half open."""
Span = tuple[int, int]
"""First pixel and the one after the last."""
MAX_ZOOM = 16.0
"""Largest pixel of a slide in pixels of the model: beyond, a tile would not fit."""


def whole_span(extent: Box, axis: int) -> Span:
    """Return the whole world pixels that lie inside the slide along an axis."""
    lower = math.ceil(snap(extent.lower[axis]))
    return lower, math.floor(snap(extent.upper[axis]))


def check_slide(pyramid: Pyramid, model: ModelConfig) -> None:
    """Raise `ConfigError` when a model cannot read a slide (viewed at its size)."""
    name = pyramid.name
    if model.ndim != 2 or pyramid.ndim != 2:
        raise ConfigError(
            f"Prediction is for 2D images, but the model has {model.ndim} spatial axes "
            f"and {name} has {pyramid.ndim}; choose a plane or another model.",
            "ndim",
        )
    if model.scale_factors[0] != 1:
        raise ConfigError(
            f"The model's finest level has scale factor {model.scale_factors[0]}; "
            "prediction needs a model whose first scale factor is 1.",
            "scale_factors",
        )
    if model.in_channels != pyramid.num_channels:
        raise ConfigError(
            f"The model reads {model.in_channels} channels, but {name} has "
            f"{pyramid.num_channels}; choose the channels that it was trained on.",
            "in_channels",
        )
    if max(pyramid.zoom) > MAX_ZOOM:
        raise ConfigError(
            f"A pixel of {name} is {max(pyramid.zoom):.3g} times as large as the "
            f"model's ({model.pixel_size:g} µm); at most {MAX_ZOOM:g} times is "
            "possible. Check the pixel size of the slide.",
            "pixel_size",
        )
    sizes = [b - a for a, b in (whole_span(pyramid.extent, axis) for axis in range(2))]
    if min(sizes) < max(model.patch):
        raise ConfigError(
            f"{name} is {sizes[0]} x {sizes[1]} pixels at the model's pixel size; at "
            f"least one patch of {max(model.patch)} x {max(model.patch)} is needed.",
            "patch_size",
        )


def select_tiles(pyramid: Pyramid, config: PredictionConfig) -> PixelBox:
    """Return rows and columns of the tiles that the region touches (r0, c0, r1, c1).

    Raises
    ------
    ConfigError
        If the region lies outside the slide.
    """
    rows, columns = pyramid.shape
    y0, x0, y1, x1 = config.region or (0, 0, rows, columns)
    y0, x0, y1, x1 = max(y0, 0), max(x0, 0), min(y1, rows), min(x1, columns)
    if y1 <= y0 or x1 <= x0:
        raise ConfigError(
            f"The region {config.region} lies outside {pyramid.name}, which has "
            f"{rows} x {columns} pixels.",
            "region",
        )
    size = config.tile_size
    return (
        math.floor(y0 / size),
        math.floor(x0 / size),
        math.ceil(y1 / size),
        math.ceil(x1 / size),
    )


def find_notes(pyramid: Pyramid, model: ModelConfig) -> tuple[str, ...]:
    """Return what the user should know before trusting the result."""
    notes = []
    if model.pixel_size is not None and pyramid.pixel_size is None:
        notes.append(
            f"{pyramid.name} has no pixel size; its pixels are taken to be the model's "
            f"({model.pixel_size:g} µm)."
        )
    if model.pixel_size is None and pyramid.pixel_size is not None:
        notes.append(
            f"The model has no pixel size; {pyramid.name} is used at its own "
            f"({pyramid.pixel_size[-1]:g} µm)."
        )
    largest = model.crop_size * model.scale_factors[-1]
    if min(pyramid.extent.shape) < largest:
        notes.append(
            f"{pyramid.name} is smaller than the model's coarsest crop "
            f"({largest:g} pixels); its context is padded."
        )
    return tuple(notes)
