"""Where to crop: places drawn from the annotations, and places held out.

Every draw is seeded by the sample's index, so it does not depend on order or workers.
Coordinates are world coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..checks import require
from ..config import ModelConfig
from ..geometry import Box, NestedCrop, nest, place_fine
from .annotations import AnnotationIndex, Annotations
from .crops import SlideNormalisation
from .pyramid import Pyramid
from .tissue import TissueMask

Points = NDArray[np.float64]
MIN_CELLS = 12
"""Annotated cells that a slide should fall into before some are held out."""


@dataclass(frozen=True, eq=False)
class PlainSlide:
    """One slide without annotations, ready to be sampled."""

    pyramid: Pyramid
    """Viewed at the model's pixel size."""
    normalisation: SlideNormalisation
    """The slide's numbers."""
    tissue: TissueMask | None = None
    """Where to sample; None: everywhere."""


@dataclass(frozen=True, eq=False)
class TrainingSlide:
    """One annotated slide ready to be sampled."""

    pyramid: Pyramid
    """Viewed at the model's pixel size."""
    annotations: Annotations
    """In the world coordinates of ``pyramid``."""
    normalisation: SlideNormalisation
    """The slide's numbers."""
    index: AnnotationIndex
    """Annotated pixels and places of each label."""


@dataclass(frozen=True, eq=False)
class HoldOut:
    """Square cells of a slide whose labels are kept for validation.

    Training never sees a label inside a held-out cell and validation sees none
    outside, so no annotated pixel serves both. The places are still neighbours on one
    slide: an honest figure needs other slides.
    """

    edge: float
    """Edge of a cell, world pixels."""
    origin: tuple[float, ...]
    """World position of cell (0, 0)'s lower corner."""
    held: NDArray[np.bool_]
    """Whether each cell is held out; outside the array none is."""

    def at(self, points: Points) -> NDArray[np.bool_]:
        """Whether each of the points (n, N) lies in a held-out cell."""
        cells = np.floor((points - np.asarray(self.origin)) / self.edge).astype(int)
        inside = ((cells >= 0) & (cells < self.held.shape)).all(axis=1)
        safe = np.clip(cells, 0, np.asarray(self.held.shape) - 1)
        return np.asarray(inside & self.held[tuple(safe.T)])

    def mask(self, box: Box, shape: Sequence[int]) -> NDArray[np.bool_]:
        """Whether the centre of each pixel of ``box`` lies in a held-out cell."""
        # A rim of cells that are not held out stands for all that lies outside.
        held = np.pad(self.held, 1)
        for axis, count in enumerate(shape):
            step = box.shape[axis] / count
            centres = box.lower[axis] + step * (np.arange(count) + 0.5)
            index = np.floor((centres - self.origin[axis]) / self.edge).astype(int)
            index = np.clip(index + 1, 0, self.held.shape[axis] + 1)
            held = np.take(held, index, axis=axis)
        return held


def hold_out(
    index: AnnotationIndex, crop_extent: float, share: float, seed: int
) -> HoldOut | None:
    """Choose annotated cells of a slide for validation.

    The cells are as large as leaves at least `MIN_CELLS` of them annotated, between
    four crops and a quarter of one. Each class keeps places to train on.

    Parameters
    ----------
    index
        The slide's annotated places.
    crop_extent
        Edge of the finest crop, world pixels.
    share
        Share of the annotated places to hold out.
    seed
        Of the choice.

    Returns
    -------
    HoldOut or None
        None where the annotation is too small to be split, or ``share`` is 0.
    """
    labelled = [(k, p) for k, p in enumerate(index.points) if k and len(p)]
    if share <= 0 or not labelled:
        return None
    points = np.concatenate([p for _, p in labelled])
    labels = np.concatenate([np.full(len(p), k) for k, p in labelled])
    origin = points.min(axis=0) - 0.5
    for ratio in (4.0, 2.0, 1.0, 0.5, 0.25):
        edge = crop_extent * ratio
        cells = np.floor((points - origin) / edge).astype(int)
        shape = tuple(int(v) for v in cells.max(axis=0) + 1)
        flat = np.ravel_multi_index(tuple(cells.T), shape)
        if len(np.unique(flat)) >= MIN_CELLS:
            break
    else:
        if len(np.unique(flat)) < 4:
            return None
    chosen = _choose_cells(flat, labels, share, np.random.default_rng(seed))
    held = np.zeros(int(np.prod(shape)), dtype=bool)
    held[chosen] = True
    return HoldOut(edge, tuple(float(v) for v in origin), held.reshape(shape))


def _choose_cells(
    flat: NDArray[np.intp],
    labels: NDArray[np.intp],
    share: float,
    rng: np.random.Generator,
) -> list[int]:
    """Cells to hold out: each class represented where it can be, training kept."""
    classes = np.unique(labels)
    per_class = {int(k): np.unique(flat[labels == k]) for k in classes}
    chosen: set[int] = set()

    def may_take(cell: int) -> bool:
        # A class must keep a cell to train on.
        return all(
            len(set(cells.tolist()) - chosen - {cell}) > 0
            for cells in per_class.values()
            if cell in cells
        )

    rare_first = sorted(per_class, key=lambda k: len(per_class[k]))
    for k in rare_first:
        cells = per_class[k]
        if len(cells) > 1 and not chosen & set(cells.tolist()):
            candidate = int(rng.choice(cells))
            if may_take(candidate):
                chosen.add(candidate)
    cells, counts = np.unique(flat, return_counts=True)
    size = dict(zip(cells.tolist(), counts.tolist(), strict=True))
    wanted = share * len(flat)
    for cell in rng.permutation(cells).tolist():
        if sum(size[c] for c in chosen) >= wanted:
            break
        if cell not in chosen and may_take(cell):
            chosen.add(cell)
    return sorted(chosen)


@dataclass(frozen=True, eq=False)
class DrawnCrop:
    """One place: which slide, which nested boxes."""

    slide: int
    crop: NestedCrop


class UniformSampler:
    """Draw nested crops anywhere, or wherever there is tissue.

    Parameters
    ----------
    slides
        Slides to draw from.
    config
        Crop edge and factors.
    seed
        With the sample's index it fixes the draw.
    weights
        Relative chance of each slide; None: all the same.

    Raises
    ------
    ConfigError
        If the weights do not fit, or there is no slide.
    """

    def __init__(
        self,
        slides: Sequence[PlainSlide],
        config: ModelConfig,
        *,
        seed: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.slides = tuple(slides)
        self.config = config
        self.seed = seed
        self._chances = _chances(weights, len(self.slides))

    def draw(self, sample: int) -> DrawnCrop:
        """Draw the crop of a sample index."""
        rng = np.random.default_rng([self.seed, sample])
        number = _choose(self._chances, rng)
        slide = self.slides[number]
        tissue = slide.tissue
        if tissue is not None and tissue.mask.any():
            # Some tissue lies anywhere in the crop, not in its middle.
            return DrawnCrop(
                number,
                crop_around(tissue.draw(1, rng)[0], slide.pyramid, self.config, rng),
            )
        extent = slide.pyramid.extent
        edge = self.config.crop_size * self.config.scale_factors[0]
        # So that every place of the slide is in a crop, its border too.
        room = np.maximum(np.asarray(extent.shape) - edge, 0)
        centre = np.asarray(extent.lower) + edge / 2 + rng.random(len(room)) * room
        fine = place_fine(tuple(centre), (edge,) * extent.ndim, extent)
        return DrawnCrop(number, nest(fine, self.config.scale_factors, extent, rng))


class CropSampler:
    """Draw nested crops at annotated places.

    Parameters
    ----------
    slides
        Slides to draw from; one is chosen by its weight among those that have the
        wanted label.
    config
        Crop edge, factors, classes.
    foreground_share
        Share of draws around a pixel of a foreground class, classes equally often; the
        rest are around any annotated pixel.
    seed
        With the sample's index it fixes the draw.
    hold_outs
        One a slide; None where nothing is held out.
    held_only
        Draw from the held-out cells (validation) instead of the others.
    weights
        Relative chance of each slide; None: all the same.

    Raises
    ------
    ConfigError
        If the weights do not fit.
    """

    def __init__(
        self,
        slides: Sequence[TrainingSlide],
        config: ModelConfig,
        *,
        foreground_share: float,
        seed: int,
        hold_outs: Sequence[HoldOut | None] | None = None,
        held_only: bool = False,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.slides = tuple(slides)
        self.config = config
        self.foreground_share = foreground_share
        self.seed = seed
        outs = hold_outs or [None] * len(slides)
        self._chances = _chances(weights, len(self.slides))
        self._points = [
            _filtered(slide.index, out, held_only) if chance > 0 else []
            for slide, out, chance in zip(slides, outs, self._chances, strict=True)
        ]
        labels = range(1, config.num_classes + 1)
        self._holders = {
            k: [s for s, points in enumerate(self._points) if points and len(points[k])]
            for k in labels
        }
        self._foreground = [k for k in config.foreground if self._holders[k]]
        self._any = [
            s for s, points in enumerate(self._points) if any(len(p) for p in points)
        ]

    @property
    def empty(self) -> bool:
        """Whether there is no place to draw from."""
        return not self._any

    def draw(self, sample: int) -> DrawnCrop:
        """Draw the crop of a sample index."""
        rng = np.random.default_rng([self.seed, sample])
        slide, point = self._place(rng)
        pyramid = self.slides[slide].pyramid
        return DrawnCrop(slide, crop_around(point, pyramid, self.config, rng))

    def _place(self, rng: np.random.Generator) -> tuple[int, Points]:
        if self._foreground and rng.random() < self.foreground_share:
            label = self._foreground[int(rng.integers(len(self._foreground)))]
            slide = self._slide(self._holders[label], rng)
        else:
            slide = self._slide(self._any, rng)
            label = self._weighted_label(slide, rng)
        points = self._points[slide][label]
        return slide, points[int(rng.integers(len(points)))]

    def _slide(self, candidates: Sequence[int], rng: np.random.Generator) -> int:
        """Choose one of some slides by their weights."""
        return candidates[_choose(self._chances[list(candidates)], rng)]

    def _weighted_label(self, slide: int, rng: np.random.Generator) -> int:
        """Draw a label in proportion to its annotated area."""
        counts = np.asarray(self.slides[slide].index.counts, dtype=np.float64).copy()
        counts[0] = 0
        for k, points in enumerate(self._points[slide]):
            if not len(points):
                counts[k] = 0
        total = counts.sum()
        if total <= 0:
            counts = np.array([float(len(p) > 0) for p in self._points[slide]])
            counts[0] = 0
            total = counts.sum()
        return int(rng.choice(len(counts), p=counts / total))


def crop_around(
    point: Points, pyramid: Pyramid, config: ModelConfig, rng: np.random.Generator
) -> NestedCrop:
    """Draw a nested crop with ``point`` anywhere in its finest box."""
    edge = np.full(config.ndim, float(config.crop_size)) * config.scale_factors[0]
    centre = point + (rng.random(len(point)) - 0.5) * (edge - 1)
    fine = place_fine(tuple(centre), tuple(edge), pyramid.extent)
    return nest(fine, config.scale_factors, pyramid.extent, rng)


def _chances(weights: Sequence[float] | None, count: int) -> NDArray[np.float64]:
    """Relative weights, one a slide, as chances."""
    require(count > 0, "No slide was given; at least one is needed.", "slides")
    values = np.ones(count) if weights is None else np.asarray(weights, dtype=float)
    require(
        values.shape == (count,)
        and bool(np.isfinite(values).all() and (values >= 0).all() and values.any()),
        f"The weights of the slides are {weights}; {count} numbers from 0 that are not "
        "all 0 are needed, one a slide.",
        "weights",
    )
    return np.asarray(values / values.sum(), dtype=np.float64)


def _choose(chances: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Draw an index by relative chances."""
    steps = np.cumsum(chances)
    chosen = int(np.searchsorted(steps, rng.random() * steps[-1], side="right"))
    return min(chosen, len(steps) - 1)


def _filtered(
    index: AnnotationIndex, out: HoldOut | None, held_only: bool
) -> list[Points]:
    """Places of each label that belong to this side of the hold-out."""
    points = [np.asarray(p, dtype=np.float64) for p in index.points]
    if points:
        points[0] = points[0][:0]
    if out is None:
        return points
    return [p[out.at(p) == held_only] if len(p) else p for p in points]
