"""What helps to correct a prediction: where to look, and its labels as outlines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ..core.config import PredictionConfig
from ..core.data.polygons import Polygon
from ..core.data.pyramid import Pyramid
from ..core.data.tissue import cheap_to_look_at, find_tissue
from ..core.errors import AnnotationError
from ..core.export.outlines import outline_labels
from ..core.geometry import Box
from ..core.prediction.outlined import polygons_of
from ..core.prediction.suggestions import Suggestion, uncertain_places
from ..core.prediction_config import Outlines
from ..core.progress import Progress
from .base import Commands

if TYPE_CHECKING:
    from ..core.prediction.context_difference import ContextDifference

MOST_PIXELS = 2048**2
"""Of the labels that are outlined at once; a larger area is read coarser."""
LEAST_PIXELS = 12
"""Of them: smaller parts are noise, and count as what is around them."""
MOST_PARTS = 400
"""Outlines that can still be edited."""


@dataclass(frozen=True, slots=True)
class UncertainTask:
    """Find the places of a prediction about which the model is least sure."""

    prediction: Path
    image: Pyramid
    size: int
    """Edge of a place, slide pixels."""
    count: int = 5

    def __str__(self) -> str:
        return "MuViT suggestions"

    __repr__ = __str__

    def __call__(
        self,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
        commands: Commands,
    ) -> tuple[Suggestion, ...]:
        """Call `uncertain_places`, inside tissue where that is seen at a glance."""
        tissue = None
        if cheap_to_look_at(self.image):
            found = find_tissue(self.image, should_stop=should_stop)
            tissue = found if found.mask.any() else None
        return uncertain_places(self.prediction, self.size, self.count, tissue=tissue)


@dataclass(frozen=True, slots=True)
class ContextTask:
    """Predict a region with and without context."""

    image: Pyramid
    model: Path
    config: PredictionConfig
    region: Box
    """Slide pixels."""
    size: int
    """Edge of the places that are named, slide pixels."""
    count: int = 5

    def __str__(self) -> str:
        return "MuViT context"

    __repr__ = __str__

    def __call__(
        self,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
        commands: Commands,
    ) -> ContextDifference:
        """Call `context_difference`."""
        from ..core.prediction.context_difference import context_difference

        return context_difference(
            self.image, self.model, self.config,
            (*self.region.lower, *self.region.upper),
            size=self.size, count=self.count,
            on_progress=on_progress, should_stop=should_stop,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class OutlineTask:
    """Outline the labels of a prediction in a part of the slide."""

    prediction: Path
    box: Box
    """Slide pixels."""
    outlines: Outlines = ()
    """Only what lies inside these; empty: all of the box."""

    def __str__(self) -> str:
        return "MuViT outlines"

    __repr__ = __str__

    def __call__(
        self,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        tell: Callable[[object], None],
        commands: Commands,
    ) -> tuple[Polygon, ...]:
        """Read the labels at a level of about the size of a screen.

        Returns
        -------
        tuple of Polygon
            In slide pixels, with the labels of the prediction, later ones on top.

        Raises
        ------
        AnnotationError
            If nothing is predicted there, or too many parts to be edited.
        """
        labels, offset, step = self._read()
        if self.outlines:
            labels = np.where(self._inside(labels.shape, offset, step), labels, 0)
        found = outline_labels(
            np.asarray(labels, dtype=np.uint8), offset=offset, step=(step, step),
            least=LEAST_PIXELS,
        )  # fmt: skip
        if not found:
            raise AnnotationError(
                "Nothing is predicted there; predict this part of the slide first."
            )
        if len(found) > MOST_PARTS:
            raise AnnotationError(
                f"{len(found)} regions are predicted there; up to {MOST_PARTS} can be "
                "edited at once. Zoom in, or select a smaller region."
            )
        return tuple(_stacked(found, _unknown(labels, offset, step)))

    def _read(self) -> tuple[NDArray[np.uint8], tuple[int, int], int]:
        """Labels, place of their first pixel, and slide pixels per pixel."""
        names = sorted(
            (p.name for p in self.prediction.iterdir() if p.name.isdigit()), key=int
        )
        level = 0
        while math.prod(n / 2**level for n in self.box.shape) > MOST_PIXELS:
            level += 1
        level = min(level, len(names) - 1)
        array: zarr.Array[Any] = zarr.open_array(
            self.prediction / names[level], mode="r"
        )
        step = 2**level
        rows, columns = (
            slice(max(0, math.floor(low / step)), min(size, math.ceil(high / step)))
            for low, high, size in zip(
                self.box.lower, self.box.upper, array.shape, strict=True
            )
        )
        labels = np.asarray(array[rows, columns], dtype=np.uint8)
        return labels, (rows.start * step, columns.start * step), step

    def _inside(
        self, shape: tuple[int, ...], offset: tuple[int, int], step: int
    ) -> NDArray[np.bool_]:
        inside = np.zeros(shape, dtype=np.uint8)
        upper = tuple(o + n * step for o, n in zip(offset, shape, strict=True))
        for polygon in polygons_of(self.outlines):
            polygon.fill(inside, Box(offset, upper))
        return np.asarray(inside > 0)


def _unknown(
    labels: NDArray[Any], offset: tuple[int, int], step: int
) -> NDArray[np.float64]:
    """Places (n, 2) of the pixels without a label."""
    return np.asarray(np.argwhere(labels == 0) * float(step) + offset)


def _stacked(items: Iterable[Polygon], unknown: NDArray[np.float64]) -> list[Polygon]:
    """Put parts that lie in holes of others on top of them, and close the holes.

    So a background around hundreds of cells is one plain outline. Noise that was left
    out takes the class of what is around it. Holes with unknown pixels stay.
    """

    def is_known(hole: NDArray[np.float64]) -> bool:
        low, high = hole.min(axis=0), hole.max(axis=0)
        return not ((unknown >= low) & (unknown < high)).all(axis=1).any()

    plain = [
        dataclasses.replace(
            item, holes=tuple(hole for hole in item.holes if not is_known(hole))
        )
        for item in items
    ]
    # What lies in a hole of another part has a smaller outline.
    return sorted(plain, key=lambda item: -_outline_area(item))


def _outline_area(item: Polygon) -> float:
    y, x = item.vertices.T
    return abs(float(np.dot(y, np.roll(x, 1)) - np.dot(x, np.roll(y, 1)))) / 2
