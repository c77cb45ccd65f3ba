"""Where on a slide there is tissue, from a coarse look at it.

Background is what is flat. Its level is the most frequent value among the flat places,
its noise is seen on the side of that level on which there is no tissue, and tissue is
what differs by more than that noise, on the other side. So faint tissue with a few
bright cells is found, which a threshold between two peaks (Otsu's) cuts away.

In stained slides only bright, colourless places can be background (glass).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..geometry import Box, Vector
from ..progress import StopFn, check_stop, never_stop
from .level_reading import LARGEST
from .pyramid import Pyramid

LONGEST = 1024
"""Pixels of the mask along the longest axis."""
STRIP = 64
"""Rows of the mask that are read at a time where that is not cheap."""
CHEAP_PIXELS = 2**25
"""Read in a second or two."""
GLASS = 200.0
"""Of 255: glass is brighter in each channel."""
LEAST_GLASS = 1e-3
"""Share of a stained slide from which on it is taken to show glass."""
DARK = 64.0
"""Of 255: a coloured picture whose border is mostly below this is fluorescence."""
FLAT_SHARE = 0.3
"""Share of the slide, the flattest, in which the background is looked for."""
NOISES = 4.0
"""Tissue differs from the background by so many deviations of its noise."""
LEAST_STAIN, LEAST_SIGNAL = 0.02, 0.003
"""And at least by this share of the range of values: faint and sparse signal counts."""
LEAST_FOUND = 0.005
"""Share of a slide; less tissue than that means that the background was not found."""
FINE, WIDE = 1.5, 8.0
"""Deviation of the smoothing, pixels of the mask: for stains, and for sparse signal."""
GAP = 20
"""Pixels of the mask: narrower gaps between sparse signals belong to the tissue."""
FURTHEST = 1e4
"""Ranges of values; what lies further from them is no pixel."""
SMALLEST_SHARE = 2e-4
"""Of the slide: smaller pieces are dust, and smaller holes are filled."""

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue on a coarse grid over the slide."""

    mask: Mask
    """(*spatial), true for tissue."""
    extent: Box
    """World box that the mask covers, edge to edge."""
    background: Literal["bright", "dark", "none"]
    """What the background looks like; ``none``: none was found."""

    @property
    def step(self) -> Vector:
        """World pixels per pixel of the mask along each axis."""
        return tuple(
            e / n for e, n in zip(self.extent.shape, self.mask.shape, strict=True)
        )

    @property
    def share(self) -> float:
        """Share of the slide that is tissue."""
        return float(self.mask.mean())

    def at(self, points: NDArray[np.float64]) -> Mask:
        """Whether each of the world points (n, N) lies in tissue; outside: no."""
        place = (np.asarray(points) - self.extent.lower) / self.step
        cells = np.floor(place).astype(np.intp)
        inside = ((cells >= 0) & (cells < self.mask.shape)).all(axis=1)
        safe = np.clip(cells, 0, np.asarray(self.mask.shape) - 1)
        return np.asarray(inside & self.mask[tuple(safe.T)])

    def touches(self, box: Box) -> bool:
        """Whether there is tissue in a world box; a part of a mask pixel counts."""
        spans = []
        for axis, size in enumerate(self.mask.shape):
            low = (box.lower[axis] - self.extent.lower[axis]) / self.step[axis]
            high = (box.upper[axis] - self.extent.lower[axis]) / self.step[axis]
            first, last = max(0, int(np.floor(low))), min(size, int(np.ceil(high)))
            if last <= first:
                return False
            spans.append(slice(first, last))
        return bool(self.mask[tuple(spans)].any())

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """World points (count, N), each place in tissue with the same chance.

        Raises
        ------
        ValueError
            If there is no tissue.
        """
        cells = np.flatnonzero(self.mask)
        if not len(cells):
            raise ValueError("There is no tissue to draw a place from.")
        chosen = np.unravel_index(rng.choice(cells, count), self.mask.shape)
        place = np.stack(chosen, axis=1) + rng.random((count, self.mask.ndim))
        return np.asarray(place * self.step + self.extent.lower)


def cheap_to_look_at(pyramid: Pyramid) -> bool:
    """Whether `find_tissue` reads little: the slide is small, or has a coarse level."""
    wanted = max(1.0, max(pyramid.extent.shape) / LONGEST)
    finer = [lv.shape for lv in pyramid.levels if max(lv.scale) <= 1.01 * wanted]
    return math.prod((finer or [pyramid.shape])[-1]) <= CHEAP_PIXELS


def find_tissue(
    pyramid: Pyramid, longest: int = LONGEST, should_stop: StopFn = never_stop
) -> TissueMask:
    """Look at the whole slide once, coarsely.

    Reads the nearest finer stored level, in bounded pieces: cheap where there is a
    coarse level, a pass over the pixels where there is none.

    Parameters
    ----------
    pyramid
        The slide.
    longest
        Pixels of the mask along the longest axis; fewer for smaller slides.
    should_stop
        Asked while a slide without coarse levels is read.

    Returns
    -------
    TissueMask
        All true where no background is found.

    Raises
    ------
    Cancelled
        If ``should_stop`` said so.
    """
    extent = pyramid.extent
    factor = max(1.0, max(extent.shape) / longest)
    shape = [max(1, round(e / factor)) for e in extent.shape]
    # A whole number of pixels may reach a little beyond the slide.
    upper = tuple(v + n * factor for v, n in zip(extent.lower, shape, strict=True))
    box = Box(extent.lower, upper)
    picture = _look(pyramid, box, factor, shape, should_stop)
    known = np.abs(picture) <= LARGEST  # false for NaN
    picture[~known] = np.median(picture[known]) if known.any() else 0.0
    if pyramid.rgb and pyramid.dtype != np.uint8:
        # Floats run to 1, cameras of 12 bits to 4095.
        brightest = np.float32(np.percentile(picture, 99.5))
        picture *= 255 / max(brightest, np.finfo(np.float32).tiny)
    if pyramid.rgb and not _is_dark(picture):
        mask, background = _stained(picture)
    else:
        mask, background = _by_contrast(picture)
    if mask.all() or background == "none":
        return TissueMask(np.ones(shape, dtype=bool), box, "none")
    return TissueMask(_tidied(mask), box, background)  # type: ignore[arg-type]


def _look(
    pyramid: Pyramid,
    box: Box,
    factor: float,
    shape: list[int],
    should_stop: StopFn,
) -> Floats:
    """Read the whole slide, (C, *shape); NaN beyond it."""
    if cheap_to_look_at(pyramid):
        return pyramid.read(box, factor, shape, fill=np.nan)
    strips = []
    for first in range(0, shape[0], STRIP):
        check_stop(should_stop)
        rows = min(STRIP, shape[0] - first)
        start = box.lower[0] + first * factor
        strip = Box((start, *box.lower[1:]), (start + rows * factor, *box.upper[1:]))
        part = pyramid.read(strip, factor, [rows, *shape[1:]], fill=np.nan)
        strips.append(part)
    return np.concatenate(strips, axis=1)


def _is_dark(picture: Floats) -> bool:
    """Whether the border of an RGB picture (3, *spatial) is mostly dark."""
    return float(np.median(_border(picture.max(axis=0)))) < DARK


def _border(image: Floats) -> Floats:
    """Outermost pixels along each axis, flat."""
    parts = [np.take(image, (0, -1), axis).ravel() for axis in range(image.ndim)]
    return np.concatenate(parts)


def _stained(picture: Floats) -> tuple[Mask, str]:
    """Tissue of an RGB picture (3, *spatial), 0 to 255, on bright glass."""
    evidence = _smooth(255 - picture.min(axis=0), FINE)
    glass = evidence < 255 - GLASS
    if glass.mean() < LEAST_GLASS:
        return np.ones(evidence.shape, dtype=bool), "none"
    least = 255.0 * LEAST_STAIN
    return _unlike_background(evidence, evidence[glass], least), "bright"


def _by_contrast(picture: Floats) -> tuple[Mask, str]:
    """Tissue of (C, *spatial) with any values, and what the background looks like."""
    from scipy import ndimage

    low, high = np.percentile(picture, (0.5, 99.5), axis=(*range(1, picture.ndim),))
    told = high - low > 1e-6 * np.maximum(np.abs(high), 1e-12)
    if not told.any():
        return np.ones(picture.shape[1:], dtype=bool), "none"
    view = (-1, *[1] * (picture.ndim - 1))
    # A channel that shows nothing has no say.
    low, spread = (v[told].reshape(view) for v in (low, high - low))
    scaled = (picture[told] - low) / spread
    # A mark of missing data says nothing of where the tissue is.
    scaled = np.where(np.abs(scaled) <= FURTHEST, scaled, np.median(scaled))
    level = _smooth(scaled.mean(axis=0), FINE)
    slope = np.sqrt(sum(np.square(g) for g in _gradients(level)))
    flat = slope <= np.quantile(slope, FLAT_SHARE)
    is_dark = flat.all() or np.mean(level[~flat]) > _mode(level[flat])
    evidence = scaled.max(axis=0) if is_dark else 1 - scaled.min(axis=0)
    fine, wide = _smooth(evidence, FINE), _smooth(evidence, WIDE)
    mask = _without_gaps(_unlike_background(wide, wide[flat], LEAST_SIGNAL))
    mask |= _unlike_background(fine, fine[flat], LEAST_STAIN)
    if mask.mean() < LEAST_FOUND:
        # What was flat was not all background; what stands out is tissue.
        mask = _standing_out(fine)
    return ndimage.binary_fill_holes(mask), "dark" if is_dark else "bright"


def _without_gaps(mask: Mask) -> Mask:
    """Sparse signal as one piece, less what the wide smoothing added around it."""
    from scipy import ndimage

    ball = ndimage.generate_binary_structure(mask.ndim, 1)
    # Beyond the border too, which closing would otherwise eat into.
    padded = np.pad(mask, GAP, mode="edge")
    padded = ndimage.binary_dilation(padded, ball, iterations=GAP)
    padded = ndimage.binary_erosion(padded, ball, iterations=GAP + int(WIDE))
    return np.asarray(padded[(slice(GAP, -GAP),) * mask.ndim])


def _standing_out(evidence: Floats) -> Mask:
    """The brighter of two groups of values (Otsu's) that lie clearly apart, or none."""
    above = np.asarray(evidence > _otsu(evidence))
    if above.all() or not above.any():
        return np.zeros_like(above)
    high, low = evidence[above], evidence[~above]
    within = np.sqrt(np.average([high.var(), low.var()], weights=[len(high), len(low)]))
    # A split of plain noise lies 2.7 deviations apart.
    apart = float(high.mean() - low.mean()) > NOISES * float(within)
    return above if apart else np.zeros_like(above)


def _otsu(image: Floats) -> float:
    """Threshold that leaves the least variance within the two sides."""
    counts, edges = _histogram(image)
    below = np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    above = image.size - below
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
        between = np.nan_to_num(below * above * np.square(apart))
    return float(edges[1 + int(between.argmax())])


def _gradients(image: Floats) -> list[Floats]:
    """Slope along each axis that has one."""
    axes = [axis for axis, n in enumerate(image.shape) if n > 1]
    return [np.gradient(image, axis=axis) for axis in axes] or [np.zeros_like(image)]


def _unlike_background(evidence: Floats, known: Floats, least: float) -> Mask:
    """What lies above the background's level by more than its noise and ``least``.

    ``known`` holds values of places that are probably background.
    """
    level = _mode(known)
    below = level - known[known < level]
    noise = 1.4826 * float(np.median(below)) if len(below) else 0.0
    threshold = level + max(NOISES * noise, least)
    return np.asarray(evidence > threshold)


def _histogram(values: Floats) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts and edges in 256 steps, wide enough to tell numbers apart."""
    low, high = float(values.min()), float(values.max())
    high = max(high, low + 1e-6 * max(1.0, abs(low)))
    counts, edges = np.histogram(values.astype(np.float64), 256, (low, high))
    return counts, edges


def _mode(values: Floats) -> float:
    """Most frequent value, of a histogram in 256 steps."""
    counts, edges = _histogram(values)
    best = int(counts.argmax())
    return float(edges[best] + edges[best + 1]) / 2


def _smooth(image: Floats, deviation: float) -> Floats:
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter(image, deviation), dtype=np.float32)


def _tidied(mask: Mask) -> Mask:
    """Without dust and small holes, and a pixel wider."""
    from scipy import ndimage

    smallest = max(4, int(SMALLEST_SHARE * mask.size))
    for kept in (True, False):
        pieces, count = ndimage.label(mask == kept)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        small = sizes < smallest
        small[0] = False
        mask = np.where(small[pieces], not kept, mask)
    return np.asarray(ndimage.binary_dilation(mask))
