"""From a nested crop to the array that the model reads: the same path everywhere.

Training, validation and prediction read, pad and normalise through `read_crop`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig, NormalisationMode
from ..errors import ConfigError
from ..geometry import Box, NestedCrop
from ..progress import StopFn, check_stop, never_stop
from .block_cache import Pixels
from .level_reading import LARGEST
from .pyramid import Pyramid
from .tissue import cheap_to_look_at

PERCENTILES = (1.0, 99.8)
"""Lower and upper percentile (paper, Mouse)."""
SAMPLE_PIXELS = 2**21
"""Pixels from which the percentiles of a slide are estimated."""
BORDER = 8
"""Stored pixels that the border of a large slide without coarse levels is wide."""
FURTHEST = 1e6
"""Normalised values beyond are no pixels: a network would make NaN of them."""
PIECE_PIXELS = 2**16
"""Pixels of each of the random pieces that are read for that: 256 x 256, 40 x 40 x 40.
"""


@dataclass(frozen=True, slots=True)
class SlideNormalisation:
    """The numbers by which one slide is normalised: (x - low) / (high - low)."""

    low: tuple[float, ...]
    """One number a channel."""
    high: tuple[float, ...]
    """One number a channel."""

    def apply(
        self, pixels: NDArray[np.float32], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Normalise (C, *spatial) to about 0 to 1, into ``out`` where it is given."""
        low, span = self._along(pixels.ndim)
        out = np.empty_like(pixels, dtype=np.float32) if out is None else out
        np.subtract(pixels, low, out=out)
        np.divide(out, span, out=out)
        return out

    def revert(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return normalised (C, *spatial) as pixel values."""
        low, span = self._along(values.ndim)
        return np.asarray(values * span + low, dtype=np.float32)

    def _along(self, ndim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Low and span of the channels, along the first of ``ndim`` axes."""
        shape = (-1, *[1] * (ndim - 1))
        low = np.asarray(self.low, dtype=np.float32).reshape(shape)
        # In float64: beyond 2**24 two numbers may be one in float32, and 0 / 0.
        span = np.subtract(self.high, self.low).astype(np.float32).reshape(shape)
        return low, span

    def undo(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """Return normalised values, one a channel, as pixel values."""
        return tuple(
            v * (h - b) + b for v, h, b in zip(values, self.high, self.low, strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, to be stored with a prediction."""
        return {"low": list(self.low), "high": list(self.high)}


def resolve_mode(mode: NormalisationMode, pyramid: Pyramid) -> NormalisationMode:
    """Choose for ``auto``: /255 for RGB of type uint8, else percentiles."""
    if mode != "auto":
        return mode
    return "uint8" if pyramid.rgb and pyramid.dtype == np.uint8 else "percentile"


def estimate_normalisation(
    pyramid: Pyramid,
    mode: NormalisationMode,
    seed: int = 0,
    should_stop: StopFn = never_stop,
) -> SlideNormalisation:
    """Find a slide's normalisation: once per slide, never per tile.

    Percentiles come from seeded random pieces of the finest level, because averaging
    cuts the tail of sparse bright cells. The same slide gives the same numbers in
    training and in prediction.

    Raises
    ------
    ConfigError
        If the slide holds no finite pixel.
    Cancelled
        If ``should_stop``, which is asked before each piece, says so.
    """
    channels = pyramid.num_channels
    mode = resolve_mode(mode, pyramid)
    if mode == "none":
        return SlideNormalisation((0.0,) * channels, (1.0,) * channels)
    if mode == "uint8":
        return SlideNormalisation((0.0,) * channels, (255.0,) * channels)
    pieces = _sample_pixels(pyramid, seed, should_stop)
    low, high = [], []
    for channel in range(channels):
        check_stop(should_stop)
        # One at a time: a stained tissue may have a hundred of them.
        values = np.concatenate([piece[channel].ravel() for piece in pieces])
        with np.errstate(over="ignore"):
            values = values.astype(np.float32, copy=False)
        finite = values[np.abs(values) <= LARGEST]  # false for NaN
        if finite.size == 0:
            raise ConfigError(
                f"{pyramid.name} holds no finite pixel, so it cannot be normalised."
            )
        below, above = (float(v) for v in np.percentile(finite, PERCENTILES))
        if above <= below:
            # Mostly empty: the range of what is there, else one grey value a unit.
            below, above = float(finite.min()), float(finite.max())
        low.append(below)
        high.append(above if above > below else below + 1.0)
    return SlideNormalisation(tuple(low), tuple(high))


def _sample_pixels(pyramid: Pyramid, seed: int, should_stop: StopFn) -> list[Pixels]:
    """Random pieces of the finest level, each (C, *spatial)."""
    level = pyramid.levels[0].source
    shape = pyramid.shape
    if math.prod(shape) <= SAMPLE_PIXELS:
        return [level.read([0] * pyramid.ndim, shape)]
    rng = np.random.default_rng(seed)
    edges = _piece_edges(shape)
    pieces = []
    for _ in range(SAMPLE_PIXELS // math.prod(edges)):
        check_stop(should_stop)
        lower = [
            int(rng.integers(0, n - e + 1)) for n, e in zip(shape, edges, strict=True)
        ]
        upper = [v + e for v, e in zip(lower, edges, strict=True)]
        pieces.append(level.read(lower, upper))
    return pieces


def _piece_edges(shape: Sequence[int]) -> list[int]:
    """Edges of a piece: even, but no longer than the image where that is thin."""
    edges, left = dict.fromkeys(range(len(shape)), 1), PIECE_PIXELS
    for done, axis in enumerate(sorted(edges, key=lambda a: shape[a])):
        edges[axis] = min(shape[axis], round(left ** (1 / (len(shape) - done))))
        left //= edges[axis]
    return list(edges.values())


def estimate_background(
    pyramid: Pyramid, normalisation: SlideNormalisation
) -> tuple[float, ...]:
    """Typical normalised value at the slide's border, for padding outside it."""
    factor = max(1.0, max(pyramid.extent.shape) / 128)
    missing = pyramid.missing_level(factor)
    if missing is not None and not cheap_to_look_at(pyramid):
        # Without coarse levels a wide border would be the whole slide.
        factor *= min(1.0, BORDER / max(missing.step))
    shape = [max(1, int(e / factor)) for e in pyramid.extent.shape]
    origin = pyramid.extent.lower
    values = []
    for axis in range(pyramid.ndim):
        for last in (False, True):
            strip = list(shape)
            strip[axis] = 1
            lower = list(origin)
            if last:
                lower[axis] += (shape[axis] - 1) * factor
            upper = [v + n * factor for v, n in zip(lower, strip, strict=True)]
            part = pyramid.read(Box(tuple(lower), tuple(upper)), factor, strip)
            values.append(part.reshape(pyramid.num_channels, -1))
    border = normalisation.apply(np.concatenate(values, axis=1))
    known = (row[np.isfinite(row)] for row in border)
    median = [np.median(row) if len(row) else 0.0 for row in known]
    return tuple(round(float(v), 4) for v in np.clip(median, -1.0, 2.0))


def read_crop(
    pyramid: Pyramid,
    crop: NestedCrop,
    config: ModelConfig,
    normalisation: SlideNormalisation,
) -> NDArray[np.float32]:
    """Read all levels of a nested crop; see `read_boxes`."""
    return read_boxes(pyramid, crop.boxes, config.scale_factors, config, normalisation)


def read_boxes(
    pyramid: Pyramid,
    boxes: Sequence[Box],
    factors: Sequence[float],
    config: ModelConfig,
    normalisation: SlideNormalisation,
) -> NDArray[np.float32]:
    """Read boxes at the scales of some of a model's levels, normalised and padded.

    Parameters
    ----------
    pyramid
        The slide, viewed at the model's pixel size.
    boxes
        World boxes.
    factors
        Scale factor of each.
    config
        Gives the crop edge, the factors and the padding value.
    normalisation
        The slide's numbers.

    Returns
    -------
    ndarray
        (L, C, *spatial), float32. Pixels that are no numbers, or lie a million times
        the slide's range away, as marks of missing data do, become the padding value.
    """
    background = config.background_value or (0.0,) * config.in_channels
    fill = normalisation.undo(background)
    shape = (config.crop_size,) * config.ndim
    out = np.empty((len(boxes), config.in_channels, *shape), dtype=np.float32)
    for index, (box, factor) in enumerate(zip(boxes, factors, strict=True)):
        pixels = pyramid.read(box, factor, shape, fill=fill)
        with np.errstate(over="ignore"):
            normalisation.apply(pixels, out[index])
    if pyramid.dtype.kind == "f":
        known = np.abs(out) <= FURTHEST  # false for NaN
        if not known.all():
            values = np.asarray(background, dtype=np.float32)
            out = np.where(known, out, values.reshape(1, -1, *[1] * config.ndim))
    return out
