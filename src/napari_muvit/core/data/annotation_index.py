"""Scan annotations in bounded blocks: how much of each label there is, and where."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError
from ..geometry import Box
from ..progress import StopFn, check_stop, never_stop
from .brush_mask import BrushMask
from .items import Item, Region
from .label_image import LabelImage

if TYPE_CHECKING:
    from .annotations import AnnotationIndex, Annotations

BLOCK_PIXELS = 2**20
"""Pixels of the blocks that are rasterised at a time."""


class _Reservoir:
    """An even sample of a stream that comes in blocks."""

    def __init__(self, size: int, ndim: int, rng: np.random.Generator) -> None:
        self.size = size
        self.rng = rng
        self.seen = 0
        self.points = np.empty((0, ndim), dtype=np.float64)

    def how_many(self, count: int) -> int:
        """How many of the next ``count`` members to take; they are counted."""
        kept = min(self.size, self.seen + count)
        new = (
            int(self.rng.hypergeometric(count, self.seen, kept)) if self.seen else kept
        )
        self.seen += count
        return new

    def put(self, points: NDArray[np.float64]) -> None:
        """Put in new members, in exchange for old ones where it is full."""
        keep = min(len(self.points), self.size - len(points))
        if keep < len(self.points):
            chosen = self.rng.choice(len(self.points), keep, replace=False)
            self.points = self.points[np.sort(chosen)]
        self.points = np.concatenate([self.points, points])


def build_index(
    annotations: Annotations,
    extent: Box,
    num_classes: int,
    seed: int,
    points_per_class: int,
    should_stop: StopFn = never_stop,
) -> AnnotationIndex:
    """Count and sample the annotated pixels; see `Annotations.index`."""
    from .annotations import AnnotationIndex

    if annotations.items and annotations.ndim != extent.ndim:
        raise AnnotationError(
            f"The annotations have {annotations.ndim} spatial axes, their image has "
            f"{extent.ndim}. Outlines lie in a plane: a volume needs a label image."
        )
    rng = np.random.default_rng([seed, 7])
    samples = [
        _Reservoir(points_per_class, extent.ndim, rng) for _ in range(num_classes + 1)
    ]
    step = _step(annotations)
    counts = np.zeros(num_classes + 1, dtype=np.int64)
    for box, labels in _scan(annotations, extent, step, should_stop):
        annotations.check_labels(int(labels.max()), num_classes)
        found = np.bincount(labels.ravel(), minlength=num_classes + 1)
        counts += found
        for k in np.flatnonzero(found[1:]) + 1:
            take = samples[k].how_many(int(found[k]))
            if take:
                flat = np.flatnonzero(labels.ravel() == k)
                flat = np.sort(rng.choice(flat, take, replace=False))
                pixels = np.stack(np.unravel_index(flat, labels.shape), axis=1)
                samples[k].put(np.asarray(box.lower) + (pixels + 0.5) * step)
    # In world pixels, whatever the step of the scan was.
    area = float(np.prod(step))
    counts = np.rint(counts * area).astype(np.int64)
    whole = int(np.rint(np.prod(extent.shape)))
    counts[0] = max(0, whole - int(counts[1:].sum()))
    return AnnotationIndex(counts, tuple(s.points for s in samples))


def largest_label(annotations: Annotations, should_stop: StopFn = never_stop) -> int:
    """Return the largest label there is; 0 without any."""
    bounds = annotations.bounds()
    if bounds is None:
        return 0
    areas = [i.label for i in annotations.items if not isinstance(i, LabelImage)]
    if len(areas) == len(annotations.items):
        return max(areas)
    blocks = _scan(annotations, bounds, _step(annotations), should_stop)
    return max((int(labels.max()) for _, labels in blocks), default=0)


def _step(annotations: Annotations) -> NDArray[np.float64]:
    """World pixels between two samples: the finest pixel among images and masks.

    Outlines have no pixels of their own; they count in world pixels. So do masks that
    are finer, because no crop is read finer than that.
    """
    steps = []
    for item in annotations.items:
        drawn = _pixels_of(item)
        step = (1.0, 1.0) if drawn is None else drawn.step
        steps.append(step if isinstance(drawn, LabelImage) else np.maximum(step, 1.0))
    return np.asarray(np.min(np.asarray(steps or [(1.0, 1.0)]), axis=0))


def _pixels_of(item: Item) -> LabelImage | BrushMask | None:
    """Return what has pixels of its own; None for an outline."""
    inner = item.area if isinstance(item, Region) else item
    return inner if isinstance(inner, LabelImage | BrushMask) else None


def _scan(
    annotations: Annotations,
    extent: Box,
    step: NDArray[np.float64],
    should_stop: StopFn,
) -> Iterator[tuple[Box, NDArray[np.uint8]]]:
    """Rasterised blocks that tile the annotated part of ``extent``."""
    bounds = annotations.bounds()
    part = bounds.intersection(extent) if bounds is not None else None
    if part is None:
        return
    # On the grid of the finest label image or mask: every stored pixel is met once.
    drawn = [found for i in annotations.items if (found := _pixels_of(i)) is not None]
    finest = min(drawn, key=lambda item: float(np.prod(item.step)), default=None)
    anchor = np.asarray(extent.lower if finest is None else finest.lower)
    first = np.ceil((np.asarray(part.lower) - anchor) / step - 0.5 - 1e-6)
    last = np.ceil((np.asarray(part.upper) - anchor) / step - 0.5 - 1e-6)
    low, high = first.astype(int), last.astype(int)
    edge = round(BLOCK_PIXELS ** (1 / extent.ndim))
    aligned = [n // edge * edge for n in low]
    corners = itertools.product(
        *(range(a, h, edge) for a, h in zip(aligned, high, strict=True))
    )
    for corner in corners:
        check_stop(should_stop)
        start = np.maximum(corner, low)
        stop = np.minimum(np.asarray(corner) + edge, high)
        if np.any(stop <= start):
            continue
        box = Box(tuple(anchor + start * step), tuple(anchor + stop * step))
        if annotations.touches(box):
            yield box, annotations.rasterise(box, tuple(int(n) for n in stop - start))
