"""From what the user gave to slides that can be sampled, with every check up front."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high
from typing import Any, TypeVar

import numpy as np

from ..config import ModelConfig
from ..data.annotations import Annotations, label_classes
from ..data.cache_settings import CacheSettings
from ..data.crops import estimate_background, estimate_normalisation, resolve_mode
from ..data.label_placement import labels_upon
from ..data.level_cache import with_coarse_levels
from ..data.named_labels import (
    covering_names,
    has_names,
    is_named,
    read_named,
    shared_names,
)
from ..data.open import open_labels, open_pyramid
from ..data.pyramid import Pyramid
from ..data.sampling import PlainSlide, TrainingSlide
from ..data.tissue import find_tissue
from ..errors import AnnotationError, ConfigError, PyramidError
from ..presets import preset
from ..progress import (
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)

ImageSource = Any
"""A path, an array, a list of arrays or a `Pyramid`."""
LabelSource = Any
"""`Annotations`, a GeoJSON or project file, or a label image: a path, an array or a
`Pyramid`."""

Slide = TypeVar("Slide", PlainSlide, TrainingSlide)

MAX_NAMED = 5
"""Classes without a pixel that get a line each."""


@dataclass(frozen=True, eq=False)
class PreparedData:
    """Slides, the completed model configuration, and what the user should know."""

    slides: tuple[TrainingSlide, ...]
    config: ModelConfig
    notes: tuple[str, ...]


def open_images(images: Sequence[ImageSource]) -> list[Pyramid]:
    """Open every image.

    Raises
    ------
    PyramidError
        If one cannot be opened, or there is none.
    """
    if isinstance(images, (str, Path, Pyramid, np.ndarray)):
        images = [images]
    if not images:
        raise PyramidError("No image was given; at least one is needed.")
    return [open_pyramid(image) for image in images]


def open_annotations(
    sources: Sequence[LabelSource],
    images: Sequence[Pyramid],
    *,
    zero_is_background: bool = False,
    classes: Sequence[str] | None = None,
    preferred: Sequence[str] | None = None,
    purpose: str = "training",
) -> list[Annotations]:
    """Open label images, GeoJSON and project files, one for each image.

    Parameters
    ----------
    sources
        `Annotations`, label images (see `labels_upon`), GeoJSON or project files.
    images
        In the same order.
    zero_is_background
        Label v of label images means class v + 1.
    classes
        Class names in label order, for files that name their classes. None: as the
        files name them, the same for all.
    preferred
        Class names to take unless a file names others.
    purpose
        For messages.

    Raises
    ------
    AnnotationError
        If counts, shapes or classes differ.
    """
    if isinstance(sources, (str, Path, Pyramid, np.ndarray, Annotations)):
        sources = [sources]
    if len(sources) != len(images):
        raise AnnotationError(
            f"{len(images)} images and {len(sources)} label files were given for "
            f"{purpose}; one label file for each image is needed, in the same order."
        )
    opened = []
    numbers = [i for i, source in enumerate(sources) if is_named(source)]
    planes = [images[i].contents.planes for i in numbers]
    files = read_named(
        [sources[i] for i in numbers], [(p.get("z", 0), p.get("t", 0)) for p in planes]
    )
    named = dict(zip(numbers, files, strict=True))
    nameless = len(sources) - len(files) + sum(not has_names(f) for f in files)
    classes = classes or covering_names(preferred or (), files)
    if classes is None and 0 < nameless < len(sources):
        raise AnnotationError(
            "Label files that name their classes and others that number them were "
            "given together; name all classes in label order (--classes), so that "
            "they mean the same."
        )
    names = classes or shared_names(files)
    for number, (source, image) in enumerate(zip(sources, images, strict=True)):
        if isinstance(source, Annotations):
            opened.append(source)
            continue
        if number in named:
            opened.append(named[number].annotations(names))
            continue
        labels = open_labels(source, image)
        opened.append(labels_upon(labels, image, zero_is_background))
    return opened


def model_config_for(
    model: str | ModelConfig,
    images: Sequence[Pyramid],
    annotations: Sequence[Annotations],
    *,
    classes: Sequence[str] | None = None,
    zero_is_background: bool = False,
    **changes: Any,
) -> ModelConfig:
    """Complete a preset with what the data say: channels, classes, pixel size.

    Parameters
    ----------
    model
        Name of a preset, or a configuration that is returned with ``changes``.
    images, annotations
        What is to be trained on.
    classes
        Class names in label order. None: from the label files, else numbered up to
        the largest label.
    zero_is_background
        Label v in files means class v + 1; class 1 is then ``background``.
    **changes
        Further fields of `ModelConfig`.
    """
    if isinstance(model, ModelConfig):
        return dataclasses.replace(model, **changes) if changes else model
    names, colors = _class_names(annotations, classes, zero_is_background)
    values = {
        **preset(model).model,
        "in_channels": images[0].num_channels,
        "num_classes": len(names),
        "class_names": names,
        "class_colors": colors if colors and len(colors) == len(names) else None,
        "zero_is_background": zero_is_background,
        "pixel_size": common_pixel_size(images),
        **changes,
    }
    return ModelConfig.from_dict(values)


def _class_names(
    annotations: Sequence[Annotations],
    classes: Sequence[str] | None,
    zero_is_background: bool,
) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Names and colours: as given, as the labels say, else numbered."""
    if classes:
        return tuple(classes), None
    for marks in annotations:
        if marks.class_names:
            return marks.class_names, marks.class_colors
    largest = max(label_classes(marks).largest for marks in annotations)
    first = ("background",) if zero_is_background else ()
    rest = range(len(first) + 1, max(1, largest) + 1)
    return first + tuple(f"class {k}" for k in rest), None


def common_pixel_size(images: Sequence[Pyramid]) -> float | None:
    """Micrometres of the middle one of the slides' pixels; None: not all are known."""
    sizes = [_mean_size(image) for image in images]
    known = [s for s in sizes if s is not None]
    # A size that a slide really has: between two, every slide would be resampled.
    return median_high(known) if len(known) == len(sizes) else None


def _mean_size(image: Pyramid) -> float | None:
    return None if image.pixel_size is None else float(np.mean(image.pixel_size))


def prepare(
    images: Sequence[Pyramid],
    annotations: Sequence[Annotations],
    config: ModelConfig,
    seed: int,
    should_stop: StopFn = never_stop,
) -> PreparedData:
    """Check the data against the model and make it ready to be sampled.

    Raises
    ------
    ConfigError
        If channels differ, or a slide is smaller than one patch.
    AnnotationError
        If nothing is annotated, or a label has no class.
    """
    config = _completed(images, config)
    notes = [marks.note for marks in annotations if marks.note]
    notes += _size_notes(images, config)
    slides = []
    for image, marks in zip(images, annotations, strict=True):
        view = image.viewed_at(config.pixel_size)
        _check_slide(view, config, notes)
        if any(not math.isclose(z, 1.0) for z in view.zoom):
            marks = marks.scaled(view.zoom)
        try:
            index = marks.index(
                view.extent, config.num_classes, seed, should_stop=should_stop
            )
        except AnnotationError as error:
            raise AnnotationError(f"{image.name}: {error}") from error
        normalisation = estimate_normalisation(view, config.normalisation)
        slides.append(TrainingSlide(view, marks, normalisation, index))
    counts = np.sum([slide.index.counts for slide in slides], axis=0)
    if counts[1:].sum() == 0:
        said = "".join(f" ({marks.note}.)" for marks in annotations if marks.note)
        raise AnnotationError(
            "Nothing is annotated: every label is 0. Outline or paint at least one "
            f"region of each class. If 0 is a class, choose zero_is_background.{said}"
        )
    notes += _missing_notes(config, counts)
    config = _with_background(slides, config)
    return PreparedData(tuple(slides), config, tuple(dict.fromkeys(notes)))


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
    notes = _size_notes(images, config)
    slides = []
    for image in images:
        check_stop(should_stop)
        view = image.viewed_at(config.pixel_size)
        _check_slide(view, config, notes)
        normalisation = estimate_normalisation(view, config.normalisation)
        where = find_tissue(view) if tissue else None
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


def _missing_notes(config: ModelConfig, counts: Sequence[int]) -> list[str]:
    """Say which classes have no annotated pixel."""
    missing = [k for k in range(1, config.num_classes + 1) if counts[k] == 0]
    if len(missing) <= MAX_NAMED:
        return [
            f"Class {k} ({config.names[k - 1]}) has no annotated pixel; it stays "
            "unknown."
            for k in missing
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
