"""What is compared: label images and outlines, read block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.annotations import Annotations
from ..data.arrays import ArrayLike, ArraySource
from ..data.named_labels import has_names, is_named, read_named
from ..data.pyramid import Pyramid
from ..errors import AnnotationError
from ..geometry import Box

MAX_LABEL = 255
"""Labels are uint8."""

LabelImageSource = Pyramid | ArrayLike | str | Path
"""A label image: opened, an array (spatial axes only) or a path."""
TruthSource = LabelImageSource | Annotations
"""A label image, `Annotations`, or a path: of an image, a GeoJSON or a project file."""


class LabelBlocks(Protocol):
    """Labels that are read block by block."""

    @property
    def name(self) -> str:
        """What to call it in a message."""
        ...

    @property
    def note(self) -> str:
        """What was left out on reading, or nothing."""
        ...

    def read(self, lower: Sequence[int], upper: Sequence[int]) -> NDArray[np.int64]:
        """Labels of the pixels [lower, upper), flat."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class ImageBlocks:
    """A label image."""

    source: ArraySource
    """(1, *spatial)."""
    name: str
    shift: int = 0
    """Added to each value."""
    note: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the spatial axes."""
        return tuple(self.source.shape[1:])

    def read(self, lower: Sequence[int], upper: Sequence[int]) -> NDArray[np.int64]:
        """Labels of the pixels [lower, upper), flat.

        Raises
        ------
        AnnotationError
            If there is a value that is no label.
        """
        values = self.source.read(lower, upper).ravel().astype(np.int64)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > MAX_LABEL:
            raise AnnotationError(
                f"{self.name} holds the value {low if low < 0 else high}; classes are "
                f"numbers up to {MAX_LABEL}. Is it an image of single objects?"
            )
        return values + self.shift


@dataclass(frozen=True, eq=False, slots=True)
class MarkedBlocks:
    """Annotations in pixels of the prediction's finest level."""

    annotations: Annotations
    name: str

    @property
    def note(self) -> str:
        """What was left out on reading, or nothing."""
        return self.annotations.note

    def read(self, lower: Sequence[int], upper: Sequence[int]) -> NDArray[np.int64]:
        """Labels at the centres of the pixels [lower, upper), flat."""
        shape = tuple(u - v for v, u in zip(lower, upper, strict=True))
        labels = self.annotations.rasterise(Box(tuple(lower), tuple(upper)), shape)
        return labels.ravel().astype(np.int64)


def open_image(labels: LabelImageSource, kind: str, shift: int = 0) -> ImageBlocks:
    """See a label image as a source of one channel.

    Parameters
    ----------
    labels
        The label image.
    kind
        What it is, for messages.
    shift
        Added to each value.

    Raises
    ------
    AnnotationError
        If it is no label image.
    """
    if isinstance(labels, (str, Path)):
        from ..data.open import open_pyramid

        labels = open_pyramid(labels, as_labels=True)
    if isinstance(labels, Pyramid):
        source, name = labels.levels[0].source, f"the {kind} {labels.name}"
    else:
        axes = "tzyx"[-len(labels.shape) :] if 2 <= len(labels.shape) <= 4 else ""
        if not axes:
            raise AnnotationError(
                f"A {kind} of shape {labels.shape} was given; only spatial axes, two "
                "to four, are needed."
            )
        source, name = ArraySource(labels, axes, spatial=axes), f"the {kind}"
    if source.shape[0] != 1:
        raise AnnotationError(
            f"{name} has {source.shape[0]} channels; a label image has one."
        )
    if source.dtype.kind not in "bui":
        raise AnnotationError(
            f"{name} holds numbers of type {source.dtype}; whole numbers are needed."
        )
    return ImageBlocks(source, name, shift)


def open_truth(
    labels: TruthSource,
    predicted: ImageBlocks,
    names: Sequence[str],
    zero_is_background: bool = False,
) -> LabelBlocks:
    """Open what a prediction is compared with.

    Parameters
    ----------
    labels
        A label image of the prediction's shape, or outlines in its pixels.
    predicted
        The prediction.
    names
        Class names of the prediction in label order, by which those of a file are
        found; empty where it has none.
    zero_is_background
        Value v of a label image means class v + 1.

    Raises
    ------
    AnnotationError
        If the shapes differ, or a class of the file is none of ``names``.
    """
    if isinstance(labels, Annotations) or is_named(labels):
        return _open_marks(labels, predicted, names)
    truth = open_image(labels, "label image", int(zero_is_background))
    if truth.shape != predicted.shape:
        raise AnnotationError(
            f"{predicted.name} has {_size(predicted)} pixels, but {truth.name} has "
            f"{_size(truth)}; the same are needed."
        )
    return truth


def _open_marks(
    labels: TruthSource, predicted: ImageBlocks, names: Sequence[str]
) -> MarkedBlocks:
    if len(predicted.shape) != 2:
        raise AnnotationError(
            f"{predicted.name} has {len(predicted.shape)} spatial axes; outlines "
            "can be compared with two only. Give a label image."
        )
    if isinstance(labels, Annotations):
        if labels.ndim != 2:
            raise AnnotationError(
                f"The annotations are of a volume, but {predicted.name} is a plane."
            )
        return MarkedBlocks(labels, "the annotations")
    (file,) = read_named([labels])  # type: ignore[list-item]  # a path, says is_named
    if has_names(file) and not names:
        raise AnnotationError(
            f"{predicted.name} does not name its classes, so those of {file.path} "
            f"({', '.join(file.class_names) or 'none'}) cannot be found in it. Name "
            "them in label order (--classes)."
        )
    return MarkedBlocks(file.annotations(names), f"the outlines {file.path.name}")


def _size(labels: ImageBlocks) -> str:
    return " x ".join(str(n) for n in labels.shape)
