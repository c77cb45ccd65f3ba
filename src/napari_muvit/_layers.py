"""napari layers to and from the core.

With `_layer_annotations` the only place that knows ``layer.scale``, units, rgb and
affine. napari puts the centre
of pixel ``i`` at data coordinate ``i``; the core's world runs edge to edge, so that
pixel ``i`` covers ``[i, i + 1)``. The step between the two is `HALF`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._level_view import AveragedView, LevelView
from .core.data.arrays import ArraySource
from .core.data.pyramid import Pyramid, PyramidLevel
from .core.errors import PyramidError
from .core.geometry import Box

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

Pair = tuple[float, float]
Matrix = NDArray[np.float64]

HALF = 0.5
FACTOR_TOLERANCE = 0.02
"""Level factors this close to a whole number are that number (31.99 is 32)."""
LEADING_AXES = "tzabdefghijklmnopqrsuvw"
CHANNEL_LABELS = ("c", "channel", "channels")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the last two axes of an unrotated layer lie in napari's world."""

    scale: Pair
    """napari world units per finest pixel, (y, x)."""
    translate: Pair
    """Centre of pixel (0, 0) in napari's world."""

    def to_pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Napari world (n, 2) to edge-to-edge pixels of this layer."""
        pixels = (points - np.array(self.translate)) / np.array(self.scale) + HALF
        return np.asarray(pixels, dtype=np.float64)

    def to_world(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Edge-to-edge pixels of this layer (n, 2) to napari world."""
        points = (pixels - HALF) * np.array(self.scale) + np.array(self.translate)
        return np.asarray(points, dtype=np.float64)


def affine(layer: Layer) -> tuple[Matrix, Matrix]:
    """Matrix (2, 2) and offset (2,) from pixel centres to napari's world."""
    zero = np.zeros(layer.ndim)
    origin = np.asarray(layer.data_to_world(zero))[-2:]
    columns = []
    for axis in (-2, -1):
        step = zero.copy()
        step[axis] = 1
        columns.append(np.asarray(layer.data_to_world(step))[-2:] - origin)
    return np.stack(columns, axis=1), origin


def placement(layer: Layer) -> Placement:
    """Return where a layer lies.

    Raises
    ------
    PyramidError
        If it is rotated, sheared or mirrored, so that its pixels have no plain size.
    """
    matrix, origin = affine(layer)
    diagonal = np.diag(matrix)
    skew = np.abs(matrix - np.diag(diagonal)).max()
    if skew > 1e-6 * np.abs(diagonal).max() or (diagonal <= 0).any():
        raise PyramidError(
            f"The layer {layer.name!r} is rotated, sheared or mirrored; its rows and "
            "columns must run along the axes of the viewer. Reset its transform, or "
            "resample the image first."
        )
    return Placement(
        (float(diagonal[0]), float(diagonal[1])), (float(origin[0]), float(origin[1]))
    )


def _micrometres(layer: Layer, values: Pair) -> Pair | None:
    """Napari world lengths (y, x) in micrometres; None where the unit is no length."""
    converted = []
    for value, unit in zip(values, layer.units[-2:], strict=True):
        if not unit.is_compatible_with("micrometer"):
            return None
        converted.append(float((value * unit).to("micrometer").magnitude))
    return converted[0], converted[1]


def layer_pixel_size(layer: Layer) -> Pair | None:
    """Micrometres (y, x) of a layer's finest pixel; None where they are unknown."""
    return _micrometres(layer, placement(layer).scale)


class _Uncached:
    """A dask array read past dask's caches.

    napari installs a cache that keeps a quarter of the memory; a training that reads
    random crops would fill it with chunks that nobody asks for again.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype = array.dtype
        self.chunks = array.chunks

    def __getitem__(self, key: Any) -> Any:
        return self.array[key].compute(scheduler="synchronous", callbacks=())


def plain_array(array: Any) -> Any:
    """Return the zarr array behind a dask array where there is one."""
    graph = getattr(array, "dask", None)
    if graph is None:
        return array
    layers = list(graph.layers.values())
    # One layer for the array itself and one that cuts it into chunks: nothing else
    # was done to it.
    if len(layers) == 2 and len(layers[0]) == 1:
        inner = next(iter(layers[0].values()))
        if getattr(inner, "shape", None) == array.shape and inner.dtype == array.dtype:
            return inner
    return _Uncached(array)


def layer_arrays(layer: Image | Labels) -> list[Any]:
    """Return the levels of a layer as zarr or numpy arrays, finest first."""
    data = list(layer.data) if layer.multiscale else [layer.data]
    # What is averaged for the screen is not in the file.
    stored = [array for array in data if not isinstance(array, AveragedView)]
    return [plain_array(array) for array in stored]


def layer_path(layer: Layer) -> Path | None:
    """Return the file that a layer was read from, or None when it is in memory."""
    # Readers say it in the source, our sample in the metadata.
    for said in (layer.source.path, layer.metadata.get("path")):
        if said and Path(said).exists():
            return Path(said)
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    root = getattr(getattr(plain_array(data), "store", None), "root", None)
    if root is None or not Path(root).exists():
        return None
    inside = [p for p in (Path(root), *Path(root).parents) if p.suffix == ".zarr"]
    return inside[-1] if inside else Path(root)


def layer_pyramid(
    layer: Image | Labels, point: Sequence[float] | None = None
) -> Pyramid:
    """See a layer as the core sees a slide.

    Parameters
    ----------
    layer
        Image (RGB or grey) or Labels layer; numpy, zarr or dask; any number of levels.
    point
        ``viewer.dims.point``: chooses the plane of a stack. None: the first one.

    Raises
    ------
    PyramidError
        If the layer is rotated, sheared, mirrored or its levels do not fit.
    """
    place = placement(layer)
    arrays = layer_arrays(layer)
    axes, stack = _axes(layer)
    fixed = _plane(layer, stack, point)
    rgb = bool(getattr(layer, "rgb", False))
    row = axes.index("y")
    finest = arrays[0].shape
    levels = []
    for array in arrays:
        plane = {
            axis: min(
                index * array.shape[axes.index(axis)] // finest[axes.index(axis)],
                array.shape[axes.index(axis)] - 1,
            )
            for axis, index in fixed.items()
        }
        source = _source(array, axes, plane, rgb)
        if isinstance(array, LevelView):
            # Where the file says that it lies.
            levels.append(dataclasses.replace(array.level, source=source))
            continue
        shape = array.shape[row : row + 2]
        levels.append(
            PyramidLevel(source, _factors(finest[row : row + 2], shape), (0.0, 0.0))
        )
    return Pyramid(
        levels=tuple(levels),
        name=layer.name,
        pixel_size=_micrometres(layer, place.scale),
        translation=_micrometres(layer, place.translate),
        # A plane of a stack is not what opening the file again would give.
        path=None if stack else layer_path(layer),
        rgb=rgb,
        note=_note(fixed),
    )


def _source(array: Any, axes: str, plane: Mapping[str, int], rgb: bool) -> ArraySource:
    """Return a level as the core reads it; ours as it is in its file."""
    if not isinstance(array, LevelView):
        return ArraySource(
            array, axes, fixed=plane, channels=(0, 1, 2) if rgb else None
        )
    source = array.at([plane.get(a, 0) for a in axes[: len(array.leading)]])
    if array.channel is None:
        return source
    own = source.channels or tuple(range(source.shape[0]))
    return dataclasses.replace(source, channels=(own[array.channel],))


def _axes(layer: Image | Labels) -> tuple[str, str]:
    """Return one letter an array axis, and the letters of the stack axes."""
    labels = [str(a).lower() for a in layer.axis_labels[:-2]]
    # Our own layers name their axes by one letter each: t stays t and z stays z.
    letters = iter(a for a in LEADING_AXES if a not in labels)
    leading = ""
    for label in labels:
        if label in CHANNEL_LABELS and "c" not in leading:
            leading += "c"
        elif label in LEADING_AXES and label not in leading:
            leading += label
        else:
            leading += next(letters)
    trailing = "yxc" if getattr(layer, "rgb", False) else "yx"
    return leading + trailing, leading.replace("c", "")


def _plane(layer: Layer, stack: str, point: Sequence[float] | None) -> dict[str, int]:
    """Return the index along each stack axis that is shown now."""
    if not stack:
        return {}
    axes = _axes(layer)[0]
    if point is None:
        return dict.fromkeys(stack, 0)
    position = np.asarray(layer.world_to_data(point))
    plane = {}
    for axis in stack:
        where = axes.index(axis)
        last = layer.data.shape[where] - 1
        plane[axis] = int(np.clip(round(float(position[where])), 0, last))
    return plane


def shown_planes(
    image: Image, point: Sequence[float] | None = None
) -> dict[str, int] | None:
    """Return the index along each axis of its file of the plane that is shown now.

    None where the layer is a stack that our reader did not open: then the names of its
    axes say nothing about the file.
    """
    _, stack = _axes(image)
    if not stack:
        return {}
    data = image.data[0] if image.multiscale else image.data
    return _plane(image, stack, point) if isinstance(data, LevelView) else None


def shown_plane(image: Layer, point: Sequence[float] | None = None) -> tuple[int, int]:
    """Return (z, t) of the plane of an image that is shown now; 0 without such an axis.

    By the names of the axes; one stack axis that is not named so counts as z.
    """
    axes, stack = _axes(image)
    shown = _plane(image, stack, point)
    named = {
        str(image.axis_labels[axes.index(axis)]).lower()[:1]: index
        for axis, index in shown.items()
    }
    if named.keys() & {"z", "t"}:
        return named.get("z", 0), named.get("t", 0)
    if len(stack) == 1:
        return shown[stack], 0
    return shown.get("z", 0), shown.get("t", 0)


def _note(fixed: Mapping[str, int]) -> str:
    if not fixed:
        return ""
    where = ", ".join(f"{axis} = {index}" for axis, index in fixed.items())
    return f"The plane on screen is used ({where})."


def _factors(finest: Sequence[int], shape: Sequence[int]) -> Pair:
    """Return the scale factors (y, x) of a level, whole and equal where it is meant."""
    ratios = [n / m for n, m in zip(finest, shape, strict=True)]
    # Short sides are rounded most, so the long side says what was meant.
    meant = round(ratios[int(np.argmax(shape))])
    if meant >= 1 and all(
        abs(r - meant) <= FACTOR_TOLERANCE * meant or abs(n / meant - m) < 1
        for r, n, m in zip(ratios, finest, shape, strict=True)
    ):
        return float(meant), float(meant)
    return ratios[0], ratios[1]


def layer_kwargs(image: Image) -> dict[str, Any]:
    """Return what puts a new 2D layer in the pixels of ``image`` exactly upon it."""
    place = placement(image)
    return {
        "scale": place.scale,
        "translate": place.translate,
        "units": tuple(image.units[-2:]),
        "axis_labels": tuple(image.axis_labels[-2:]),
    }


def visible_box(viewer: ViewerModel, image: Image) -> Box | None:
    """Return what is on screen in slide pixels; None when no part of the slide is."""
    if viewer.dims.ndisplay != 2:
        return None
    camera = getattr(viewer, "scene", viewer).camera
    canvas = getattr(viewer, "canvas", None)
    size = np.asarray(canvas.size if canvas is not None else viewer._canvas_size)
    centre = np.asarray(camera.center, dtype=np.float64)[-2:]
    half = size.astype(np.float64) / camera.zoom / 2
    if viewer.dims.displayed[0] > viewer.dims.displayed[1]:  # shown transposed
        centre, half = centre[::-1], half[::-1]
    corners = placement(image).to_pixels(np.stack([centre - half, centre + half]))
    height, width = plane_shape(image)
    lower = np.clip(corners[0], 0, (height, width))
    upper = np.clip(corners[1], 0, (height, width))
    if (upper <= lower).any():
        return None
    return Box(tuple(lower), tuple(upper))


def plane_shape(layer: Image | Labels) -> tuple[int, int]:
    """Return (height, width) of the finest level."""
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    row = len(layer.axis_labels) - 2
    return int(shape[row]), int(shape[row + 1])
