"""GeoJSON as napari layers: File > Open, drag and drop, and saving a layer.

Coordinates in a file are pixels of the slide, so a file that is opened goes upon an
image in the viewer, and a layer is written in the pixels of the image below it.
Imports neither torch nor Qt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._layer_annotations import (
    count_shapes,
    label_classes,
    labels_annotations,
    shape_classes,
    shape_colors,
    shapes_annotations,
)
from ._layers import HALF, layer_kwargs, layer_path, layer_pyramid, shown_plane
from ._outline_rings import join_rings
from .core.config import BACKGROUND_COLOR, DEFAULT_COLORS
from .core.data.geojson import BACKGROUND, REGION, GeoJson, read_geojson, write_geojson
from .core.errors import AnnotationError, PyramidError

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Shapes

    from .core.data.pyramid import Pyramid

LayerData = tuple[Any, dict[str, Any], str]
SUFFIX = ".geojson"
OUTLINES = "outlines"
"""Mark in the metadata: the panel keeps the lines as thin at every zoom."""
UNNAMED = "unclassified"
"""Class of the shapes that have none, in a file."""
PLACING = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
"""What puts a layer elsewhere than in its own pixels."""
FACE_ALPHA = 0.35
LINE_SHARE = 1 / 500
"""Width of a line by the longest side of what is outlined, before the zoom is known."""
MAX_PIXELS = 2**26
"""Of a label image that is outlined."""
MAX_CLASSES = 64


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return what reads GeoJSON, or None where it is none."""
    paths = [path] if isinstance(path, str) else list(path)
    is_file = all(p.lower().endswith(SUFFIX) and Path(p).is_file() for p in paths)
    return read_outlines if paths and is_file else None


def read_outlines(path: str | Sequence[str]) -> list[LayerData]:
    """Return a Shapes layer a file, upon an image of the viewer where there is one.

    Raises
    ------
    AnnotationError
        If a file is no GeoJSON or holds no area, in one line.
    """
    viewer = _viewer()
    paths = [path] if isinstance(path, str) else list(path)
    return [_layer_of(Path(one), viewer) for one in paths]


def _viewer() -> ViewerModel | None:
    import napari

    return napari.current_viewer()


def _layer_of(path: Path, viewer: ViewerModel | None) -> LayerData:
    image = None if viewer is None else _image_for(path, viewer)
    place: dict[str, Any] = {}
    plane = (0, 0)
    if viewer is not None and image is not None:
        place = layer_kwargs(image)
        plane = shown_plane(image, viewer.dims.point)
    file = read_geojson(path, plane, unnamed=True)
    if not file.outlines:
        left_out = f" ({file.note})" if file.note else ""
        raise AnnotationError(
            f"{path.name} holds no outlined area{left_out}; choose another file, or "
            "another plane of the stack."
        )
    if file.note:
        _warn(f"{path.name}: {file.note}.")
    return shapes_data(file, place)


def _image_for(path: Path, viewer: ViewerModel) -> Image | None:
    """Return the image that a file belongs to: of its name, else the chosen one."""
    from napari.layers import Image

    images = [x for x in viewer.layers if isinstance(x, Image) and _is_upright(x)][::-1]
    stem = path.name[: -len(SUFFIX)].lower()
    named = [x for x in images if x.name.lower() == stem or _file_stem(x) == stem]
    active = viewer.layers.selection.active
    chosen = [x for x in images if x is active]
    return next(iter([*named, *chosen, *images]), None)


def _file_stem(image: Image) -> str:
    from .core.data.open import stem

    path = layer_path(image)
    return "" if path is None else stem(path).lower()


def _is_upright(image: Image) -> bool:
    try:
        layer_kwargs(image)
    except PyramidError:
        return False
    return True


def shapes_data(file: GeoJson, place: Mapping[str, Any]) -> LayerData:
    """Return the areas of a file as a Shapes layer.

    Parameters
    ----------
    file
        Its coordinates are edge to edge; napari's pixels have their centre at a whole
        number.
    place
        Scale, translate and units of the image that it lies upon.
    """
    import pandas as pd

    names = [o.class_name for o in file.outlines]
    rings = [
        join_rings(o.vertices - HALF, [hole - HALF for hole in o.holes])
        for o in file.outlines
    ]
    edge = _rgba(names, file.colors)
    face = edge.copy()
    face[:, 3] = FACE_ALPHA
    corners = np.concatenate(rings)
    longest = float((corners.max(axis=0) - corners.min(axis=0)).max())
    options = {
        "name": f"{file.path.name[: -len(SUFFIX)]} outlines",
        "shape_type": "polygon",
        "features": pd.DataFrame({"class": pd.Categorical(n or None for n in names)}),
        "edge_color": edge,
        "face_color": face,
        "edge_width": longest * LINE_SHARE,
        "opacity": 0.9,
        "metadata": {"muvit": OUTLINES},
        **place,
    }
    return rings, options, "shapes"


def _rgba(names: Sequence[str], colors: Mapping[str, str]) -> NDArray[np.float64]:
    """Return a colour a shape, (n, 4): the file's, else the next free one."""
    known = {name.lower(): color for name, color in colors.items()}
    grey = (BACKGROUND, REGION.lower(), "")
    for name in grey:
        known.setdefault(name, BACKGROUND_COLOR)
    free = [c for c in DEFAULT_COLORS if c not in known.values()] or DEFAULT_COLORS
    for name in dict.fromkeys(name.lower() for name in names):
        if name not in known:
            known[name] = free[(len(known) - len(grey)) % len(free)]
    bytes_ = [[*bytes.fromhex(known[name.lower()][1:]), 255] for name in names]
    return np.array(bytes_, dtype=np.float64) / 255


# ---- writing


def write_shapes(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Shapes layer; the class of a shape stands in ``features["class"]``.

    Coordinates are pixels of the image that lies under it, else its own.

    Raises
    ------
    AnnotationError
        If it holds no closed shape, or its classes cannot be written.
    """
    from napari.layers import Shapes

    image, meta = _image_below(data, meta, "shapes")
    layer = Shapes(data, **meta)
    names = [name or UNNAMED for name in shape_classes(layer)]
    layer.features = layer.features.assign(**{"class": names})
    learned = [name for name in names if not name.endswith("*")]
    if any(name.lower() == REGION.lower() for name in names):
        learned.insert(0, BACKGROUND)
    classes = list(dict.fromkeys(learned))
    point, plane = _where(layer, image)
    found = shape_colors(layer)
    colors = [found.get(name, BACKGROUND_COLOR) for name in classes]
    annotations = shapes_annotations(layer, image or layer, classes, colors, point)
    left_out = count_shapes(layer, classes)[1]
    if layer.ndim > 2:
        left_out = f"{left_out} Only the plane on screen was written.".strip()
    return _written(annotations, path, plane, left_out)


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Labels layer, each value but 0 as a class, along the edges of pixels.

    Raises
    ------
    AnnotationError
        If it is too large, holds no value or too many of them.
    """
    from napari.layers import Labels

    image, meta = _image_below(data, meta, "labels")
    layer = Labels(data, **meta)
    point, plane = _where(layer, image)
    values = _values(layer_pyramid(layer, point))
    found = label_classes(layer, values)
    annotations = labels_annotations(
        layer,
        image or layer,
        {value: label for label, value in enumerate(values, start=1)},
        [name or f"class {value}" for value, (name, _) in found.items()],
        [color for _, color in found.values()],
        point,
    )
    left_out = "Only the plane on screen was written." if layer.ndim > 2 else ""
    return _written(annotations, path, plane, left_out)


def _written(
    annotations: Any, path: str, plane: tuple[int, int], left_out: str
) -> list[str]:
    write_geojson(annotations, path, plane)
    if left_out:
        _warn(left_out)
    return [path]


def _values(pyramid: Pyramid) -> list[int]:
    """Return the values of a label image that are not 0."""
    height, width = pyramid.shape
    if height * width > MAX_PIXELS:
        raise AnnotationError(
            f"{pyramid.name} has {height} x {width} pixels; label images of up to "
            f"{MAX_PIXELS} pixels can be outlined. Save a coarser one."
        )
    pixels = pyramid.levels[0].source.read((0, 0), pyramid.shape)
    values = [int(v) for v in np.unique(pixels) if v != 0]
    if not 0 < len(values) <= MAX_CLASSES:
        raise AnnotationError(
            f"{pyramid.name} holds {len(values)} values besides 0; 1 to {MAX_CLASSES} "
            "are needed, one a class. Objects that are numbered are no classes."
        )
    return values


def _image_below(
    data: Any, meta: dict[str, Any], kind: str
) -> tuple[Image | None, dict[str, Any]]:
    """Return the image under a layer, and what the layer is made again by.

    Without an image, it is made in its own pixels.
    """
    from napari.layers import Image, Layer

    viewer = _viewer()
    layer = Layer.create(data, dict(meta), kind)
    layers = [] if viewer is None else list(viewer.layers)
    names = [x.name for x in layers]
    if layer.name in names:  # the nearest one below comes first, then those above
        at = names.index(layer.name)
        layers = layers[at:] + layers[:at]
    for image in layers[::-1]:
        if isinstance(image, Image) and _overlap(layer, image) and _is_upright(image):
            return image, meta
    return None, {k: v for k, v in meta.items() if k not in PLACING}


def _overlap(layer: Any, image: Image) -> bool:
    """Whether the extents of two layers meet in the plane."""
    (low, high), (first, last) = (
        np.asarray(x.extent.world)[:, -2:] for x in (layer, image)
    )
    return bool((low <= last).all() and (first <= high).all())


def _where(layer: Shapes | Labels, image: Image | None) -> tuple[Any, tuple[int, int]]:
    """Return the point on screen, and (z, t) of its plane."""
    viewer = _viewer()
    if viewer is None:
        return None, (0, 0)
    point = viewer.dims.point
    stack = image if image is not None else layer
    return point, shown_plane(stack, point) if stack.ndim > 2 else (0, 0)


def _warn(words: str) -> None:
    from napari.utils.notifications import show_warning

    show_warning(words)
