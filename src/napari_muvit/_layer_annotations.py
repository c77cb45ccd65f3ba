"""Shapes and Labels layers as annotations of a slide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._layer_items import (
    CLOSED_SHAPES,
    Drawn,
    Frame,
    area_drawn,
    drawn_area,
    is_region,
    is_special,
    label_of,
)
from ._layers import HALF, layer_arrays, layer_pyramid, placement
from .core.data.annotations import Annotations, Polygon
from .core.data.geojson import Outline
from .core.data.items import Area
from .core.errors import AnnotationError

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Shapes

SAMPLE_PIXELS = 2**22
"""Pixels looked at to find the values of a label image."""
FEW_VALUES = 2**16


def shape_classes(shapes: Shapes) -> list[str]:
    """Return the class name of each shape; empty where it has none."""
    if "class" not in shapes.features:
        return [""] * len(shapes.data)
    return [n if isinstance(n, str) else "" for n in shapes.features["class"]]


def shape_colors(shapes: Shapes) -> dict[str, str]:
    """Return the edge colour, ``#rrggbb``, of the first shape of each class."""
    found: dict[str, str] = {}
    for name, rgba in zip(shape_classes(shapes), shapes.edge_color, strict=True):
        color = bytes(round(float(v) * 255) for v in rgba[:3]).hex()
        found.setdefault(name, f"#{color}")
    return found


def count_shapes(shapes: Shapes, names: Sequence[str]) -> tuple[dict[str, int], str]:
    """Count the usable shapes of each class, and say in words what is left out."""
    counts = dict.fromkeys(names, 0)
    lines = strangers = 0
    for kind, name in zip(shapes.shape_type, shape_classes(shapes), strict=True):
        if kind not in CLOSED_SHAPES:
            lines += 1
        elif name in counts:
            counts[name] += 1
        elif not is_special(name):
            strangers += 1
    problems = []
    if lines:
        what = "1 line encloses" if lines == 1 else f"{lines} lines enclose"
        problems.append(f"{what} no area, so left out.")
    if strangers:
        what = "1 region has" if strangers == 1 else f"{strangers} regions have"
        problems.append(f"{what} no class of this list, so left out.")
    return counts, " ".join(problems)


def shapes_annotations(
    shapes: Shapes,
    image: Image,
    names: Sequence[str],
    colors: Sequence[str] | None = None,
    point: Sequence[float] | None = None,
) -> Annotations:
    """Return the closed shapes as polygons in slide pixels; lines are left out.

    Parameters
    ----------
    shapes
        Any Shapes layer, with its own scale, translate or rotation; the class of each
        shape stands in ``features["class"]``. As in GeoJSON, ``Region*`` is background
        beneath all others, any other name that ends with ``*`` takes away.
    image
        The slide.
    names
        Class names in label order; shapes of other classes are left out.
    colors
        Class colours in label order.
    point
        ``viewer.dims.point``: in a stack only shapes on the plane on screen count.
    """
    frame = Frame(shapes, image)
    on_plane = plane_filter(shapes, point)
    items: list[Area] = []
    for data, kind, name in zip(
        shapes.data, shapes.shape_type, shape_classes(shapes), strict=True
    ):
        label = label_of(name, names)
        if label is None or not on_plane(data):
            continue
        area = drawn_area(Drawn(kind, data), label, frame, region=is_region(name))
        if area is not None:
            items.append(area)
    if not any(area.label for area in items):
        raise AnnotationError(
            f"The layer {shapes.name!r} holds no outlined region of the classes "
            f"{', '.join(names)}. Outline some with Lasso, Polygon or Box on the "
            "Annotate page."
        )
    return Annotations(
        items=tuple(items),
        class_names=tuple(names),
        class_colors=None if colors is None else tuple(colors),
    )


def shape_data(
    outlines: Sequence[Outline], shapes: Shapes, image: Image
) -> list[NDArray[np.float32]]:
    """Return outlines in slide pixels as polygons of a Shapes layer, (n, 2) each.

    Parameters
    ----------
    outlines
        Areas of a file; their holes become parts of the one ring.
    shapes
        The 2D layer that will hold them, with its own scale, translate or rotation.
    image
        The slide.
    """
    frame = Frame(shapes, image)
    polygons = (Polygon(1, o.vertices, tuple(o.holes)) for o in outlines)
    return [area_drawn(polygon, frame).vertices for polygon in polygons]


def plane_filter(
    shapes: Shapes, point: Sequence[float] | None
) -> Callable[[NDArray[Any]], bool]:
    """Return what says whether a shape of a stack lies on the plane on screen."""
    if shapes.ndim == 2 or point is None:
        return lambda _data: True
    plane = np.round(np.asarray(shapes.world_to_data(point))[:-2])
    return lambda data: bool((np.round(np.asarray(data)[0, :-2]) == plane).all())


def labels_annotations(
    labels: Labels,
    image: Image,
    values: Mapping[int, int],
    names: Sequence[str],
    colors: Sequence[str] | None = None,
    point: Sequence[float] | None = None,
) -> Annotations:
    """Return a painted or read label image as annotations of the slide.

    Parameters
    ----------
    labels
        Any Labels layer, single-scale or pyramid, with its own scale and translate.
    image
        The slide.
    values
        Label (from 1) of each value that counts; other values are not annotated.
    names
        Class names in label order.
    colors
        Class colours in label order.
    point
        ``viewer.dims.point``, for stacks.
    """
    if not values:
        raise AnnotationError(
            f"No value of the layer {labels.name!r} stands for a class. Choose a class "
            "for at least one value in the table on the Annotate page."
        )
    own, slide = placement(labels), placement(image)
    scale = np.array(own.scale) / np.array(slide.scale)
    # The lower edge of label pixel 0 lies half a label pixel before its centre.
    edge = np.array(own.translate) - HALF * np.array(own.scale)
    offset = slide.to_pixels(edge)
    return Annotations.from_labels(
        layer_pyramid(labels, point),
        values=dict(values),
        offset=(float(offset[0]), float(offset[1])),
        scale=(float(scale[0]), float(scale[1])),
        class_names=tuple(names),
        class_colors=None if colors is None else tuple(colors),
    )


def label_values(labels: Labels, limit: int = 32) -> list[int]:
    """Return the values of a label image that are not 0, from a coarse level."""
    return values_of(value_array(labels), limit)


def value_array(labels: Labels) -> Any:
    """Return the level whose values stand for those of a label image."""
    levels = layer_arrays(labels)
    small = (v for v in levels if int(np.prod(v.shape)) <= SAMPLE_PIXELS)
    return next(small, levels[-1])


def values_of(array: Any, limit: int = 32) -> list[int]:
    """Return the values of an array that are not 0; a large one is sampled.

    Reads the array, so that anything but numpy belongs outside the GUI thread.
    """
    step = max(1, int(np.ceil((np.prod(array.shape) / SAMPLE_PIXELS) ** 0.5)))
    every = (slice(None),) * (len(array.shape) - 2) + (slice(None, None, step),) * 2
    sample = np.asarray(array[every])
    largest = int(sample.max(initial=0))
    if 0 < largest <= FEW_VALUES and int(sample.min()) >= 0:
        # Ten times as fast as sorting millions of pixels.
        seen = np.zeros(largest + 1, dtype=bool)
        seen[sample.astype(np.intp, copy=False)] = True
        found = np.flatnonzero(seen)
    else:
        found = np.unique(sample)
    return [int(v) for v in found if v != 0][:limit]


def label_classes(
    labels: Labels, values: Sequence[int]
) -> dict[int, tuple[str | None, str]]:
    """Return name (None where the layer knows none) and colour of each value."""
    table = labels.features
    named: dict[Any, Any] = {}
    if "class" in table and "index" in table:
        named = dict(zip(table["index"], table["class"], strict=True))
    found: dict[int, tuple[str | None, str]] = {}
    for value in values:
        rgba = np.asarray(labels.get_color(value))
        color = "#" + "".join(f"{round(float(v) * 255):02x}" for v in rgba[:3])
        found[value] = (str(named[value]) if value in named else None, color)
    return found
