"""How good a prediction is: Dice per class and mDSC, streamed over slides of any size.

References: Dice similarity and its mean over the classes that occur (mDSC).

Shapes: K classes; a confusion matrix is (K + 1, K + 1), truth along rows and
prediction along columns, with index 0 for *not annotated* and *not predicted*.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from .sources import (
    MAX_LABEL,
    ImageBlocks,
    LabelBlocks,
    LabelImageSource,
    TruthSource,
    open_image,
    open_truth,
)

BLOCK_PIXELS = 2**22
"""Pixels compared at a time."""
Confusion = NDArray[np.int64]


def dice_from_confusion(confusion: Confusion) -> NDArray[np.float64]:
    """Dice of each class from a confusion matrix.

    Truth 0 (not annotated) is left out. Prediction 0 (not predicted) is wrong.

    Parameters
    ----------
    confusion
        (K + 1, K + 1) counts, truth along rows.

    Returns
    -------
    ndarray
        (K,), float64; NaN for a class in neither truth nor prediction.
    """
    known = np.asarray(confusion, dtype=np.float64)[1:]
    both = np.diagonal(known[:, 1:])
    total = known.sum(axis=1) + known[:, 1:].sum(axis=0)
    dice = np.full(len(known), np.nan)
    np.divide(2 * both, total, out=dice, where=total > 0)
    return dice


def mean_dice(dice: Sequence[float], background: int | None = None) -> float:
    """MDSC: mean Dice of the foreground classes that occur.

    Parameters
    ----------
    dice
        One number a class, NaN for a class that does not occur; label k at k - 1.
    background
        Label that is left out, or None.

    Returns
    -------
    float
        NaN when no foreground class occurs.
    """
    values = np.asarray(dice, dtype=np.float64)
    counted = np.isfinite(values)
    if background is not None and 1 <= background <= len(values):
        counted[background - 1] = False
    return float(values[counted].mean()) if counted.any() else float("nan")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Evaluation:
    """How a prediction compares with the truth."""

    confusion: Confusion
    """(K + 1, K + 1) pixels, truth along rows; int64."""
    class_names: tuple[str, ...]
    """K names in label order."""
    background: int | None = None
    """Label left out of mDSC."""

    @property
    def dice(self) -> tuple[float, ...]:
        """Dice of each class, NaN for a class that does not occur."""
        return tuple(float(v) for v in dice_from_confusion(self.confusion))

    @property
    def mdice(self) -> float:
        """mDSC: mean Dice of the foreground classes that occur, else NaN."""
        return mean_dice(self.dice, self.background)

    @property
    def accuracy(self) -> float:
        """Share of annotated pixels with the right label, NaN without any."""
        known = self.confusion[1:]
        total = int(known.sum())
        return float(np.trace(known[:, 1:])) / total if total else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; what is not defined is None."""
        pixels = self.confusion[1:].sum(axis=1)
        return {
            "mDSC": _number(self.mdice),
            "accuracy": _number(self.accuracy),
            "background": self.background,
            "classes": [
                {
                    "label": label,
                    "name": name,
                    "dice": _number(dice),
                    "pixels": int(pixels[label - 1]),
                }
                for label, (name, dice) in enumerate(
                    zip(self.class_names, self.dice, strict=True), start=1
                )
            ],
            "not_predicted": int(self.confusion[1:, 0].sum()),
            "confusion": self.confusion.tolist(),
        }

    def table(self) -> str:
        """Return a text table: one line a class, then mDSC and accuracy."""
        pixels = self.confusion[1:].sum(axis=1)
        rows = [("label", "class", "Dice", "annotated pixels")]
        for label, (name, dice) in enumerate(
            zip(self.class_names, self.dice, strict=True), start=1
        ):
            note = " (background)" if label == self.background else ""
            rows.append(
                (str(label), name + note, _text(dice), f"{pixels[label - 1]:,}")
            )
        rows.append(("", "mDSC", _text(self.mdice), ""))
        rows.append(("", "accuracy", _text(self.accuracy), f"{pixels.sum():,}"))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            f"{a:>{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}"
            for a, b, c, d in rows
        ]
        missed = int(self.confusion[1:, 0].sum())
        if missed:
            lines.append(f"{missed:,} annotated pixels are not predicted: wrong.")
        return "\n".join(line.rstrip() for line in lines)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _text(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "-"


def evaluate(
    predictions: LabelImageSource | Sequence[LabelImageSource],
    labels: TruthSource | Sequence[TruthSource],
    *,
    zero_is_background: bool = False,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    background: int | None = None,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> Evaluation:
    """Compare predictions with label images or outlines, block by block.

    Pixels with truth 0 are not annotated and are left out; a prediction of 0 where
    there is truth is wrong. Several slides are pooled into one confusion matrix.

    Parameters
    ----------
    predictions
        Label images (path, array or pyramid), one or several; classes from 1.
    labels
        The truth, as many and in the same order: label images of the same shape,
        `Annotations`, GeoJSON or project files in pixels of the prediction's finest
        level. The classes that a file names are found by their names.
    zero_is_background
        Value v of label images means class v + 1, and class 1 is the background.
    num_classes
        K; None: from the names, else the largest label.
    class_names
        K names; None: from the prediction, else ``class 1`` ...
    background
        Label left out of mDSC; None: from the prediction, else the class named
        ``background``, if any.
    on_progress
        Called with a `Progress` after each block.
    should_stop
        Asked before each block.

    Raises
    ------
    AnnotationError
        If shapes, numbers or names do not fit, or the values are no class labels.
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
        truth = open_truth(label, predicted, names, zero_is_background)
        opened.append((predicted, truth))
    confusion = np.zeros(((known or 0) + 1,) * 2, dtype=np.int64)
    total = sum(_count_blocks(predicted.shape) for predicted, _ in opened)
    done = 0
    for predicted, truth in opened:
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
    if not names:
        names = _numbered(len(confusion) - 1, zero_is_background)
    return Evaluation(confusion=confusion, class_names=names, background=background)


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
    if size > len(confusion):
        grow = size - len(confusion)
        confusion = np.pad(confusion, ((0, grow), (0, grow)))
    pairs = np.bincount(truth * size + guess, minlength=size * size)
    return np.asarray(confusion + pairs.reshape(size, size), dtype=np.int64)


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
