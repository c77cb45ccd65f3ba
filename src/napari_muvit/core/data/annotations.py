"""Annotations: areas and label images, rasterised per crop at any scale.

Labels: 0 = not annotated, 1..K = classes. Coordinates are world coordinates, edge to
edge. Regions lie at the bottom; upon them lie the other items in their order, later
ones over earlier ones. An area with the label 0 takes away what lies below it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import AnnotationError
from ..geometry import Box
from ..progress import StopFn, never_stop
from .areas import Ellipse, Rectangle
from .brush_mask import BrushMask
from .items import Item, Region, in_order
from .label_image import LabelImage
from .ome_zarr import read_label_info
from .open import open_pyramid
from .polygons import Polygon, Vertices, edge_table
from .pyramid import Pyramid
from .scanlines import EdgeTable
from .tiff_metadata import tiff_classes

__all__ = [
    "AnnotationIndex",
    "Annotations",
    "BrushMask",
    "Ellipse",
    "LabelClasses",
    "LabelImage",
    "Polygon",
    "Rectangle",
    "Region",
    "label_classes",
]

Corners = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Lower and upper corner of each item, (n, ndim) each."""
MaskFn = Callable[[Box, Sequence[int]], NDArray[np.bool_]]
"""Which of the pixels of a box, in an array of a shape."""
SUBSAMPLES = 8
"""Most samples along each edge of a pixel, for the share of each class in it."""


@dataclass(frozen=True, eq=False)
class AnnotationIndex:
    """How much of each label there is, and where."""

    counts: NDArray[np.int64]
    """(K + 1,): annotated world pixels of each label; 0 = not annotated."""
    points: tuple[Vertices, ...]
    """K + 1 arrays (n, ndim) of annotated world positions; empty for label 0."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """What the user says of one slide."""

    items: tuple[Item, ...]
    """Regions first (they are moved there), later ones over earlier ones."""
    class_names: tuple[str, ...] | None = None
    """Names of the labels 1..K, where known."""
    class_colors: tuple[str, ...] | None = None
    """Colours of the labels 1..K as ``#rrggbb``, where known."""
    note: str = ""
    """What the user should know about how they were read."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", in_order(self.items))
        if self.ndim == 3 and any(not _is_volume(item) for item in self.items):
            raise AnnotationError(
                "Outlines and flat label images lie in a plane; they cannot be mixed "
                "with the labels of a volume."
            )

    @classmethod
    def from_labels(
        cls,
        source: Any,
        *,
        values: Mapping[int, int] | None = None,
        zero_is_background: bool = False,
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[str] | None = None,
        offset: float | Sequence[float] = 0.0,
        scale: float | Sequence[float] = 1.0,
        ndim: int = 2,
    ) -> Annotations:
        """Labels out of a label image: anything that `open_pyramid` opens.

        Parameters
        ----------
        source
            Path, array or Pyramid of whole numbers.
        values
            Label of each pixel value; None: the pixel value is the label.
        zero_is_background
            Pixel value v means label v + 1.
        class_names, class_colors
            Of the labels; None: as an OME-Zarr label image says.
        offset
            World position of the label image's origin.
        scale
            World pixels per pixel of the label image.
        ndim
            Spatial axes: 2, or 3 for the labels of a volume. A Pyramid has its own.

        Raises
        ------
        AnnotationError
            If it is no label image.
        """
        pyramid = open_pyramid(source, as_labels=True, ndim=ndim)
        item = LabelImage(
            pyramid,
            values,
            offset=_each_axis(offset, pyramid.ndim),
            scale=_each_axis(scale, pyramid.ndim),
            zero_is_background=zero_is_background,
        )
        if class_names is None and values is None and not zero_is_background:
            found = _named(pyramid)
            class_names = found[0]
            class_colors = class_colors or found[1]
        return cls(
            (item,),
            tuple(class_names) if class_names else None,
            tuple(class_colors) if class_colors else None,
        )

    @classmethod
    def from_polygons(
        cls,
        polygons: Iterable[tuple[int, ArrayLike]],
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[str] | None = None,
    ) -> Annotations:
        """Outlines as (label, vertices (n, 2)) in world coordinates."""
        return cls(
            tuple(Polygon(label, np.asarray(v)) for label, v in polygons),
            tuple(class_names) if class_names else None,
            tuple(class_colors) if class_colors else None,
        )

    def rasterise(self, box: Box, shape: Sequence[int]) -> NDArray[np.uint8]:
        """Labels at pixel centres.

        Parameters
        ----------
        box
            World box; may lie anywhere.
        shape
            (h, w) or (d, h, w) of the result, at any scale.

        Returns
        -------
        ndarray
            (*shape), uint8; 0 = not annotated.

        Raises
        ------
        AnnotationError
            If a label image holds anything but whole numbers from 0 to 255.
        """
        out = np.zeros(tuple(shape), dtype=np.uint8)
        for number in _meeting(self._layer_corners, box):
            item = self._layers[number]
            if not isinstance(item, LabelImage):
                item.fill(out, box)
                continue
            labels = item.read(box, shape)
            out = np.where(labels > 0, labels, out) if out.any() else labels
        # A label image in memory hands out a view.
        return out if out.flags.owndata and out.flags.writeable else out.copy()

    def fractions(
        self,
        box: Box,
        shape: Sequence[int],
        num_classes: int,
        keep: MaskFn | None = None,
    ) -> NDArray[np.float32]:
        """Share of each label within each output pixel.

        Parameters
        ----------
        box
            World box.
        shape
            (h, w) or (d, h, w) of the result.
        num_classes
            K.
        keep
            Says of the pixels of a box which count; the others are not annotated.
            None: all.

        Returns
        -------
        ndarray
            (K + 1, *shape), float32; index 0 is the share that is not annotated. By up
            to 8 samples along each edge of a pixel.

        Raises
        ------
        AnnotationError
            If a label is larger than K.
        """
        factor = max(b / n for b, n in zip(box.shape, shape, strict=True))
        samples = 1
        while samples < min(factor - 1e-6, SUBSAMPLES):
            samples *= 2
        fine = tuple(n * samples for n in shape)
        labels = self.rasterise(box, fine)
        if keep is not None:
            # Within a pixel: it may be wider than a cell that is held out.
            labels *= keep(box, fine)
        largest = int(labels.max())
        self.check_labels(largest, num_classes)
        out = np.zeros((num_classes + 1, *shape), dtype=np.float32)
        rest = labels.size
        for k in range(1, largest + 1):
            if rest == 0:
                break
            hits = labels == k
            found = int(np.count_nonzero(hits))
            if found:
                out[k] = _counts(hits, samples) / samples**hits.ndim
                rest -= found
        out[0] = 1 - out[1:].sum(axis=0)
        return out

    def bounds(self) -> Box | None:
        """Smallest world box around all items, or None without any."""
        if not self.items:
            return None
        lower, upper = self._corners
        return _box(lower.min(axis=0), upper.max(axis=0))

    def scaled(self, zoom: float | Sequence[float]) -> Annotations:
        """Multiply all coordinates by ``zoom``, for a slide viewed at another size."""
        factor = np.broadcast_to(np.asarray(zoom, dtype=np.float64), (self.ndim,))
        items = tuple(item.scaled(factor) for item in self.items)
        return dataclasses.replace(self, items=items)

    def index(
        self,
        box_extent: Box,
        num_classes: int,
        seed: int,
        points_per_class: int = 4096,
        should_stop: StopFn = never_stop,
    ) -> AnnotationIndex:
        """Count the annotated pixels of each label and draw places of each.

        Scanned block by block. Every annotated pixel of a label is drawn with the same
        chance.

        Parameters
        ----------
        box_extent
            World box of the slide; what lies outside does not count.
        num_classes
            K.
        seed
            Of the places.
        points_per_class
            Most places a label.
        should_stop
            Asked before each block.

        Raises
        ------
        AnnotationError
            If a label is larger than K, or no label at all.
        """
        from .annotation_index import build_index

        return build_index(
            self, box_extent, num_classes, seed, points_per_class, should_stop
        )

    @property
    def ndim(self) -> int:
        """Spatial axes: those of the label images, else 2."""
        images = (i for i in self.items if isinstance(i, LabelImage))
        return max((image.pyramid.ndim for image in images), default=2)

    @cached_property
    def _corners(self) -> Corners:
        return _corners(self.items, self.ndim)

    @cached_property
    def _layers(self) -> tuple[EdgeTable | Item, ...]:
        """Items in order; polygons that follow one another are filled together."""
        layers: list[EdgeTable | Item] = []
        areas = [i.area if isinstance(i, Region) else i for i in self.items]
        for _, group in itertools.groupby(areas, key=type):
            polygons: list[Polygon] = []
            for item in group:
                if isinstance(item, Polygon):
                    polygons.append(item)
                else:
                    layers.append(item)
            if polygons:
                layers.append(edge_table(polygons))
        return tuple(layers)

    @cached_property
    def _layer_corners(self) -> Corners:
        return _corners(self._layers, self.ndim)

    def touches(self, box: Box) -> bool:
        """Whether any item's bounding box meets ``box``."""
        return len(_meeting(self._corners, box)) > 0

    def check_labels(self, largest: int, num_classes: int) -> None:
        """Raise `AnnotationError` for a label that the model does not know."""
        if largest > num_classes:
            raise AnnotationError(
                f"The labels hold the class {largest}, but the model has only the "
                f"classes 1 to {num_classes}. Give the model more classes, or correct "
                "the labels."
            )


def _is_volume(item: object) -> bool:
    return isinstance(item, LabelImage) and item.pyramid.ndim == 3


def _each_axis(value: float | Sequence[float], ndim: int) -> tuple[float, ...]:
    """Return one number a spatial axis."""
    try:
        values = np.broadcast_to(np.asarray(value, dtype=np.float64), (ndim,))
    except ValueError as error:
        raise AnnotationError(
            f"Offset and scale need {ndim} numbers, one a spatial axis; got {value}."
        ) from error
    return tuple(float(v) for v in values)


def _corners(items: Sequence[EdgeTable | Item], ndim: int) -> Corners:
    lower = np.array([item.lower for item in items]).reshape(-1, ndim)
    return lower, np.array([item.upper for item in items]).reshape(-1, ndim)


def _meeting(corners: Corners, box: Box) -> NDArray[np.intp]:
    """Numbers of the bounding boxes that meet ``box``, in order."""
    lower, upper = corners
    meets = (lower < np.asarray(box.upper)) & (upper > np.asarray(box.lower))
    return np.flatnonzero(meets.all(axis=1))


def _counts(hits: NDArray[np.bool_], samples: int) -> NDArray[np.uint64]:
    """Count the hits in each block of samples (a power of two up to 8) along each edge.

    In a plane the samples of a row in a block are the bytes of one integer: adding the
    rows as integers adds all bytes at once (at most 8 each), and a multiplication by
    0x0101... adds the bytes up in the highest one. Several times faster than summing by
    axes.
    """
    if hits.ndim != 2:
        parts = [m for n in hits.shape for m in (n // samples, samples)]
        inner = tuple(range(1, len(parts), 2))
        return np.asarray(hits.reshape(parts).sum(axis=inner), dtype=np.uint64)
    height, width = (n // samples for n in hits.shape)
    word = np.dtype(f"u{samples}")
    rows = np.ascontiguousarray(hits).view(np.uint8).view(word)
    columns = rows.reshape(height, samples, width).sum(axis=1, dtype=word)
    ones = word.type(int.from_bytes(b"\x01" * samples, "little"))
    counts = columns * ones >> word.type(8 * (samples - 1))
    return np.asarray(counts, dtype=np.uint64)


def _box(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> Box:
    # A degenerate outline still has a place.
    high = np.maximum(upper, lower + 1e-6)
    return Box(tuple(lower), tuple(high))


def _named(
    pyramid: Pyramid,
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Class names and colours in label order, where the file has all of them."""
    path = pyramid.path
    if path is not None and str(path).lower().endswith((".tif", ".tiff")):
        return tiff_classes(Path(path))
    info = read_label_info(pyramid.contents.place)
    count = len(info.names)
    if not count or set(info.names) != set(range(1, count + 1)):
        return None, None
    names = tuple(info.names[k] for k in range(1, count + 1))
    if not all(k in info.colors for k in range(1, count + 1)):
        return names, None
    return names, tuple(info.colors[k] for k in range(1, count + 1))


@dataclass(frozen=True, slots=True)
class LabelClasses:
    """The classes that a label source holds."""

    largest: int
    """Largest label found."""
    names: tuple[str, ...] | None
    """Names of the labels 1..K, where the file says."""
    colors: tuple[str, ...] | None
    """Colours of the labels 1..K, where the file says."""


def label_classes(
    annotations: Annotations, should_stop: StopFn = never_stop
) -> LabelClasses:
    """Find the largest label of annotations, and the names where they have them.

    Label images are scanned, but once.

    Raises
    ------
    Cancelled
        If ``should_stop``, which is asked before each block, says so.
    """
    from .annotation_index import largest_label

    known = annotations.__dict__
    if "_largest" not in known:
        known["_largest"] = largest_label(annotations, should_stop)
    return LabelClasses(
        known["_largest"], annotations.class_names, annotations.class_colors
    )
