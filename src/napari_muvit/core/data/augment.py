"""Random changes of a nested crop: the same one at all levels, so they stay one place.

Every change is drawn from a generator that the caller seeds by the sample's index, so
it does not depend on order or workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..checks import require

# Stains absorb light; their absorption in red, green and blue (Ruifrok and Johnston,
# 2001, haematoxylin, eosin, DAB), one stain a row.
_STAINS = np.array(
    [[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]]
)
_DARKEST = 1 / 255
"""Smallest intensity, so that its logarithm is finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """What is changed at random; the default changes nothing.

    Raises
    ------
    ConfigError
        If an amount is not a number from 0 to below 1.
    """

    flips: bool = False
    """Flip along each axis and reorder the axes of equal pixel size: in 2D all eight
    mirrored and turned views, equally often."""
    upright: bool = False
    """With ``flips``: mirror the last axis only. For tissue that always lies the same
    way up, such as sections of an organ, where up and down tell regions apart."""
    intensity_jitter: float = 0.0
    """Largest relative change of the contrast to the background."""
    stain_jitter: float = 0.0
    """Largest relative change of the amount of each stain; RGB slides only."""
    box_shift: float = 0.0
    """Largest shift of the box that the model is told, as a share of the crop's edge;
    drawn for each level but the finest, to which the others are relative."""
    box_scale: float = 0.0
    """Largest relative change of the size of that box, drawn for each level."""

    def __post_init__(self) -> None:
        for name in ("intensity_jitter", "stain_jitter", "box_shift", "box_scale"):
            amount = getattr(self, name)
            require(
                0 <= amount < 1, f"{name} is {amount}; 0 to below 1 is needed.", name
            )


@dataclass(frozen=True, slots=True)
class Turn:
    """A flip along some axes, then a new order of the axes."""

    flips: tuple[bool, ...]
    order: tuple[int, ...]

    @classmethod
    def none(cls, ndim: int) -> Turn:
        """Leave everything as it is."""
        return cls((False,) * ndim, tuple(range(ndim)))

    @classmethod
    def mirror(cls, rng: np.random.Generator, ndim: int) -> Turn:
        """Draw a flip of the last axis, or none."""
        return cls((False,) * (ndim - 1) + (bool(rng.integers(2)),), tuple(range(ndim)))

    @classmethod
    def draw(
        cls, rng: np.random.Generator, ndim: int, groups: Sequence[int] | None = None
    ) -> Turn:
        """Draw one of all turns with the same chance.

        Parameters
        ----------
        rng
            Generator of the sample.
        ndim
            Spatial axes.
        groups
            One number an axis; only axes of the same number change places. None: all
            of them may.
        """
        flips = tuple(bool(rng.integers(2)) for _ in range(ndim))
        kinds = [0] * ndim if groups is None else list(groups)
        order = list(range(ndim))
        for kind in sorted(set(kinds)):
            axes = [a for a in range(ndim) if kinds[a] == kind]
            for axis, other in zip(axes, rng.permutation(axes), strict=True):
                order[axis] = int(other)
        return cls(flips, tuple(order))

    def pixels(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Turn the last spatial axes of an array."""
        lead = array.ndim - len(self.flips)
        axes = tuple(lead + a for a, flip in enumerate(self.flips) if flip)
        flipped = np.flip(array, axes) if axes else array
        return flipped.transpose(*range(lead), *(lead + a for a in self.order))

    def boxes(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mirror the world the same way; (L, 2, N) boxes in and out.

        A flip maps a coordinate v to -v, so the lower edge becomes the negative upper
        one. Where the origin lies does not matter to the model.
        """
        out = boxes.copy()
        for axis, flip in enumerate(self.flips):
            if flip:
                out[:, 0, axis] = -boxes[:, 1, axis]
                out[:, 1, axis] = -boxes[:, 0, axis]
        return out[:, :, list(self.order)]


def alike_axes(pixel_size: Sequence[float] | None, ndim: int) -> tuple[int, ...]:
    """Number the axes such that those of equal pixel size have the same number.

    Where the size is unknown, the last two axes are taken to be alike: the planes of a
    stack mostly lie further apart than the pixels of a plane.
    """
    if pixel_size is None:
        return tuple(int(a < ndim - 2) * (a + 1) for a in range(ndim))
    sizes = list(pixel_size)
    return tuple(
        next(k for k, other in enumerate(sizes) if abs(size - other) <= 0.01 * other)
        for size in sizes
    )


def jitter_contrast(
    pixels: NDArray[np.float32],
    background: NDArray[np.float32],
    amount: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Change the contrast to the background.

    Around the background, which stays as it is: a shift of the brightness would drown
    what is left of sparse bright cells at a coarse level.

    Parameters
    ----------
    pixels
        (L, C, *spatial), normalised.
    background
        (C,), normalised.
    amount
        Largest relative change.
    rng
        Generator of the sample.
    """
    contrast = np.float32(1 + amount * rng.uniform(-1, 1))
    level = background.reshape(1, -1, *[1] * (pixels.ndim - 2))
    return np.asarray(level + (pixels - level) * contrast)


def jitter_stains(
    pixels: NDArray[np.float32], amount: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Change how much of each stain there is, as another batch of slides would.

    Beer and Lambert: the logarithm of the intensity is a sum over the stains, so
    stronger stains are a matrix upon it; glass without stain stays white.

    Parameters
    ----------
    pixels
        (L, 3, *spatial), red, green and blue, 0 to 1.
    amount
        Largest relative change of a stain.
    rng
        Generator of the sample.
    """
    strength = np.diag(1 + amount * rng.uniform(-1, 1, 3))
    change = (np.linalg.inv(_STAINS) @ strength @ _STAINS).astype(np.float32)
    density = np.log(np.clip(pixels, _DARKEST, 1))
    mixed = np.einsum("lc...,cd->ld...", density, change, optimize=True)
    return np.asarray(np.exp(np.minimum(mixed, 0)), dtype=np.float32)


def jitter_told_boxes(
    boxes: NDArray[np.float64], shift: float, scale: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Tell the model slightly wrong places and sizes, so that it bears them.

    A common shift would change nothing, so each level but the finest has its own.

    Parameters
    ----------
    boxes
        (L, 2, N), world coordinates.
    shift
        Largest shift as a share of the edge of the level's own box.
    scale
        Largest relative change of the edge.
    rng
        Generator of the sample.
    """
    edges = boxes[:, 1] - boxes[:, 0]
    centres = boxes.mean(axis=1)
    moves = shift * rng.uniform(-1, 1, centres.shape) * edges
    moves[0] = 0
    sizes = edges * (1 + scale * rng.uniform(-1, 1, (len(boxes), 1)))
    centres = centres + moves
    return np.stack([centres - sizes / 2, centres + sizes / 2], axis=1)
