"""The multiscale image: any world box at any scale factor, whatever levels are stored.

World coordinates are pixels of the finest level as the model sees it (see
`napari_muvit.core.geometry`); by default one world pixel is one stored finest pixel.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PyramidError
from ..geometry import Box, Vector
from .arrays import ArraySource
from .averaged import AveragedLevel, MissingLevel, averaged_shape
from .block_cache import BlockCache, Pixels, shared_cache
from .choice import Contents
from .level_reading import COARSER, MAX_SOURCE_PIXELS, read_level, read_stored
from .resample import nearest_positions, take_positions


@dataclass(frozen=True, eq=False)
class PyramidLevel:
    """One stored level."""

    source: ArraySource
    """Pixels as (C, *spatial)."""
    scale: Vector
    """World pixels per pixel of this level, one a spatial axis."""
    offset: Vector
    """World position of the lower edge of pixel 0, one a spatial axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each spatial axis."""
        return self.source.shape[1:]


@dataclass(frozen=True, eq=False)
class Pyramid:
    """A multiscale image. Cheap to make; pixels are read when asked for."""

    levels: tuple[PyramidLevel, ...]
    """Stored levels, finest first."""
    name: str = "image"
    """For people and file names."""
    pixel_size: Vector | None = None
    """Physical edge of one *stored finest* pixel along each axis; None: unknown."""
    unit: str = "micrometer"
    """Unit of ``pixel_size`` and ``translation``."""
    translation: Vector | None = None
    """Physical position of the centre of the finest pixel 0; None: 0."""
    path: Path | None = None
    """File, folder or zip that it was opened from."""
    url: str | None = None
    """Web address that it was opened from."""
    rgb: bool = False
    """Whether the channels are red, green and blue."""
    channel_names: tuple[str, ...] = ()
    """Names of the channels, where the file has them."""
    note: str = ""
    """What the user should know about how it was opened."""
    contents: Contents = field(default_factory=Contents, repr=False)
    """What else the file holds, and which image and planes of it were chosen."""
    cache: BlockCache = field(default_factory=shared_cache, repr=False)
    """Keeps decoded pixels, bounded; by default one for all slides."""
    averaged: tuple[AveragedLevel, ...] = field(default=(), repr=False)
    """Levels that the file lacks and that are kept on disk (see `level_cache`)."""

    def __post_init__(self) -> None:
        if not self.levels:
            raise PyramidError(f"{self.name} has no levels.")
        first = self.levels[0].source
        for level in self.levels[1:]:
            if level.source.shape[0] != first.shape[0]:
                raise PyramidError(
                    f"The levels of {self.name} have {first.shape[0]} and "
                    f"{level.source.shape[0]} channels; the same number is needed."
                )
            if any(
                s < t for s, t in zip(level.scale, self.levels[0].scale, strict=True)
            ):
                raise PyramidError(
                    f"A level of {self.name} is finer than its first one; levels must "
                    "run from fine to coarse."
                )

    @property
    def ndim(self) -> int:
        """Spatial axes."""
        return len(self.levels[0].scale)

    @property
    def shape(self) -> tuple[int, ...]:
        """Stored pixels of the finest level along each spatial axis."""
        return self.levels[0].shape

    @property
    def num_channels(self) -> int:
        """Channels C."""
        return self.levels[0].source.shape[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self.levels[0].source.dtype

    @property
    def zoom(self) -> Vector:
        """World pixels per stored finest pixel; 1 unless viewed at another size."""
        return self.levels[0].scale

    @property
    def extent(self) -> Box:
        """The whole image in world coordinates."""
        level = self.levels[0]
        upper = (
            o + n * s
            for o, n, s in zip(level.offset, level.shape, level.scale, strict=True)
        )
        return Box(level.offset, tuple(upper))

    @property
    def scale_factors(self) -> tuple[float, ...]:
        """Factor of each stored level to the world pixel (mean over y and x)."""
        return tuple(float(np.mean(level.scale[-2:])) for level in self.levels)

    def viewed_at(self, pixel_size: float | None) -> Pyramid:
        """Return the image with world pixels of ``pixel_size`` (rule 3 of the design).

        A model that was trained at another pixel size so sees structures at the size
        that it knows. Returned unchanged where either size is unknown, or equal.
        """
        if pixel_size is None or self.pixel_size is None:
            return self
        ratios = [own / pixel_size for own in self.pixel_size]
        if all(
            math.isclose(r, z, rel_tol=1e-3)
            for r, z in zip(ratios, self.zoom, strict=True)
        ):
            return self
        zooms = [r / z for r, z in zip(ratios, self.zoom, strict=True)]
        levels = tuple(
            dataclasses.replace(
                level,
                scale=tuple(s * z for s, z in zip(level.scale, zooms, strict=True)),
                offset=tuple(o * z for o, z in zip(level.offset, zooms, strict=True)),
            )
            for level in self.levels
        )
        return dataclasses.replace(self, levels=levels)

    def read(
        self,
        box: Box,
        scale_factor: float,
        shape: Sequence[int],
        fill: float | Sequence[float] = 0.0,
    ) -> NDArray[np.float32]:
        """Read a world box at a scale factor.

        Taken from the nearest finer stored level and averaged over the area of each
        output pixel; only the chunks that it needs are touched.

        Parameters
        ----------
        box
            World box; may lie partly or wholly outside the image.
        scale_factor
            World pixels per output pixel.
        shape
            Output pixels along each axis; ``box.shape == shape * scale_factor``.
        fill
            Value outside the image, one or one a channel.

        Returns
        -------
        ndarray
            (C, *shape), float32.

        Raises
        ------
        ValueError
            If box, factor and shape contradict each other.
        """
        self._check_request(box, scale_factor, shape)
        index = self._finer_level(scale_factor)
        level = self.levels[index]
        start = [
            (b - o) / s
            for b, o, s in zip(box.lower, level.offset, level.scale, strict=True)
        ]
        step = tuple(scale_factor / s for s in level.scale)
        kept = next(
            (v.source for v in self.averaged if (v.index, v.step) == (index, step)),
            None,
        )
        return read_level(level.source, start, step, shape, fill, self.cache, kept)

    def sample(self, box: Box, shape: Sequence[int], fill: float = 0) -> Pixels:
        """Nearest stored pixel under the centre of each output pixel; for labels.

        Parameters
        ----------
        box
            World box; may lie partly or wholly outside the image.
        shape
            Output pixels along each axis.
        fill
            Value outside the image.

        Returns
        -------
        ndarray
            (C, *shape) of the stored type.
        """
        factor = min(b / n for b, n in zip(box.shape, shape, strict=True))
        index = self._finer_level(factor)
        level = self.levels[index]
        positions = [
            nearest_positions((b - o) / s, extent / (n * s), n)
            for b, o, s, extent, n in zip(
                box.lower, level.offset, level.scale, box.shape, shape, strict=True
            )
        ]
        out = np.full((self.num_channels, *shape), fill, dtype=self.dtype)
        inside = [
            np.flatnonzero((p >= 0) & (p < n))
            for p, n in zip(positions, level.shape, strict=True)
        ]
        if any(len(i) == 0 for i in inside):
            return out
        # Piece by piece: a sparse grid over a large slide never loads all of it.
        step = max(
            e / (n * s) for e, n, s in zip(box.shape, shape, level.scale, strict=True)
        )
        edge = max(1, int(MAX_SOURCE_PIXELS ** (1 / self.ndim) / max(step, 1.0)))
        for part in itertools.product(
            *(range(int(i[0]), int(i[-1]) + 1, edge) for i in inside)
        ):
            spans = [
                slice(a, min(a + edge, int(i[-1]) + 1))
                for a, i in zip(part, inside, strict=True)
            ]
            picked = [p[s] for p, s in zip(positions, spans, strict=True)]
            lower = [int(p[0]) for p in picked]
            upper = [int(p[-1]) + 1 for p in picked]
            block = read_stored(level.source, lower, upper, self.cache)
            for axis, (p, v) in enumerate(zip(picked, lower, strict=True)):
                block = take_positions(block, axis + 1, p - v)
            out[(slice(None), *spans)] = block
        return out

    def missing_level(self, scale_factor: float) -> MissingLevel | None:
        """Return the level that `read` averages at a factor, None where it is stored.

        Parameters
        ----------
        scale_factor
            World pixels per pixel of the level.
        """
        index = self._finer_level(scale_factor)
        level = self.levels[index]
        step = tuple(scale_factor / s for s in level.scale)
        if max(step) <= COARSER:
            return None
        return MissingLevel(index, step, averaged_shape(level.shape, step))

    def _check_request(
        self, box: Box, scale_factor: float, shape: Sequence[int]
    ) -> None:
        if box.ndim != self.ndim or len(shape) != self.ndim:
            raise ValueError(
                f"{self.name} has {self.ndim} spatial axes, but the box has {box.ndim} "
                f"and the shape {len(shape)}."
            )
        if not scale_factor > 0 or any(n < 1 for n in shape):
            raise ValueError(
                f"A positive scale factor and shape are needed, got {scale_factor} and "
                f"{tuple(shape)}."
            )
        if any(
            abs(n * scale_factor - b) > 1e-3 * (1 + b)
            for n, b in zip(shape, box.shape, strict=True)
        ):
            expected = tuple(n * scale_factor for n in shape)
            raise ValueError(
                f"Shape {tuple(shape)} at factor {scale_factor} spans {expected} world "
                f"pixels, but the box spans {box.shape}."
            )

    def _finer_level(self, scale_factor: float) -> int:
        """Coarsest stored level that is not coarser than ``scale_factor``.

        Along an axis whose finest pixels are coarser than that, such as z of a stack,
        a level may be as coarse as the finest one.
        """
        limits = [max(scale_factor, zoom) * 1.01 for zoom in self.zoom]
        best = 0
        for index, level in enumerate(self.levels):
            # A "factor 4" level of a real slide may be 4.0003.
            if all(s <= limit for s, limit in zip(level.scale, limits, strict=True)):
                best = index
        return best
