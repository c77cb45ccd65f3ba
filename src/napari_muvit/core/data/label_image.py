"""Label images as annotations: any values, anywhere, at any scale."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError
from ..geometry import Box
from .areas import LARGEST, MAX_LABEL, SMALLEST
from .block_cache import Pixels
from .pyramid import Pyramid


@dataclass(frozen=True, eq=False)
class LabelImage:
    """A label image at its own place: world = offset + scale * its own world."""

    pyramid: Pyramid
    """One channel of whole numbers."""
    values: Mapping[int, int] | None = None
    """Label of each pixel value; values that are not listed count as not annotated.
    None: the pixel value is the label."""
    offset: tuple[float, ...] = (0.0, 0.0)
    """World position of the label image's origin, one a spatial axis."""
    scale: tuple[float, ...] = (1.0, 1.0)
    """World pixels per pixel of the label image, one a spatial axis."""
    zero_is_background: bool = False
    """Pixel value v means label v + 1."""

    def __post_init__(self) -> None:
        if self.pyramid.num_channels != 1:
            raise AnnotationError(
                f"{self.pyramid.name} has {self.pyramid.num_channels} channels; a "
                "label image has one."
            )
        if not len(self.offset) == len(self.scale) == self.pyramid.ndim:
            raise AnnotationError(
                f"{self.pyramid.name} has {self.pyramid.ndim} spatial axes, but its "
                f"offset has {len(self.offset)} and its scale {len(self.scale)}."
            )
        place = np.array([self.offset, self.scale], dtype=np.float64)
        near = np.abs(place) <= LARGEST  # false for NaN
        if not near.all() or place[1].min() < SMALLEST:
            raise AnnotationError(
                f"{self.pyramid.name} has the offset {self.offset} and the scale "
                f"{self.scale}; finite numbers are needed, and a scale larger than 0."
            )
        if self.values is not None and self.zero_is_background:
            raise AnnotationError(
                "Give either a label for each value or zero_is_background, not both."
            )

    @property
    def extent(self) -> Box:
        """World box that the label image covers."""
        own = self.pyramid.extent.as_array()
        low, high = own * self.scale + self.offset
        return Box(tuple(low), tuple(high))

    @property
    def lower(self) -> NDArray[np.float64]:
        """Smallest y and x."""
        return np.asarray(self.extent.lower)

    @property
    def upper(self) -> NDArray[np.float64]:
        """Largest y and x."""
        return np.asarray(self.extent.upper)

    @property
    def step(self) -> tuple[float, ...]:
        """World pixels per stored finest pixel."""
        return tuple(s * z for s, z in zip(self.scale, self.pyramid.zoom, strict=True))

    def scaled(self, zoom: NDArray[np.float64]) -> LabelImage:
        """Multiply its place and size by ``zoom``, one a spatial axis."""
        offset, scale = np.asarray(self.offset) * zoom, np.asarray(self.scale) * zoom
        return dataclasses.replace(
            self,
            offset=tuple(float(v) for v in offset),
            scale=tuple(float(v) for v in scale),
        )

    def read(self, box: Box, shape: Sequence[int]) -> NDArray[np.uint8]:
        """Labels at pixel centres, (*shape), uint8; 0 outside."""
        low, high = (box.as_array() - self.offset) / self.scale
        own = Box(tuple(low), tuple(high))
        # Outside the label image nothing is annotated, whatever 0 means inside it.
        raw = self.pyramid.sample(own, shape, fill=0)[0]
        labels = self._labels(raw)
        if not self._needs_mask or self.pyramid.extent.contains(own, 0.0):
            return labels
        return labels * _centres_inside(own, shape, self.pyramid.extent)

    @property
    def _needs_mask(self) -> bool:
        return self.zero_is_background or bool(self.values and self.values.get(0))

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        """Label of each uint8 value."""
        return self._mapped(np.arange(256))

    def _mapped(self, raw: NDArray[Any]) -> NDArray[np.uint8]:
        """Labels of whole numbers, which are checked already."""
        if self.values is None:
            # 255 + 1 would wrap around; it is refused before it gets here.
            return (raw + self.zero_is_background).astype(np.uint8)
        out = np.zeros(raw.shape, dtype=np.uint8)
        for value, label in self.values.items():
            if not 0 <= label <= MAX_LABEL:
                raise AnnotationError(
                    f"The value {value} stands for the class {label}; 0 to {MAX_LABEL} "
                    "is needed."
                )
            out[raw == value] = label
        return out

    def _labels(self, raw: Pixels) -> NDArray[np.uint8]:
        if raw.dtype == np.uint8 and not self.zero_is_background:
            return raw if self.values is None else self._table[raw]
        if raw.dtype.kind == "f":
            wrong = ~np.isfinite(raw) | (raw != np.rint(raw))
            if wrong.any():
                raise AnnotationError(
                    f"{self.pyramid.name} holds the value {raw[wrong][0]}; labels are "
                    "whole numbers."
                )
        if self.values is None:
            low, high = raw.min(), raw.max()
            limit = MAX_LABEL - self.zero_is_background
            if low < 0 or high > limit:
                wrong_value = int(low if low < 0 else high)
                raise AnnotationError(
                    f"{self.pyramid.name} holds the value {wrong_value}; labels are "
                    f"whole numbers from 0 to {limit}."
                )
        return self._mapped(raw.astype(np.int64))


def _centres_inside(box: Box, shape: Sequence[int], extent: Box) -> NDArray[np.uint8]:
    """1 where the centre of an output pixel lies inside ``extent``, else 0."""
    axes = []
    for low, size, count, first, last in zip(
        box.lower, box.shape, shape, extent.lower, extent.upper, strict=True
    ):
        centres = low + size / count * (np.arange(count) + 0.5)
        axes.append((centres >= first) & (centres < last))
    return functools.reduce(np.logical_and.outer, axes).astype(np.uint8)
