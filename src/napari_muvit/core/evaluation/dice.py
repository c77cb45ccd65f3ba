"""Comparing predictions with the truth, streamed over slides of any size.

Shapes: K classes; see `scores` for the confusion matrix.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.pyramid import Pyramid
from ..errors import AnnotationError, ConfigError
from ..prediction.record import read_classes
from ..progress import (
    Progress,
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)
from .scores import Confusion, Evaluation
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

BLOCK_PIXELS = 2**22
"""Pixels compared at a time."""


def evaluate(
    predictions: LabelImageSource | Sequence[LabelImageSource],
    labels: TruthSource | Sequence[TruthSource],
    *,
    zero_is_background: bool = False,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    background: int | None = None,
    image: str | int | None = None,
    planes: Mapping[str, int] | None = None,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> Evaluation:
    """Compare predictions with label images or outlines, block by block.

    Pixels with truth 0 are not annotated and are left out; a prediction of 0 where
    there is truth is wrong. Several slides are pooled into one confusion matrix; that
    of each slide is kept too.

    Parameters
    ----------
    predictions
        Label images (path, array or pyramid), one or several; classes from 1.
    labels
        The truth, as many and in the same order: label images of the same shape or,
        where both say the size of their pixels, of the same field; `Annotations`,
        GeoJSON or project files in pixels of the prediction's finest level. The classes
        that a file names are found by their names.
    zero_is_background
        Value v of label images means class v + 1, and class 1 is the background.
    num_classes
        K; None: from the names, else the largest label.
    class_names
        K names; None: from the prediction, else ``class 1`` ...
    background
        Label left out of mDSC; None: from the prediction, else the class named
        ``background``, if any.
    image, planes
        Which image and planes of label files with several; see `open_pyramid`.
    on_progress
        Called with a `Progress` after each block.
    should_stop
        Asked before each block.

    Returns
    -------
    Evaluation
        Of all slides together; ``slides`` holds that of each.

    Raises
    ------
    AnnotationError
        If shapes, numbers or names do not fit, or the values are no class labels.
    PyramidError
        If a file cannot be read, or has no such image or plane.
    ConfigError
        If names, number of classes and background contradict each other.
    Cancelled
        If ``should_stop`` said so.
    """
    pairs = _pairs(predictions, labels)
    names, background = _classes(
        [p for p, _ in pairs], zero_is_background, num_classes, class_names, background
    )
    known = len(names) if names else num_classes
    opened: list[tuple[ImageBlocks, LabelBlocks]] = []
    for prediction, label in pairs:
        predicted = open_image(prediction, "prediction")
        reading = TruthReading(tuple(names), zero_is_background, image, planes)
        opened.append((predicted, open_truth(label, predicted, reading)))
    counted = _count_slides(opened, known, on_progress, should_stop)
    names = names or _numbered(len(counted[0]) - 1, zero_is_background)
    titles = _titles([predicted for predicted, _ in opened])
    slides = tuple(
        Evaluation(confusion=c, class_names=names, background=background, name=title)
        for c, title in zip(counted, titles, strict=True)
    )
    return Evaluation(
        confusion=np.sum(counted, axis=0),
        class_names=names,
        background=background,
        slides=slides,
    )


def _count_slides(
    opened: Sequence[tuple[ImageBlocks, LabelBlocks]],
    known: int | None,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> list[Confusion]:
    """Return the confusion matrix of each slide, all of one size."""
    total = sum(_count_blocks(predicted.shape) for predicted, _ in opened)
    done, counted = 0, []
    for predicted, truth in opened:
        confusion = np.zeros(((known or 0) + 1,) * 2, dtype=np.int64)
        note = truth.note
        for lower, upper in _blocks(predicted.shape):
            check_stop(should_stop)
            block, guess = truth.read(lower, upper), predicted.read(lower, upper)
            confusion = _count(
                confusion, block, guess, known, truth.name, predicted.name
            )
            done += 1
            on_progress(
                Progress(
                    stage="evaluate", done=done, total=total, unit="block", message=note
                )
            )
            note = ""
        counted.append(confusion)
    largest = max(map(len, counted))
    return [_grown(confusion, largest) for confusion in counted]


def _titles(predictions: Sequence[ImageBlocks]) -> list[str]:
    """Return a different name for each slide."""
    names = [
        predicted.pyramid.name if predicted.pyramid is not None else f"slide {number}"
        for number, predicted in enumerate(predictions, start=1)
    ]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f"{name} ({number})"
        for number, name in enumerate(names, start=1)
    ]


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


def _edge(ndim: int) -> int:
    return max(1, round(math.pow(BLOCK_PIXELS, 1 / ndim)))


def _count_blocks(shape: Sequence[int]) -> int:
    edge = _edge(len(shape))
    return math.prod(-(-n // edge) for n in shape)


def _blocks(shape: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    edge = _edge(len(shape))
    for corner in itertools.product(*(range(0, n, edge) for n in shape)):
        yield (
            list(corner),
            [min(c + edge, n) for c, n in zip(corner, shape, strict=True)],
        )


def _count(
    confusion: Confusion,
    truth: NDArray[np.int64],
    guess: NDArray[np.int64],
    known: int | None,
    truth_name: str,
    guess_name: str,
) -> Confusion:
    """Add pixels; grows the matrix where the number of classes is not known."""
    for values, name in ((truth, truth_name), (guess, guess_name)):
        if known is not None and int(values.max()) > known:
            raise AnnotationError(
                f"{name} holds the label {int(values.max())}, but there are only the "
                f"classes 1 to {known}. Labels and prediction must number the same "
                "classes; zero_is_background counts one up in the labels."
            )
    size = max(len(confusion), int(truth.max()) + 1, int(guess.max()) + 1)
    confusion = _grown(confusion, size)
    pairs = np.bincount(truth * size + guess, minlength=size * size)
    return np.asarray(confusion + pairs.reshape(size, size), dtype=np.int64)


def _grown(confusion: Confusion, size: int) -> Confusion:
    """Add classes without a pixel."""
    return np.pad(confusion, ((0, size - len(confusion)),) * 2)


def _numbered(count: int, zero_is_background: bool) -> tuple[str, ...]:
    names = [f"class {k}" for k in range(1, count + 1)]
    if zero_is_background and names:
        names[0] = "background"
    return tuple(names)


def _classes(
    predictions: Sequence[LabelImageSource],
    zero_is_background: bool,
    num_classes: int | None,
    class_names: Sequence[str] | None,
    background: int | None,
) -> tuple[tuple[str, ...], int | None]:
    """Names (empty: not known yet) and background, from the user or the predictions."""
    stored, stored_background = _stored_classes(predictions[0])
    for prediction in predictions[1:] if class_names is None else ():
        other, _ = _stored_classes(prediction)
        if stored and other and stored != other:
            raise AnnotationError(
                f"The predictions have different classes: {', '.join(stored)} and "
                f"{', '.join(other)}. Evaluate them one by one, or name the classes."
            )
    names = tuple(class_names) if class_names is not None else stored
    if not names and num_classes is not None:
        names = _numbered(num_classes, zero_is_background)
    if num_classes is not None and len(names) != num_classes:
        raise ConfigError(
            f"num_classes is {num_classes}, but there are {len(names)} class names: "
            f"{', '.join(names)}.",
            "num_classes",
        )
    if background is None and class_names is None:
        background = stored_background
    if background is None and "background" in names:
        background = names.index("background") + 1
    if background is None and zero_is_background:
        background = 1
    if background is not None and not 1 <= background <= (len(names) or MAX_LABEL):
        raise ConfigError(
            f"background is {background}; a label from 1 to {len(names)} is needed.",
            "background",
        )
    return names, background


def _stored_classes(prediction: LabelImageSource) -> tuple[tuple[str, ...], int | None]:
    path = prediction.path if isinstance(prediction, Pyramid) else prediction
    return read_classes(Path(path)) if isinstance(path, (str, Path)) else ((), None)
