"""What is compared with what: opened and checked, its classes as far as they are told.

Shapes: K classes, labels 1..K.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.annotations import Annotations
from ..data.masks import mask_note, mask_values
from ..data.named_labels import is_named
from ..data.pyramid import Pyramid
from ..errors import AnnotationError, ConfigError
from ..prediction.record import read_classes
from ..progress import StopFn, never_stop
from .sources import (
    MAX_LABEL,
    ImageBlocks,
    LabelBlocks,
    LabelImageSource,
    TruthReading,
    TruthSource,
    open_image,
    open_truth,
)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Comparison:
    """Predictions and their truth, before a pixel is counted."""

    predicted: tuple[ImageBlocks, ...]
    truth: tuple[LabelBlocks, ...]
    titles: tuple[str, ...]
    """A different name for each slide."""
    names: tuple[str, ...]
    """K names; empty: as many as there will be labels."""
    num_classes: int | None
    """K; None: the largest label of the truth."""
    background: int | None
    """Label left out of mDSC."""
    zero_is_background: bool
    """Whether 0 of the label images is a class."""
    notes: tuple[str, ...] = ()
    """What the user should know of how they are read."""

    @property
    def pixels(self) -> int:
        """Pixels of all slides."""
        return sum(math.prod(predicted.shape) for predicted in self.predicted)

    def text(self) -> str:
        """Say what would be compared."""
        lines = []
        for title, predicted, truth in zip(
            self.titles, self.predicted, self.truth, strict=True
        ):
            size = " x ".join(str(n) for n in predicted.shape)
            levels = predicted.pyramid.levels if predicted.pyramid else (None,)
            finest = f", the finest of {len(levels)} levels" if len(levels) > 1 else ""
            lines.append(f"{title}: {size} px{finest}, against {truth.name}")
        named = ", ".join(f"{k} {name}" for k, name in enumerate(self.names, start=1))
        lines.append(f"classes: {named or 'numbered, up to the largest of the labels'}")
        known = self.background is not None and self.names
        left_out = self.names[(self.background or 1) - 1] if known else "no class"
        lines.append(f"mDSC leaves out {left_out} (--background)")
        slides = "1 slide" if len(self.titles) == 1 else f"{len(self.titles)} slides"
        lines.append(f"{self.pixels:,} pixels of {slides}")
        return "\n".join(lines)


def open_comparison(
    predictions: LabelImageSource | Sequence[LabelImageSource],
    labels: TruthSource | Sequence[TruthSource],
    *,
    zero_is_background: bool = False,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    background: int | str | None = None,
    image: str | int | None = None,
    planes: Mapping[str, int] | None = None,
    should_stop: StopFn = never_stop,
) -> Comparison:
    """Open what `evaluate` compares, and check all but the values of its pixels.

    Parameters and exceptions are those of `evaluate`.
    """
    pairs = _pairs(predictions, labels)
    stored, stored_background = _stored_names([p for p, _ in pairs], class_names)
    names = tuple(class_names) if class_names is not None else stored
    if num_classes is not None and names and len(names) != num_classes:
        raise ConfigError(
            f"num_classes is {num_classes}, but there are {len(names)} class names: "
            f"{', '.join(names)}.",
            "num_classes",
        )
    predicted = [open_image(p, "prediction") for p, _ in pairs]
    predicted, said = _read_masks(predicted, names, False, "predictions", should_stop)
    images = {
        i: open_image(label, "label image", int(zero_is_background), image, planes)
        for i, (_, label) in enumerate(pairs)
        if not (isinstance(label, Annotations) or is_named(label))
    }
    read, more = _read_masks(
        list(images.values()), names, zero_is_background, "label images", should_stop
    )
    images = dict(zip(images, read, strict=True))
    zero = zero_is_background or bool(said or more)
    if not names and (num_classes is not None or said or more):
        names = numbered(num_classes or 2, zero)
    reading = TruthReading(names, zero_is_background, image, planes)
    truth = [
        open_truth(images.get(i, label), predicted[i], reading)
        for i, (_, label) in enumerate(pairs)
    ]
    if background is None:
        background = stored_background if class_names is None else None
    return Comparison(
        predicted=tuple(predicted),
        truth=tuple(truth),
        titles=_titles(predicted),
        names=names,
        num_classes=len(names) or None,
        background=_background(background, names, zero),
        zero_is_background=zero,
        notes=(*said, *more),
    )


def numbered(count: int, zero_is_background: bool) -> tuple[str, ...]:
    """Names of classes without names."""
    names = [f"class {k}" for k in range(1, count + 1)]
    if zero_is_background and names:
        names[0] = "background"
    return tuple(names)


def _read_masks(
    images: list[ImageBlocks],
    names: tuple[str, ...],
    zero_is_background: bool,
    what: str,
    should_stop: StopFn,
) -> tuple[list[ImageBlocks], tuple[str, ...]]:
    """Read images of 0 and one large value as masks, and say so."""
    values = mask_values(
        [image.source for image in images],
        names or None,
        zero_is_background=zero_is_background,
        what=what,
        should_stop=should_stop,
    )
    if values is None:
        return images, ()
    read = [replace(image, values=values, shift=0) for image in images]
    return read, (mask_note(values, names or None, what),)


def _background(
    asked: int | str | None, names: tuple[str, ...], zero_is_background: bool
) -> int | None:
    """Label of the background: as asked, else by its name, else none."""
    folded = [name.strip().lower() for name in names]
    if isinstance(asked, str):
        if asked.strip().lower() in folded:
            return folded.index(asked.strip().lower()) + 1
        if not asked.strip().isdecimal():
            raise ConfigError(
                f"background is {asked!r}; a class is needed, by its number or one of "
                f"{', '.join(names) or 'the names that --classes gives'}.",
                "background",
            )
        asked = int(asked)
    if asked is None and "background" in folded:
        return folded.index("background") + 1
    if asked is None:
        return 1 if zero_is_background else None
    if not 1 <= asked <= (len(names) or MAX_LABEL):
        raise ConfigError(
            f"background is {asked}; a label from 1 to {len(names) or MAX_LABEL} is "
            "needed.",
            "background",
        )
    return asked


def _titles(predictions: Sequence[ImageBlocks]) -> tuple[str, ...]:
    """Return a different name for each slide."""
    names = [
        predicted.pyramid.name if predicted.pyramid is not None else f"slide {number}"
        for number, predicted in enumerate(predictions, start=1)
    ]
    counts = Counter(names)
    return tuple(
        name if counts[name] == 1 else f"{name} ({number})"
        for number, name in enumerate(names, start=1)
    )


def _pairs(
    predictions: LabelImageSource | Sequence[LabelImageSource],
    labels: TruthSource | Sequence[TruthSource],
) -> list[tuple[LabelImageSource, TruthSource]]:
    left: list[Any] = (
        list(predictions) if isinstance(predictions, (list, tuple)) else [predictions]
    )
    right: list[Any] = list(labels) if isinstance(labels, (list, tuple)) else [labels]
    if len(left) != len(right) or not left:
        raise AnnotationError(
            f"There are {len(left)} predictions and {len(right)} label images; one "
            "label image or file of outlines a prediction is needed, in the same order."
        )
    return list(zip(left, right, strict=True))


def _stored_names(
    predictions: Sequence[LabelImageSource], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], int | None]:
    """Names (empty: none) and background that the predictions say."""
    stored, background = _stored_classes(predictions[0])
    for prediction in predictions[1:] if class_names is None else ():
        other, _ = _stored_classes(prediction)
        if stored and other and stored != other:
            raise AnnotationError(
                f"The predictions have different classes: {', '.join(stored)} and "
                f"{', '.join(other)}. Evaluate them one by one, or name the classes."
            )
    return stored, background


def _stored_classes(prediction: LabelImageSource) -> tuple[tuple[str, ...], int | None]:
    path = prediction.path if isinstance(prediction, Pyramid) else prediction
    return read_classes(Path(path)) if isinstance(path, (str, Path)) else ((), None)
