"""OME-Zarr 0.4 and 0.5 as pyramids; plain zarr arrays and groups of them too.

A level's place follows from its ``scale`` and ``translation`` relative to the finest
level. Files without translations, or with the same one everywhere, are taken to have
levels whose outer edges agree, which is what averaging in blocks gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError
from yaozarrs import v04, v05

from ..errors import PyramidError
from ..geometry import Vector
from .arrays import ArraySource
from .choice import FIRST, AxisNames, Choice
from .file_grid import file_grid
from .place import Place, find_place
from .plain import guess_axes, levels_from_arrays
from .pyramid import Pyramid, PyramidLevel
from .units import is_pixel_size, level_factors, micrometres
from .zarr_checks import check_chunks, check_markers
from .zarr_images import FoundImage, find_image
from .zarr_nodes import (
    LabelInfo,
    is_zarr,
    one_line,
    open_node,
    read_label_info,
)
from .zarr_writer import create_label_pyramid, write_pyramid

__all__ = [
    "LabelInfo",
    "create_label_pyramid",
    "is_zarr",
    "open_label_pyramid",
    "open_ome_zarr",
    "read_label_info",
    "write_pyramid",
]

_RGB_NAMES = ({"r", "red"}, {"g", "green"}, {"b", "blue"})
_RGB_COLORS = ("FF0000", "00FF00", "0000FF")


def open_ome_zarr(
    source: str | Path | Place,
    name: str | None = None,
    choice: Choice = FIRST,
) -> Pyramid:
    """Open an OME-Zarr image, a plain zarr array or a group of plain arrays.

    Parameters
    ----------
    source
        Folder, zip or web address of the group or array.
    name
        Of the pyramid; None: the folder's name.
    choice
        Image, planes and spatial axes. What is not chosen is the first: ``note`` of
        the pyramid says so.

    Raises
    ------
    ImageNotFoundError
        If there is nothing at ``source``.
    MissingExtraError
        If a web address needs packages that are not installed.
    PyramidError
        If it is no image, its metadata contradict the format, or there is no such
        image or plane.
    """
    place = find_place(source)
    name = name or str(place.root).rstrip("/").rsplit("/", 1)[-1].split(".")[0]
    node = open_node(place)
    if isinstance(node, zarr.Array):
        if choice.image:
            raise PyramidError(f"{place} is one array; image={choice.image!r} is not.")
        return _open_plain(place, [node], name, choice)
    found = find_image(place, node, choice.image)
    if "multiscales" in found.attributes:
        return _open_multiscale(found, name, choice)
    arrays = _numbered_arrays(found.group, found.place)
    return _open_plain(found.place, arrays, name, choice)


def open_label_pyramid(path: str | Path) -> Pyramid:
    """Open a label image, such as a prediction, and check that it holds integers."""
    pyramid = open_ome_zarr(path)
    if pyramid.dtype.kind not in "bui" or pyramid.num_channels != 1:
        raise PyramidError(
            f"{path} is no label image: it holds {pyramid.num_channels} channel(s) of "
            f"type {pyramid.dtype}; one channel of integers is needed."
        )
    return pyramid


def _open_multiscale(found: FoundImage, name: str, choice: Choice) -> Pyramid:
    place, attributes = found.place, found.attributes
    multiscale, unit_names = _validated(place, attributes)
    units = [micrometres(name) for name in unit_names]
    letters = _axis_letters(place, [(a.name, a.type) for a in multiscale.axes])
    arrays = [
        _array(found.group, dataset.path, place) for dataset in multiscale.datasets
    ]
    axes = AxisNames(
        letters, tuple(arrays[0].shape), tuple(a.name for a in multiscale.axes)
    )
    planes = axes.pick(choice, place)
    spatial = [letters.index(a) for a in choice.spatial]
    scales, places = _transforms(multiscale, spatial)
    sources = [
        ArraySource(a, letters, choice.spatial, axes.at_level(planes, a.shape))
        for a in arrays
    ]
    levels = _levels(place, sources, scales, places)
    pixel_size, translation = _physical(scales[0], places[0], units, spatial)
    notes = [*found.notes, *axes.note(planes, choice)]
    if translation is not None and pixel_size is None:
        notes.append(f"its pixel size {scales[0]} cannot be used")
    channels = _omero_channels(attributes, sources[0].shape[0])
    names = tuple(str(c.get("label") or "") for c in channels)
    return Pyramid(
        levels=levels,
        name=name,
        pixel_size=pixel_size,
        translation=translation,
        path=place.local_root,
        url=place.url,
        rgb=_looks_rgb(channels, sources[0]),
        channel_names=names if any(names) else (),
        note="; ".join(notes),
        contents=axes.contents(
            f"zarr {place.kind}",
            planes,
            image=found.path,
            images=found.images,
            place=place,
            grid=file_grid(scales[0], places[0], [unit_names[i] for i in spatial]),
        ),
    )


def _physical(
    scale: NDArray[np.float64],
    place: NDArray[np.float64],
    units: Sequence[float | None],
    spatial: Sequence[int],
) -> tuple[Vector | None, Vector | None]:
    """Pixel size and translation in micrometres, where they are known and usable."""
    factors = [units[i] for i in spatial]
    if any(f is None for f in factors):
        return None, None
    in_um = np.asarray(factors, dtype=float)
    size, origin = scale * in_um, place * in_um
    at = tuple(float(v) for v in origin)
    return (tuple(float(v) for v in size) if is_pixel_size(size) else None), at


def _is_size(values: NDArray[np.float64]) -> bool:
    return bool(np.all(np.isfinite(values) & (values > 0)))


def _validated(
    where: Place, attributes: Mapping[str, Any]
) -> tuple[v04.Multiscale | v05.Multiscale, list[Any]]:
    """Check the first multiscale; return it with the unit of each axis."""
    listed = attributes["multiscales"]
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], Mapping):
        raise PyramidError(f"{where} has an empty or broken 'multiscales' entry.")
    first = dict(listed[0])
    units: list[Any] = []
    axes = first.get("axes")
    if isinstance(axes, list) and all(isinstance(a, Mapping) for a in axes):
        units = [a.get("unit") for a in axes]
        # The model warns of units that it does not know; they are read above.
        first["axes"] = [
            {k: v for k, v in axis.items() if k != "unit"} for axis in axes
        ]
    datasets = first.get("datasets")
    if isinstance(datasets, list) and all(isinstance(d, Mapping) for d in datasets):
        # Some writers leave the quotes out: {"path": 0}.
        first["datasets"] = [
            {**d, "path": str(d["path"])} if isinstance(d.get("path"), int) else d
            for d in datasets
        ]
    is_05 = attributes.get("version") == "0.5"
    model = v05.Multiscale if is_05 else v04.Multiscale
    if not is_05:
        first["version"] = "0.4" if first.get("version") is None else first["version"]
    try:
        return model.model_validate(first), units
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(p) for p in problem["loc"]) or "multiscales"
        raise PyramidError(
            f"The OME-Zarr metadata of {where} are wrong at {place}: "
            f"{one_line(ValueError(problem['msg']))}"
        ) from error


def _axis_letters(where: Place, axes: Sequence[tuple[str, str | None]]) -> str:
    """One letter an axis; the last spatial axes are z, y and x if not named so."""
    letters: list[str] = []
    spare = iter("abdefghijklmnopqrsuvw")
    for name, kind in axes:
        known = {"time": "t", "channel": "c"}.get(kind or "")
        letter = known or (name.lower() if name.lower() in list("tczyx") else None)
        letters.append(letter if letter and letter not in letters else next(spare))
    if not {"y", "x"} <= set(letters):
        space = [i for i, (_, kind) in enumerate(axes) if kind == "space"][-3:]
        if len(space) < 2:
            raise PyramidError(f"{where} has no y and x axes, only {axes}.")
        for letter, index in zip("zyx"[-len(space) :], space, strict=True):
            letters[index] = letter
    return "".join(letters)


def _array(group: zarr.Group, inside: str, where: Place) -> zarr.Array[Any]:
    place = where / inside
    if place.folder is not None:
        check_markers(place.folder)
    try:
        node = group[inside]
    except Exception as error:
        raise PyramidError(
            f"{where} names a level {inside!r} that cannot be read: {one_line(error)}"
        ) from error
    if not isinstance(node, zarr.Array):
        raise PyramidError(f"The level {inside!r} of {where} is no array.")
    check_chunks(node, place)
    return node


def _transforms(
    multiscale: v04.Multiscale | v05.Multiscale, spatial: Sequence[int]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Pixel size and centre of pixel 0 of each level, in the file's unit, spatial."""
    outer_scale = np.ones(len(multiscale.axes))
    outer_place = np.zeros(len(multiscale.axes))
    for transform in multiscale.coordinateTransformations or ():
        if transform.type == "scale":
            outer_scale = np.asarray(transform.scale, dtype=float)
        else:
            outer_place = np.asarray(transform.translation, dtype=float)
    scales, places = [], []
    pick = list(spatial)
    for dataset in multiscale.datasets:
        scale, place = np.ones_like(outer_scale), np.zeros_like(outer_place)
        for transform in dataset.coordinateTransformations:
            if transform.type == "scale":
                scale = np.asarray(transform.scale, dtype=float)
            else:
                place = np.asarray(transform.translation, dtype=float)
        scales.append((scale * outer_scale)[pick])
        places.append((place * outer_scale + outer_place)[pick])
    return scales, places


def _levels(
    where: Place,
    sources: Sequence[ArraySource],
    scales: Sequence[NDArray[np.float64]],
    places: Sequence[NDArray[np.float64]],
) -> tuple[PyramidLevel, ...]:
    if not np.isfinite(places).all():
        raise PyramidError(
            f"The OME-Zarr metadata of {where} are wrong: they hold a translation that "
            "is no finite number."
        )
    finest = sources[0].shape[1:]
    placed = any(not np.allclose(place, places[0]) for place in places)
    levels = []
    for source, scale, place in zip(sources, scales, places, strict=True):
        factors = level_factors(finest, source.shape[1:], _ratio(scale, scales[0]))
        offset = np.zeros(len(factors))
        if placed and _is_size(scales[0]):
            centre = (place - places[0]) / scales[0]
            offset = centre + 0.5 - np.asarray(factors) / 2
            offset = np.where(np.abs(offset) < 0.01, 0.0, offset)
        levels.append(PyramidLevel(source, factors, tuple(float(v) for v in offset)))
    _check_overlap(where, levels)
    return tuple(levels)


def _check_overlap(where: Place, levels: Sequence[PyramidLevel]) -> None:
    """Refuse a level that shows nothing of the finest one."""
    for number, level in enumerate(levels):
        sizes = zip(
            level.offset, level.shape, level.scale, levels[0].shape, strict=True
        )
        if any(o >= size or o + n * s <= 0 for o, n, s, size in sizes):
            raise PyramidError(
                f"The OME-Zarr metadata of {where} are wrong: the translation of level "
                f"{number} places it outside of the finest level."
            )


def _ratio(
    scale: NDArray[np.float64], finest: NDArray[np.float64]
) -> tuple[float, ...] | None:
    if not (_is_size(scale) and _is_size(finest)):
        return None
    return tuple(float(v) for v in scale / finest)


def _omero_channels(
    attributes: Mapping[str, Any], count: int
) -> list[Mapping[str, Any]]:
    """Channel entries of ``omero``, when there is one for each channel."""
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(channels, list) or len(channels) != count:
        return []
    return [c if isinstance(c, Mapping) else {} for c in channels]


def _looks_rgb(channels: Sequence[Mapping[str, Any]], source: ArraySource) -> bool:
    if source.dtype != np.uint8 or len(channels) != 3:
        return False
    named = all(
        str(c.get("label", "")).strip().lower() in names
        for c, names in zip(channels, _RGB_NAMES, strict=True)
    )
    colors = tuple(str(c.get("color", "")).lstrip("#").upper() for c in channels)
    return named or colors == _RGB_COLORS


def _numbered_arrays(group: zarr.Group, place: Place) -> list[zarr.Array[Any]]:
    """Arrays of a group without metadata, named 0, 1, 2 ... or the only one there."""
    if place.url is not None:
        # Most web servers do not list.
        return _counted_arrays(group, place)
    if place.folder is not None:
        for folder in place.folder.iterdir():
            check_markers(folder)
    try:
        arrays = dict(group.arrays())
    except Exception as error:
        raise PyramidError(
            f"{place} is no image that can be read: {one_line(error)}"
        ) from error
    numbered = sorted((k for k in arrays if k.isdigit()), key=int)
    if numbered:
        return [arrays[k] for k in numbered]
    if len(arrays) == 1:
        return list(arrays.values())
    raise _no_image(place)


def _counted_arrays(group: zarr.Group, place: Place) -> list[zarr.Array[Any]]:
    arrays: list[zarr.Array[Any]] = []
    while isinstance(node := group.get(str(len(arrays))), zarr.Array):
        arrays.append(node)
    if not arrays:
        raise _no_image(place)
    return arrays


def _no_image(place: Place) -> PyramidError:
    return PyramidError(
        f"{place} is a zarr group without an image: it has no OME metadata and no "
        "arrays named 0, 1, ..."
    )


def _open_plain(
    place: Place, arrays: Sequence[zarr.Array[Any]], name: str, choice: Choice
) -> Pyramid:
    for array in arrays:
        check_chunks(array, place)
    dimensions = getattr(arrays[0].metadata, "dimension_names", None)
    letters, rgb = guess_axes(arrays[0].shape, dimensions, choice.ndim)
    axes = AxisNames(letters, tuple(arrays[0].shape))
    planes = axes.pick(choice, place)
    known = "a zarr without OME metadata: axes and factors follow from the shapes"
    return Pyramid(
        levels=levels_from_arrays(arrays, axes, rgb, choice.spatial, planes),
        name=name,
        path=place.local_root,
        url=place.url,
        rgb=rgb and np.dtype(arrays[0].dtype) == np.uint8,
        note="; ".join([known, *axes.note(planes, choice)]),
        contents=axes.contents(f"zarr {place.kind}", planes, place=place),
    )
