"""What is compared: label images and outlines, read block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.annotations import Annotations
from ..data.arrays import ArrayLike, ArraySource
from ..data.label_placement import labels_upon
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
    pyramid: Pyramid | None = field(default=None, repr=False)
    """What it was read from; None: an array."""
    values: Mapping[int, int] | None = None
    """Label of each value, of a mask; None: the value is the label."""

    @property
    def note(self) -> str:
        """Which plane of a stack it is, or nothing."""
        pyramid = self.pyramid
        if pyramid is None:
            return ""
        lengths = dict(pyramid.contents.axes)
        chosen = any(lengths.get(axis, 1) > 1 for axis in pyramid.contents.planes)
        return f"{self.name}: {pyramid.note}" if chosen else ""

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
        if self.values is not None:
            # The first is the background; nothing else was found in it.
            first, second = self.values.values()
            return np.where(values == 0, first, second).astype(np.int64)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > MAX_LABEL:
            raise AnnotationError(
                f"{self.name} holds the value {low if low < 0 else high}; classes are "
                f"numbers up to {MAX_LABEL}. Is it an image of single objects?"
            )
        return values + self.shift


@dataclass(frozen=True, eq=False, slots=True)
class MarkedBlocks:
    """Outlines, or a label image of another pixel size, laid upon the prediction."""

    annotations: Annotations
    name: str
    note: str
    """What was left out on reading, or nothing."""

    def read(self, lower: Sequence[int], upper: Sequence[int]) -> NDArray[np.int64]:
        """Labels at the centres of the pixels [lower, upper), flat."""
        shape = tuple(u - v for v, u in zip(lower, upper, strict=True))
        labels = self.annotations.rasterise(Box(tuple(lower), tuple(upper)), shape)
        return labels.ravel().astype(np.int64)


@dataclass(frozen=True, slots=True)
class TruthReading:
    """How the truth is read."""

    names: tuple[str, ...] = ()
    """Class names of the prediction in label order, by which those of a file are found;
    empty where it has none."""
    zero_is_background: bool = False
    """Value v of a label image means class v + 1."""
    image: str | int | None = None
    """Which image of label files with several."""
    planes: Mapping[str, int] | None = None
    """Which planes of label files that are stacks."""


def open_image(
    labels: LabelImageSource,
    kind: str,
    shift: int = 0,
    image: str | int | None = None,
    planes: Mapping[str, int] | None = None,
) -> ImageBlocks:
    """See a label image as a source of one channel.

    Parameters
    ----------
    labels
        The label image.
    kind
        What it is, for messages.
    shift
        Added to each value.
    image, planes
        What is chosen of a file; see `open_pyramid`.

    Raises
    ------
    AnnotationError
        If it is no label image.
    """
    if isinstance(labels, (str, Path)):
        from ..data.open import open_pyramid

        labels = open_pyramid(labels, as_labels=True, image=image, planes=planes)
    pyramid = labels if isinstance(labels, Pyramid) else None
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
    return ImageBlocks(source, name, shift, pyramid)


def open_truth(
    labels: TruthSource | ImageBlocks, predicted: ImageBlocks, reading: TruthReading
) -> LabelBlocks:
    """Open what a prediction is compared with.

    Parameters
    ----------
    labels
        A label image of the prediction's shape, or of its field where both say the size
        of their pixels, or such a one opened; or outlines in its pixels.
    predicted
        The prediction.
    reading
        How.

    Raises
    ------
    AnnotationError
        If the two do not cover the same field, or a class of the file is not known.
    PyramidError
        If a file cannot be read, or has no such image or plane.
    """
    if not isinstance(labels, ImageBlocks) and (
        isinstance(labels, Annotations) or is_named(labels)
    ):
        return _open_marks(labels, predicted, reading)
    zero = reading.zero_is_background
    truth = (
        labels
        if isinstance(labels, ImageBlocks)
        else open_image(labels, "label image", int(zero), reading.image, reading.planes)
    )
    if truth.shape == predicted.shape:
        return truth
    if truth.pyramid is None or predicted.pyramid is None:
        raise AnnotationError(
            f"{predicted.name} has {_size(predicted)} pixels, but {truth.name} has "
            f"{_size(truth)}; the same are needed."
        )
    placed = labels_upon(
        truth.pyramid, predicted.pyramid, zero and not truth.values, truth.values
    )
    return MarkedBlocks(placed, truth.name, truth.note)


def _open_marks(
    labels: TruthSource, predicted: ImageBlocks, reading: TruthReading
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
        return MarkedBlocks(labels, "the annotations", labels.note)
    planes = reading.planes or {}
    at = (planes.get("z", 0), planes.get("t", 0))
    (file,) = read_named([labels], [at])  # type: ignore[list-item]  # says is_named
    if has_names(file) and not reading.names:
        raise AnnotationError(
            f"{predicted.name} does not name its classes, so those of {file.path} "
            f"({', '.join(file.class_names) or 'none'}) cannot be found in it. Name "
            "them in label order (--classes)."
        )
    marks = file.annotations(reading.names)
    return MarkedBlocks(marks, f"the outlines {file.path.name}", marks.note)


def _size(labels: ImageBlocks) -> str:
    return " x ".join(str(n) for n in labels.shape)
