"""Where a model in training errs most: places to look at, and to annotate more."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..data.pyramid import Pyramid
from ..geometry import Box

REMEMBERED = 256
"""Crops that are looked back at."""


LEAST_WRONG = 0.01
"""Share of a crop's annotated pixels, below which nobody has to look."""


@dataclass(frozen=True, slots=True)
class HardPlace:
    """A crop of the training, and how much of it was wrong before it was learned."""

    slide: int
    """Number of the slide, from 0."""
    box: Box
    """In pixels of the slide's finest level."""
    wrong: float
    """Share of its annotated pixels."""


class HardPlaces:
    """Remembers the last crops of a training and finds the worst of them."""

    def __init__(self) -> None:
        self._seen: deque[HardPlace] = deque(maxlen=REMEMBERED)

    def add(self, slide: int, pyramid: Pyramid, box: Box, wrong: float) -> None:
        """Remember a crop.

        Parameters
        ----------
        slide
            Number of the slide.
        pyramid
            The slide as the model sees it.
        box
            World box of the finest crop.
        wrong
            Share of its annotated pixels that were wrong.
        """
        pixels = [
            tuple(v / z for v, z in zip(corner, pyramid.zoom, strict=True))
            for corner in (box.lower, box.upper)
        ]
        self._seen.append(HardPlace(slide, Box(pixels[0], pixels[1]), wrong))

    def worst(self, most: int) -> list[HardPlace]:
        """Return up to ``most`` places, the worst first, none upon another.

        Where a place was seen several times, the last time counts.
        """
        newest: list[HardPlace] = []
        for place in reversed(self._seen):
            if not any(_overlap(place, other) for other in newest):
                newest.append(place)
        newest.sort(key=lambda place: -place.wrong)
        return [place for place in newest[:most] if place.wrong >= LEAST_WRONG]


def _overlap(one: HardPlace, other: HardPlace) -> bool:
    return one.slide == other.slide and _meet(
        (one.box.lower, one.box.upper), (other.box.lower, other.box.upper)
    )


def _meet(
    one: tuple[Sequence[float], Sequence[float]],
    other: tuple[Sequence[float], Sequence[float]],
) -> bool:
    return all(
        low < high
        for low, high in zip(
            map(max, one[0], other[0]), map(min, one[1], other[1]), strict=True
        )
    )
