"""Binary masks among label images: 0 is the background, one large value the object.

What most programs write of one kind of object. Read as labels, 0 would not be annotated
and the object the last one of 255 classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from ..errors import AnnotationError
from ..progress import StopFn, check_stop, never_stop
from .arrays import ArraySource

WHITE = (255, 65535)
"""Values of objects that no number of a class is taken for."""
BLOCK_PIXELS = 2**22
"""Pixels that are looked at at a time."""


def mask_values(
    images: Sequence[ArraySource],
    classes: Sequence[str] | None,
    *,
    explicit: bool = True,
    zero_is_background: bool = False,
    what: str = "label images",
    should_stop: StopFn = never_stop,
) -> Mapping[int, int] | None:
    """Return the label of each pixel value where all images are masks of one object.

    They are if they hold, all together, 0 and one value that can be no class: 255 or
    65535, or one beyond two classes that are named. Images with classes are left after
    their first annotated block.

    Parameters
    ----------
    images
        Label images, (1, *spatial) each.
    classes
        Class names in label order, where known.
    explicit
        The user has named the classes, so that there are no others.
    zero_is_background
        0 was said to be a class.
    what
        What they are, for messages.
    should_stop
        Asked before each block.

    Returns
    -------
    mapping or None
        The background is class 1, the object class 2. None: they are no masks.

    Raises
    ------
    AnnotationError
        If they are masks, but there are other classes than two.
    """
    beyond = 2 - zero_is_background
    named = bool(classes) and explicit and len(classes or ()) == 2
    value = 0
    for image in images:
        found = _only_value(image, value, beyond if named else None, should_stop)
        if found is None:
            return None
        value = found
    if not value:
        return None
    if classes and not _fits(classes, zero_is_background):
        name = classes[0] if len(classes) == 1 else "NAME"
        raise AnnotationError(
            f"The {what} hold only 0 and {value}, as masks do, but the classes are "
            f"{', '.join(classes)}. Write the number of its class in place of {value}, "
            f"or name two classes, the background first (--classes background,{name})."
        )
    return {0: 1, value: 2}


def mask_note(
    values: Mapping[int, int],
    classes: Sequence[str] | None,
    what: str = "label images",
) -> str:
    """Say how masks are read."""
    value = max(values)
    first, second = classes or ("background", "class 2")
    return (
        f"The {what} hold only 0 and {value}: they are read as masks, 0 as {first} and "
        f"{value} as {second}. Where 0 is not annotated, number the classes from 1."
    )


def _fits(classes: Sequence[str], zero_is_background: bool) -> bool:
    first = classes[0].strip().lower() == "background"
    return len(classes) == 2 and (zero_is_background or first)


def _only_value(
    image: ArraySource, known: int, beyond: int | None, should_stop: StopFn
) -> int | None:
    """Value beside 0, ``known`` while there is none; None: several, or a class."""
    if image.shape[0] != 1 or image.dtype.kind == "b":
        return None
    shape = image.shape[1:]
    edge = round(BLOCK_PIXELS ** (1 / len(shape)))
    for lower in itertools.product(*(range(0, n, edge) for n in shape)):
        check_stop(should_stop)
        upper = [min(v + edge, n) for v, n in zip(lower, shape, strict=True)]
        block = image.read(lower, upper)
        values = block[block != 0]
        if not values.size:
            continue
        value = values.flat[0]
        able = value > beyond if beyond is not None else value in WHITE
        if not able or known not in (0, value) or (values != value).any():
            return None
        known = int(value)
    return known
