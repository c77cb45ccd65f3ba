"""From what the user gave to opened slides, their annotations, and a model for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import median_high
from typing import Any

import numpy as np

from ..config import ModelConfig
from ..data.annotations import Annotations, label_classes
from ..data.label_image import LabelImage
from ..data.label_placement import labels_upon
from ..data.masks import mask_note, mask_values
from ..data.named_labels import (
    covering_names,
    has_names,
    is_named,
    read_named,
    shared_names,
)
from ..data.open import open_labels, open_pyramid
from ..data.pyramid import Pyramid
from ..errors import AnnotationError, PyramidError
from ..presets import preset
from ..progress import StopFn, check_stop, never_stop

ImageSource = Any
"""A path, an array, a list of arrays or a `Pyramid`."""
LabelSource = Any
"""`Annotations`, a GeoJSON or project file, or a label image: a path, an array or a
`Pyramid`."""


def open_images(
    images: Sequence[ImageSource], should_stop: StopFn = never_stop
) -> list[Pyramid]:
    """Open every image; asks before each whether to stop.

    Raises
    ------
    PyramidError
        If one cannot be opened, or there is none.
    """
    if isinstance(images, (str, Path, Pyramid, np.ndarray)):
        images = [images]
    if not images:
        raise PyramidError("No image was given; at least one is needed.")
    opened = []
    for image in images:
        check_stop(should_stop)
        opened.append(open_pyramid(image))
    return opened


def open_annotations(
    sources: Sequence[LabelSource],
    images: Sequence[Pyramid],
    *,
    zero_is_background: bool = False,
    classes: Sequence[str] | None = None,
    preferred: Sequence[str] | None = None,
    purpose: str = "training",
    should_stop: StopFn = never_stop,
) -> list[Annotations]:
    """Open label images, GeoJSON and project files, one for each image.

    Parameters
    ----------
    sources
        `Annotations`, label images (see `labels_upon`; masks of one object are read as
        such, see `mask_values`), GeoJSON or project files.
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
    should_stop
        Asked often.

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
    pictures = {
        i: open_labels(source, images[i])
        for i, source in enumerate(sources)
        if i not in named and not isinstance(source, Annotations)
    }
    known = tuple(names or preferred or ()) or None
    mask = mask_values(
        [labels.levels[0].source for labels in pictures.values()],
        known,
        explicit=bool(names),
        zero_is_background=zero_is_background,
        should_stop=should_stop,
    )
    for number, (source, image) in enumerate(zip(sources, images, strict=True)):
        if isinstance(source, Annotations):
            opened.append(source)
        elif number in named:
            opened.append(named[number].annotations(names))
        elif mask:
            marks = labels_upon(pictures[number], image, values=mask)
            opened.append(dataclasses.replace(marks, note=mask_note(mask, known)))
        else:
            opened.append(labels_upon(pictures[number], image, zero_is_background))
    return opened


def zero_is_a_class(annotations: Sequence[Annotations]) -> bool:
    """Whether label images were read with 0 as a class."""
    images = (i for m in annotations for i in m.items if isinstance(i, LabelImage))
    return any(i.zero_is_background or (i.values or {}).get(0) for i in images)


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
        Label v in files means class v + 1; class 1 is then ``background``. So it is
        where the label images were read as masks.
    **changes
        Further fields of `ModelConfig`.
    """
    if isinstance(model, ModelConfig):
        return dataclasses.replace(model, **changes) if changes else model
    zero_is_background = zero_is_background or zero_is_a_class(annotations)
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
