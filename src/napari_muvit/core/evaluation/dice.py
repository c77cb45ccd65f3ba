"""Comparing predictions with the truth, streamed over slides of any size.

Shapes: K classes; see `scores` for the confusion matrix.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError
from ..progress import (
    Progress,
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)
from .comparison import Comparison, numbered, open_comparison
from .scores import Confusion, Evaluation
from .sources import LabelImageSource, TruthSource

BLOCK_PIXELS = 2**22
"""Pixels compared at a time."""


def evaluate(
    predictions: LabelImageSource | Sequence[LabelImageSource],
    labels: TruthSource | Sequence[TruthSource],
    *,
    zero_is_background: bool = False,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    background: int | str | None = None,
    image: str | int | None = None,
    planes: Mapping[str, int] | None = None,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> Evaluation:
    """Compare predictions with label images or outlines, block by block.

    Pixels with truth 0 are not annotated and are left out; a prediction of 0 where
    there is truth is wrong. Several slides are pooled into one confusion matrix; that
    of each slide is kept too. Label images and predictions of 0 and 255 are read as
    masks, see `mask_values`.

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
        K; None: from the names, else the largest label of the truth.
    class_names
        K names; None: from the prediction, else ``class 1`` ...
    background
        Label, or name of the class, left out of mDSC; None: from the prediction, else
        the class named ``background``, if any.
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
        If shapes, numbers or names do not fit, the values are no class labels, or no
        pixel is annotated.
    PyramidError
        If a file cannot be read, or has no such image or plane.
    ConfigError
        If names, number of classes and background contradict each other.
    Cancelled
        If ``should_stop`` said so.
    """
    compared = open_comparison(
        predictions,
        labels,
        zero_is_background=zero_is_background,
        num_classes=num_classes,
        class_names=class_names,
        background=background,
        image=image,
        planes=planes,
        should_stop=should_stop,
    )
    counted = _count_slides(compared, on_progress, should_stop)
    names = compared.names or numbered(len(counted[0]) - 1, compared.zero_is_background)
    about: dict[str, Any] = {
        "class_names": names, "background": compared.background
    }  # fmt: skip
    slides = tuple(
        Evaluation(confusion=c, name=title, **about)
        for c, title in zip(counted, compared.titles, strict=True)
    )
    pooled = np.sum(counted, axis=0)
    _check_compared(pooled, compared)
    return Evaluation(confusion=pooled, slides=slides, **about)


def _check_compared(confusion: Confusion, compared: Comparison) -> None:
    """Refuse what says nothing: no truth at all, or an image instead of classes."""
    truth, guess = confusion.sum(axis=1), confusion.sum(axis=0)
    if not truth[1:].any():
        named = [truth.name for truth in compared.truth]
        which = named[0] if len(named) == 1 else f"the {len(named)} label files"
        raise AnnotationError(
            f"There is nothing to compare: in {which} no pixel of the prediction is "
            "annotated. Annotate some of it; if 0 is a class in a label image, choose "
            "--zero-is-background."
        )
    largest, found = int(np.flatnonzero(truth)[-1]), int(np.flatnonzero(guess)[-1])
    if compared.num_classes is None and found > largest:
        raise AnnotationError(
            f"The predictions hold values up to {found}, but the labels only the "
            f"classes 1 to {largest}. Give predictions, not images; if the classes are "
            "more than the labels show, name them all (--classes)."
        )


def _count_slides(
    compared: Comparison,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> list[Confusion]:
    """Return the confusion matrix of each slide, all of one size."""
    total = sum(_count_blocks(predicted.shape) for predicted in compared.predicted)
    known, done, counted = compared.num_classes, 0, []
    for note in compared.notes:
        on_progress(Progress(stage="evaluate", done=0, total=total, message=note))
    for predicted, truth in zip(compared.predicted, compared.truth, strict=True):
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
            advice = (
                "Labels and prediction must number the same classes; "
                "zero_is_background counts one up in the labels."
                if name == truth_name
                else "Is it an image instead of a prediction?"
            )
            raise AnnotationError(
                f"{name} holds the label {int(values.max())}, but there are only the "
                f"classes 1 to {known}. {advice}"
            )
    size = max(len(confusion), int(truth.max()) + 1, int(guess.max()) + 1)
    confusion = _grown(confusion, size)
    pairs = np.bincount(truth * size + guess, minlength=size * size)
    return np.asarray(confusion + pairs.reshape(size, size), dtype=np.int64)


def _grown(confusion: Confusion, size: int) -> Confusion:
    """Add classes without a pixel."""
    return np.pad(confusion, ((0, size - len(confusion)),) * 2)
