"""From what the user gave to slides that can be sampled, with every check up front."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..config import ModelConfig
from ..data.annotations import Annotations
from ..data.cache_settings import CacheSettings
from ..data.crops import (
    SlideNormalisation,
    estimate_background,
    estimate_normalisation,
    resolve_mode,
)
from ..data.level_cache import with_coarse_levels
from ..data.pyramid import Pyramid
from ..data.sampling import PlainSlide, TrainingSlide
from ..data.tissue import find_tissue
from ..errors import AnnotationError, ConfigError, NothingAnnotatedError
from ..progress import (
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)
from .opening import (
    ImageSource,
    LabelSource,
    common_pixel_size,
    model_config_for,
    open_annotations,
    open_images,
)
from .slide_checks import kind_notes

__all__ = [
    "ImageSource", "Known", "LabelSource", "PreparedData", "common_pixel_size",
    "keep_coarse_levels", "model_config_for", "open_annotations", "open_images",
    "prepare", "prepare_unlabelled",
]  # fmt: skip

Slide = TypeVar("Slide", PlainSlide, TrainingSlide)

MAX_NAMED = 5
"""Classes without a pixel that are named."""


@dataclass(frozen=True, eq=False)
class PreparedData:
    """Slides, the completed model configuration, and what the user should know."""

    slides: tuple[TrainingSlide, ...]
    config: ModelConfig
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Known:
    """A slide that was prepared before, for the same model."""

    marks: Annotations
    """Its annotations at that time, as they were given."""
    slide: TrainingSlide
    """What was made of it."""


def prepare(
    images: Sequence[Pyramid],
    annotations: Sequence[Annotations],
    config: ModelConfig,
    seed: int,
    should_stop: StopFn = never_stop,
    known: Sequence[Known | None] = (),
) -> PreparedData:
    """Check the data against the model and make it ready to be sampled.

    Parameters
    ----------
    images, annotations, config
        What is to be trained on, and the model.
    seed
        Of the places that are drawn from the annotations.
    should_stop
        Asked often.
    known
        Slides that were prepared before, one an image or none at all: only what has
        changed is looked at again.

    Raises
    ------
    ConfigError
        If channels differ, or a slide is smaller than one patch.
    AnnotationError
        If nothing is annotated, or a label has no class.
    """
    config = _completed(images, config)
    notes = [marks.note for marks in annotations if marks.note]
    notes += [*kind_notes(images, config), *_size_notes(images, config)]
    slides = []
    before = known or [None] * len(images)
    for image, marks, one in zip(images, annotations, before, strict=True):
        check_stop(should_stop)
        view = image.viewed_at(config.pixel_size) if one is None else one.slide.pyramid
        _check_slide(view, config, notes)
        if one is not None and one.marks is marks:
            slide = one.slide
        else:
            numbers = None if one is None else one.slide.normalisation
            slide = _annotated(view, marks, numbers, config, seed, should_stop)
        notes += _outside_notes(view, slide.annotations)
        slides.append(slide)
    counts = np.sum([slide.index.counts for slide in slides], axis=0)
    if counts[1:].sum() == 0:
        raise _nothing_annotated(slides)
    notes += _missing_notes(config, counts)
    config = _with_background(slides, config)
    return PreparedData(tuple(slides), config, tuple(dict.fromkeys(notes)))


def _annotated(
    view: Pyramid,
    marks: Annotations,
    normalisation: SlideNormalisation | None,
    config: ModelConfig,
    seed: int,
    should_stop: StopFn,
) -> TrainingSlide:
    """Look at a slide's annotations and, unless they are known, at its numbers."""
    if any(not math.isclose(z, 1.0) for z in view.zoom):
        marks = marks.scaled(view.zoom)
    try:
        index = marks.index(
            view.extent, config.num_classes, seed, should_stop=should_stop
        )
    except AnnotationError as error:
        raise AnnotationError(f"{view.name}: {error}") from error
    if normalisation is None:
        normalisation = estimate_normalisation(
            view, config.normalisation, should_stop=should_stop
        )
    return TrainingSlide(view, marks, normalisation, index)


def prepare_unlabelled(
    images: Sequence[Pyramid],
    config: ModelConfig,
    *,
    tissue: bool = True,
    should_stop: StopFn = never_stop,
) -> tuple[tuple[PlainSlide, ...], ModelConfig, tuple[str, ...]]:
    """Make slides ready for pretraining; see `MAEDataset`.

    Parameters
    ----------
    images, config
        Slides, and the model that is to see them.
    tissue
        Sample where there is tissue. Slides that show no background are sampled
        everywhere.
    should_stop
        Asked before each slide.

    Returns
    -------
    tuple
        The slides, the completed configuration, and what the user should know.

    Raises
    ------
    ConfigError
        If channels differ, or a slide is smaller than one patch.
    """
    config = _completed(images, config)
    notes = [*kind_notes(images, config), *_size_notes(images, config)]
    slides = []
    for image in images:
        check_stop(should_stop)
        view = image.viewed_at(config.pixel_size)
        _check_slide(view, config, notes)
        normalisation = estimate_normalisation(
            view, config.normalisation, should_stop=should_stop
        )
        where = find_tissue(view, should_stop=should_stop) if tissue else None
        slides.append(PlainSlide(view, normalisation, where))
    return tuple(slides), _with_background(slides, config), tuple(dict.fromkeys(notes))


def _with_background(
    slides: Sequence[PlainSlide | TrainingSlide], config: ModelConfig
) -> ModelConfig:
    """Fill in the padding value: the middle of what the slides' borders show."""
    if config.background_value is not None:
        return config
    values = [estimate_background(s.pyramid, s.normalisation) for s in slides]
    middle = tuple(float(v) for v in np.median(np.array(values), axis=0))
    return dataclasses.replace(config, background_value=middle)


def keep_coarse_levels(
    slides: Sequence[Slide],
    config: ModelConfig,
    cache: CacheSettings | None = None,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> tuple[Slide, ...]:
    """Slides with the coarse levels that they lack, from the cache on disk.

    Parameters
    ----------
    slides
        Checked ones: to average a whole slide is worth nothing before.
    config
        Says which levels are read.
    cache
        None: as the environment says.
    on_progress, should_stop
        See `with_coarse_levels`.
    """
    return tuple(
        dataclasses.replace(
            slide,
            pyramid=with_coarse_levels(
                slide.pyramid,
                config.scale_factors,
                cache=cache,
                on_progress=on_progress,
                should_stop=should_stop,
            ),
        )
        for slide in slides
    )


def _nothing_annotated(slides: Sequence[TrainingSlide]) -> NothingAnnotatedError:
    """Say why there is no annotated pixel, as far as that is known."""
    outside = [n for s in slides for n in _outside_notes(s.pyramid, s.annotations)]
    if outside:
        return NothingAnnotatedError(
            f"No annotation lies on a slide. {' '.join(outside)} Give slides and label "
            "files in the same order, with places in pixels of the finest level."
        )
    said = "".join(f" ({s.annotations.note}.)" for s in slides if s.annotations.note)
    return NothingAnnotatedError(
        "Nothing is annotated: every label is 0. Outline or paint at least one region "
        f"of each class. If 0 is a class, choose --zero-is-background.{said}"
    )


def _outside_notes(view: Pyramid, marks: Annotations) -> list[str]:
    """Say how many annotations lie wholly outside of a slide, and where."""
    if not marks.items:
        return []
    lower = np.array([item.lower for item in marks.items])
    upper = np.array([item.upper for item in marks.items])
    extent = view.extent
    outside = ((upper <= extent.lower) | (lower >= extent.upper)).any(axis=1)
    if not outside.any():
        return []
    # In the slide's own pixels, as the label file has them.
    low = lower[outside].min(axis=0) / view.zoom
    high = upper[outside].max(axis=0) / view.zoom
    place = ", ".join(f"{a:.0f} to {b:.0f}" for a, b in zip(low, high, strict=True))
    return [
        f"{view.name}: {outside.sum()} of {len(marks.items)} annotations lie (at "
        f"{place}) outside of its {_size(view.shape)} px and count for nothing."
    ]


def _missing_notes(config: ModelConfig, counts: Sequence[int]) -> list[str]:
    """Say which classes have no annotated pixel."""
    missing = [k for k in range(1, config.num_classes + 1) if counts[k] == 0]
    if not missing:
        return []
    *named, last = (f"{k} ({config.names[k - 1]})" for k in missing)
    if not named:
        return [f"Class {last} has no annotated pixel; it stays unknown."]
    if len(missing) <= MAX_NAMED:
        return [
            f"Classes {', '.join(named)} and {last} have no annotated pixel; they stay "
            "unknown."
        ]
    found = [str(k) for k in range(1, config.num_classes + 1) if counts[k]]
    return [
        f"{len(missing)} of {config.num_classes} classes have no annotated pixel and "
        f"stay unknown; annotated are only {', '.join(found)}. If the label files hold "
        "other numbers than classes, such as 255 for one class, renumber them from 1."
    ]


def _size_notes(images: Sequence[Pyramid], config: ModelConfig) -> list[str]:
    """Say where pixel sizes are not heeded though some are known."""
    known = [image for image in images if image.pixel_size is not None]
    if config.pixel_size is not None or len(known) in (0, len(images)):
        return []
    other = next(image for image in images if image.pixel_size is None)
    return [
        f"{other.name} has no pixel size but {known[0].name} has, so all slides are "
        "used as they are, and so is the model; --pixel-size gives a size."
    ]


def _completed(images: Sequence[Pyramid], config: ModelConfig) -> ModelConfig:
    for image in images:
        if image.num_channels != config.in_channels:
            raise ConfigError(
                f"{image.name} has {image.num_channels} channels, the model reads "
                f"{config.in_channels}. Choose channels, or another model.",
                "in_channels",
            )
        if image.ndim != config.ndim:
            raise ConfigError(
                f"{image.name} has {image.ndim} spatial axes, the model {config.ndim}.",
                "ndim",
            )
    if config.scale_factors[0] != 1:
        raise ConfigError(
            f"The finest scale factor is {config.scale_factors[0]}; segmentation needs "
            "1. Factors count from the finest pixels that the model reads.",
            "scale_factors",
        )
    mode = resolve_mode(config.normalisation, images[0])
    return dataclasses.replace(config, normalisation=mode)


def _check_slide(view: Pyramid, config: ModelConfig, notes: list[str]) -> None:
    extent = view.extent.shape
    if min(extent) < max(config.patch):
        raise ConfigError(
            f"{view.name} is {_size(extent)} px, smaller than one patch of "
            f"{max(config.patch)} px.",
            "patch_size",
        )
    widest = config.crop_size * config.scale_factors[-1]
    if min(extent) < widest and len(config.scale_factors) > 1:
        notes.append(
            f"{view.name} is {_size(extent)} px; the widest view of {widest:g} px is "
            "padded where it reaches beyond."
        )
    if config.pixel_size is not None and view.pixel_size is None:
        notes.append(
            f"{view.name} has no pixel size; it is read as if it had the model's "
            f"{config.pixel_size:g} µm."
        )


def _size(extent: Sequence[float]) -> str:
    return " x ".join(f"{e:g}" for e in extent)
