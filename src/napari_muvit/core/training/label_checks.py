"""Whether enough is annotated: said before a training, refused where nothing can come.

The numbers of places follow what tools for pathologists advise for outlines and brush
strokes. Places are separate outlines and strokes, or annotated pixels that lie a crop
apart, whichever are more: ten nuclei in one crop are ten, and so is one region of ten
crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..data.amounts import LEAST_PIXELS, PLACES
from ..data.brush_mask import BrushMask
from ..data.items import Item, Region
from ..data.label_image import LabelImage
from ..data.sampling import HoldOut, TrainingSlide
from ..errors import AnnotationError

UNEVEN = 100
"""So many times the pixels of another class are worth a word."""
MANY = 200
"""Places of a class; more are not counted."""
MAX_NAMED = 5
"""Classes that a line names."""
MAX_MASK = 2**24
"""Pixels of a brush mask whose strokes are counted; a larger one counts as one."""


@dataclass(frozen=True, slots=True)
class ClassAmount:
    """How much of one class there is on one side of the hold-out."""

    label: int
    pixels: int
    """Annotated world pixels."""
    places: int
    """Outlines, strokes, or pixels a crop apart; up to `MANY`."""


def label_notes(
    slides: Sequence[TrainingSlide],
    config: ModelConfig,
    hold_outs: Sequence[HoldOut | None],
    *,
    validation: Sequence[TrainingSlide] = (),
) -> tuple[str, ...]:
    """What the user should know of the annotations, a line each.

    Classes with few places or pixels, very uneven classes, classes that are missing on
    one side, and how is validated. Classes without any pixel are told by `prepare`.

    Parameters
    ----------
    slides
        What is trained on.
    config
        Of the model.
    hold_outs
        One a slide; None where nothing is held out.
    validation
        Slides of their own to validate on; empty: the held-out part is used.
    """
    drawn = class_amounts(slides, config, [None] * len(slides))
    amounts = class_amounts(slides, config, hold_outs)
    marked = [a for a in drawn if a.pixels]
    poor = _poor(marked) if marked else []
    enough = [a for a in marked if a not in poor]
    notes = [_few_note(poor, len(marked), config), _uneven_note(enough, config)]
    found = [a for a in amounts if a.pixels]
    gone = [
        a.label
        for a in amounts
        if not a.pixels and any(s.index.counts[a.label] for s in slides)
    ]
    if gone:
        notes.append(
            f"Nothing of {_names(gone, config)} is left to train on: all of it is held "
            "out for validation. Annotate more of it."
        )
    notes += _validation_notes(slides, config, hold_outs, validation, found)
    return tuple(note for note in notes if note)


def check_learnable(
    slides: Sequence[TrainingSlide], config: ModelConfig, *, start_knows: bool = False
) -> None:
    """Refuse annotations out of which nothing can be learnt.

    Parameters
    ----------
    slides
        What is to be trained on.
    config
        Of the model.
    start_knows
        Whether the run goes on from a segmenter of these classes: it may be corrected
        on one of them.

    Raises
    ------
    AnnotationError
        If there is one class only, or one annotated one, with what to do.
    """
    if config.num_classes == 1:
        name = config.names[0]
        raise AnnotationError(
            f"There is only one class, {name!r}, so there is nothing to tell it "
            f"from. Annotate what is not {name} too, as a class such as background; in "
            "label images --zero-is-background makes one of 0."
        )
    counts = np.sum([slide.index.counts for slide in slides], axis=0)
    labels = [k for k in range(1, config.num_classes + 1) if counts[k]]
    if len(labels) == 1 and not start_knows:
        raise AnnotationError(
            f"Only {config.names[labels[0] - 1]} is annotated, one of "
            f"{config.num_classes} classes, so the model would see it everywhere. "
            "Annotate another class too, such as background; where 0 is the background "
            "of a label image, --zero-is-background makes a class of it."
        )


def class_amounts(
    slides: Sequence[TrainingSlide],
    config: ModelConfig,
    hold_outs: Sequence[HoldOut | None],
    *,
    held: bool = False,
) -> tuple[ClassAmount, ...]:
    """How much there is of each class 1..K on one side of the hold-outs.

    Parameters
    ----------
    slides, config, hold_outs
        See `label_notes`.
    held
        The held-out side instead of the one that is trained on.
    """
    labels = range(1, config.num_classes + 1)
    pixels, places = np.zeros((2, config.num_classes + 1), dtype=np.int64)
    edge = config.crop_size * config.scale_factors[0]
    for slide, out in zip(slides, hold_outs, strict=True):
        drawn = _drawn(slide, out, held, config.num_classes)
        for k in labels:
            points = slide.index.points[k]
            if not len(points):
                continue
            here = _on_side(points, out, held)
            share = float(here.mean())
            pixels[k] += round(share * int(slide.index.counts[k]))
            if here.any():
                apart = _apart(points[here], edge, MANY - int(places[k]))
                places[k] = min(MANY, places[k] + max(apart, drawn[k]))
    return tuple(ClassAmount(k, int(pixels[k]), int(places[k])) for k in labels)


def _apart(points: NDArray[np.float64], distance: float, most: int) -> int:
    """How many of the points lie pairwise so far apart along some axis, up to most."""
    count = 0
    while len(points) and count < most:
        count += 1
        near = (np.abs(points - points[0]) < distance).all(axis=1)
        points = points[~near]
    return count


def _on_side(
    points: NDArray[np.float64], out: HoldOut | None, held: bool
) -> NDArray[np.bool_]:
    if out is None:
        return np.full(len(points), not held)
    return np.asarray(out.at(points) == held)


def _drawn(
    slide: TrainingSlide, out: HoldOut | None, held: bool, num_classes: int
) -> NDArray[np.int64]:
    """Outlines and strokes of each label, (K + 1,), on one side by their centres."""
    extent = slide.pyramid.extent
    counts = np.zeros(num_classes + 1, dtype=np.int64)
    items = [
        item
        for item in slide.annotations.items
        if not isinstance(item, (LabelImage, Region))
    ]
    if not items:
        return counts
    lower = np.array([item.lower for item in items])
    upper = np.array([item.upper for item in items])
    here = ((upper > extent.lower) & (lower < extent.upper)).all(axis=1)
    here &= _on_side((lower + upper) / 2, out, held)
    for number in np.flatnonzero(here):
        counts[items[number].label] += _strokes(items[number])
    return counts


def _strokes(item: Item) -> int:
    """Separate strokes of a brush mask; an outline is one."""
    if not isinstance(item, BrushMask) or item.mask.size > MAX_MASK:
        return 1
    from scipy import ndimage

    # Pixels that touch at a corner belong to one stroke.
    return int(ndimage.label(item.mask, np.ones((3, 3)))[1])


def _least(classes: int) -> tuple[int, int]:
    """Places of each class: the least, and what is advised."""
    return next((least, advised) for most, least, advised in PLACES if classes <= most)


def _poor(found: Sequence[ClassAmount]) -> list[ClassAmount]:
    least, _ = _least(len(found))
    return [a for a in found if a.places < least or a.pixels < LEAST_PIXELS]


def _few_note(poor: Sequence[ClassAmount], classes: int, config: ModelConfig) -> str:
    if not poor:
        return ""
    least, advised = _least(classes)
    named = [
        f"{config.names[a.label - 1]} ({_counted(a.places, 'place')}, {a.pixels:,} px)"
        for a in poor[:MAX_NAMED]
    ]
    return (
        f"Little is annotated of {_listed(named, len(poor))}: each of "
        f"{_counted(classes, 'class')} should have at least {least} places and "
        f"{LEAST_PIXELS:,} px, better {advised} places. A place is an outline, a "
        "stroke, or as much of a larger area as a crop shows."
    )


def _uneven_note(found: Sequence[ClassAmount], config: ModelConfig) -> str:
    if not found:
        return ""
    most = max(found, key=lambda a: a.pixels)
    rare = [a for a in found if a.pixels * UNEVEN < most.pixels]
    if not rare:
        return ""
    return (
        f"{config.names[most.label - 1]} has over {UNEVEN} times the annotated pixels "
        f"of {_names([a.label for a in rare], config)}. Rare classes are drawn more "
        "often and weigh more, which helps only so far; annotate more of them."
    )


def _validation_notes(
    slides: Sequence[TrainingSlide],
    config: ModelConfig,
    hold_outs: Sequence[HoldOut | None],
    validation: Sequence[TrainingSlide],
    found: Sequence[ClassAmount],
) -> list[str]:
    """How is validated, and which classes it shows nothing of."""
    if validation:
        nothing: list[HoldOut | None] = [None] * len(validation)
        shown = class_amounts(validation, config, nothing)
        return [_unseen_note(shown, found, config)]
    outs = [out for out in hold_outs if out is not None]
    if not outs:
        return [
            "No annotations are held out: there are too few, or it was asked for. "
            "Validation shows how well the training labels are fitted, not how well "
            "the model will do elsewhere."
        ]
    shown = class_amounts(slides, config, hold_outs, held=True)
    held, kept = sum(a.pixels for a in shown), sum(a.pixels for a in found)
    edges = sorted({out.edge for out in outs})
    blocks = " to ".join(f"{e:g}" for e in dict.fromkeys((edges[0], edges[-1])))
    note = (
        f"Validation is on {100 * held / max(1, held + kept):.0f} % of the annotated "
        f"pixels, held out by place in blocks of {blocks} px. They are of the same "
        "slides as the rest, so its figures flatter; validation slides tell more."
    )
    return [_unseen_note(shown, found, config), note]


def _unseen_note(
    shown: Sequence[ClassAmount], found: Sequence[ClassAmount], config: ModelConfig
) -> str:
    trained = {a.label for a in found}
    unseen = [a.label for a in shown if a.label in trained and not a.pixels]
    if not unseen:
        return ""
    return (
        f"Validation shows nothing of {_names(unseen, config)}: how well the model "
        "knows that is not measured."
    )


def _names(labels: Sequence[int], config: ModelConfig) -> str:
    named = [config.names[k - 1] for k in labels[:MAX_NAMED]]
    return _listed(named, len(labels))


def _listed(named: Sequence[str], count: int) -> str:
    """a, b and c; or, of more, the first ones and how many follow."""
    if count > len(named):
        return f"{', '.join(named)} and {count - len(named)} more"
    *first, last = named
    return f"{', '.join(first)} and {last}" if first else last


def _counted(count: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"1 {what}" if count == 1 else f"{count:,} {plural}"
