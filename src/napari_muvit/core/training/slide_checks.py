"""Whether the pixels of slides are such that something can be learnt from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..data.block_cache import Pixels
from ..data.level_reading import read_stored
from ..data.pyramid import Pyramid
from ..data.sampling import PlainSlide, TrainingSlide
from ..errors import ConfigError, PyramidError
from ..progress import StopFn, check_stop, never_stop

PLACES = 16
"""Places that are looked at on each slide."""
SMALL = 2**20
"""Pixels up to which a slide is looked at as a whole."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at some pixels of a slide has shown."""

    value: tuple[float, ...] | None
    """The only value of each channel; None: there are several."""
    broken: float
    """Share of pixels that are no numbers."""
    whole: bool
    """Whether all of the slide was looked at."""


def pixel_notes(
    slides: Sequence[TrainingSlide | PlainSlide],
    config: ModelConfig,
    *,
    seed: int = 0,
    should_stop: StopFn = never_stop,
) -> tuple[str, ...]:
    """Look at some places of each slide, annotated ones where there are, a line each.

    Pixels that are no numbers are read as background (see `read_crop`), which is said;
    so is a slide that shows one value only.

    Parameters
    ----------
    slides
        Ready to be sampled.
    config
        Of the model.
    seed
        Of the places.
    should_stop
        Asked before each slide.

    Raises
    ------
    PyramidError
        If all slides show one value only.
    """
    notes, looks = [], []
    for slide in slides:
        check_stop(should_stop)
        look = _look(slide, config, np.random.default_rng([seed, 11]))
        looks.append(look)
        notes += _notes_of(slide.pyramid.name, look)
    if looks and all(look.whole and look.value is not None for look in looks):
        shown = looks[0].value or ()
        raise PyramidError(
            f"{_which(slides)} the same value everywhere ({_values(shown)}); there is "
            "nothing to learn from. Check the files, and which channels and planes of "
            "them are read."
        )
    return tuple(notes)


def kind_notes(images: Sequence[Pyramid], config: ModelConfig) -> tuple[str, ...]:
    """Say where slides are of different kinds though their channels are as many.

    Parameters
    ----------
    images
        Slides of one run.
    config
        Of the model, whose normalisation is resolved.

    Raises
    ------
    ConfigError
        If pixels of another type than uint8 were to be divided by 255.
    """
    wide = next((i for i in images if i.dtype != np.uint8), None)
    if config.normalisation == "uint8" and wide is not None:
        raise ConfigError(
            f"{wide.name} holds {wide.dtype}, but all slides of a run are normalised "
            "alike, here uint8 by 255. Train on slides of one kind, or choose "
            "--set normalisation=percentile.",
            "normalisation",
        )
    notes = []
    colour = [i.name for i in images if i.rgb]
    plain = [i.name for i in images if not i.rgb]
    if colour and plain:
        notes.append(
            f"{colour[0]} is a colour image (RGB), {plain[0]} has {config.in_channels} "
            "channels that are no colours; one model sees both alike. Leave out one "
            "kind, unless that is meant."
        )
    named: dict[tuple[str, ...], Pyramid] = {}
    for image in images:
        if image.channel_names:
            folded = tuple(name.strip().lower() for name in image.channel_names)
            named.setdefault(folded, image)
    if not colour and len(named) > 1:
        first, second = [*named.values()][:2]
        said = " and ".join(
            f"{i.name} has {', '.join(i.channel_names)}" for i in (first, second)
        )
        notes.append(
            f"Channels differ by name: {said}; they are taken in this order. Choose "
            "them by name (--channels) where the order is wrong."
        )
    return tuple(notes)


def _which(slides: Sequence[TrainingSlide | PlainSlide]) -> str:
    if len(slides) == 1:
        return f"{slides[0].pyramid.name} has"
    return f"Each of the {len(slides)} slides has"


def _notes_of(name: str, look: _Look) -> list[str]:
    notes = []
    if look.broken > 0:
        share = max(0.1, 100 * look.broken)
        notes.append(
            f"{name}: about {share:.1f} % of the pixels are no numbers (NaN or "
            "infinite); they are read as background."
        )
    if look.value is not None and look.broken < 1:
        where = "everywhere" if look.whole else "wherever it was looked at"
        notes.append(
            f"{name} has the same value {where} ({_values(look.value)}), so it teaches "
            "nothing. Check the file, and which channels and planes of it are read."
        )
    return notes


def _values(value: Sequence[float]) -> str:
    shown = ", ".join(f"{v:g}" for v in value[:4])
    return f"{shown}, ..." if len(value) > 4 else shown


def _look(
    slide: TrainingSlide | PlainSlide, config: ModelConfig, rng: np.random.Generator
) -> _Look:
    view = slide.pyramid
    whole = math.prod(view.shape) <= SMALL
    if whole:
        parts = [read_stored(view.levels[0].source, [0] * view.ndim, view.shape,
                             view.cache)]  # fmt: skip
    else:
        parts = [_around(view, p, config.crop_size) for p in _places(slide, rng)]
    channels = view.num_channels
    pixels = np.concatenate([p.reshape(channels, -1) for p in parts], axis=1)
    known = np.isfinite(pixels) if view.dtype.kind == "f" else None
    broken = 0.0 if known is None else float(1 - known.all(axis=0).mean())
    return _Look(_only_value(pixels, known), broken, whole)


def _only_value(
    pixels: Pixels, known: NDArray[np.bool_] | None
) -> tuple[float, ...] | None:
    """Value of each channel of (C, n) pixels where it has only one."""
    found = []
    for number, channel in enumerate(pixels):
        values = channel if known is None else channel[known[number]]
        low = float(values.min()) if len(values) else math.nan
        if len(values) and float(values.max()) != low:
            return None
        found.append(low)
    return tuple(found)


def _places(
    slide: TrainingSlide | PlainSlide, rng: np.random.Generator
) -> NDArray[np.float64]:
    """World positions: annotated ones of all classes alike, tissue, or anywhere."""
    if isinstance(slide, TrainingSlide):
        groups = [points for points in slide.index.points if len(points)]
        each = -(-PLACES // max(1, len(groups)))
        drawn = [points[rng.integers(len(points), size=each)] for points in groups]
        if drawn:
            return np.concatenate(drawn)
    elif slide.tissue is not None and slide.tissue.mask.any():
        return slide.tissue.draw(PLACES, rng)
    extent = slide.pyramid.extent
    shares = rng.random((PLACES, extent.ndim))
    return np.asarray(extent.lower + shares * extent.shape)


def _around(view: Pyramid, point: NDArray[np.float64], edge: int) -> Pixels:
    """Stored pixels around a world point, (C, *spatial), as they are in the file."""
    level = view.levels[0]
    place = (point - level.offset) / level.scale
    lower, upper = [], []
    for at, size in zip(place, level.shape, strict=True):
        first = min(max(int(at) - edge // 2, 0), max(0, size - edge))
        lower.append(first)
        upper.append(min(size, first + edge))
    return read_stored(level.source, lower, upper, view.cache)
