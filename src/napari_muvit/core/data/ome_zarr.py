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
from .arrays import ArraySource
from .plain import guess_axes, levels_from_arrays
from .pyramid import Pyramid, PyramidLevel
from .units import is_pixel_size, micrometres, snap_factors
from .zarr_checks import check_chunks, check_markers, inner_path
from .zarr_nodes import (
    LabelInfo,
    is_zarr,
    ome_attributes,
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

MAX_STEPS = 4
"""Groups inside groups that are followed: plate, well, field, and one to spare."""
_RGB_NAMES = ({"r", "red"}, {"g", "green"}, {"b", "blue"})
_RGB_COLORS = ("FF0000", "00FF00", "0000FF")


def open_ome_zarr(path: str | Path, name: str | None = None) -> Pyramid:
    """Open an OME-Zarr image, a plain zarr array or a group of plain arrays.

    Axes other than y, x and c are fixed at their first index, of a plate or a
    collection the first image is taken; ``note`` says so.

    Parameters
    ----------
    path
        Folder of the group or array.
    name
        Of the pyramid; None: the folder's name.

    Raises
    ------
    ImageNotFoundError
        If there is nothing at ``path``.
    PyramidError
        If it is no image, or its metadata contradict the format.
    """
    path = Path(path)
    name = name or path.name.split(".")[0]
    node = open_node(path)
    if isinstance(node, zarr.Array):
        return _open_plain(path, [node], name)
    notes: list[str] = []
    where = path
    for _ in range(MAX_STEPS):
        attributes = ome_attributes(node)
        if "multiscales" in attributes:
            return _open_multiscale(path, where, node, attributes, name, notes)
        step = _first_inside(node, attributes, where)
        if step is None:
            break
        inside, note = step
        where = where / inside
        node = open_node(where)
        notes.append(note)
        if isinstance(node, zarr.Array):
            raise PyramidError(f"{where} is an array, but an image group is needed.")
    return _open_plain(path, _numbered_arrays(node, path), name)


def open_label_pyramid(path: str | Path) -> Pyramid:
    """Open a label image, such as a prediction, and check that it holds integers."""
    pyramid = open_ome_zarr(path)
    if pyramid.dtype.kind not in "bui" or pyramid.num_channels != 1:
        raise PyramidError(
            f"{path} is no label image: it holds {pyramid.num_channels} channel(s) of "
            f"type {pyramid.dtype}; one channel of integers is needed."
        )
    return pyramid


def _first_inside(
    group: zarr.Group, attributes: Mapping[str, Any], where: Path
) -> tuple[str, str] | None:
    """Path of the first image in a plate, well or collection, and what to say."""
    try:
        if "plate" in attributes:
            well = inner_path(attributes["plate"]["wells"][0]["path"], where)
            return well, f"the first well ({well}) of a plate"
        if "well" in attributes:
            field = inner_path(attributes["well"]["images"][0]["path"], where)
            return field, f"its first field ({field})"
        if "labels" in attributes:
            first = inner_path(attributes["labels"][0], where)
            return first, f"the first label image ({first})"
        if "series" in attributes or "bioformats2raw.layout" in attributes:
            first = inner_path(_first_series(attributes, where), where)
            return first, f"the first image ({first}) of a collection"
    except (KeyError, IndexError, TypeError) as error:
        raise PyramidError(
            f"{where} lists no image in its metadata ({type(error).__name__}: {error})."
        ) from error
    check_markers(where / "0")
    if isinstance(_member(group, "0"), zarr.Group):
        # Wells and collections whose own metadata got lost.
        return "0", "its first image (0)"
    return None


def _member(group: zarr.Group, name: str) -> zarr.Array[Any] | zarr.Group | None:
    """Return a node of a group; None where there is none that can be read."""
    try:
        return group.get(name)
    except Exception:  # noqa: BLE001 - damaged metadata may raise anything
        return None


def _first_series(attributes: Mapping[str, Any], where: Path) -> Any:
    """First image of a bioformats2raw container, which lists them in OME/."""
    listed = attributes.get("series")
    if listed is None and is_zarr(where / "OME"):
        node = open_node(where / "OME")
        if isinstance(node, zarr.Group):
            listed = ome_attributes(node).get("series")
    return listed[0] if listed else "0"


def _open_multiscale(
    path: Path,
    where: Path,
    group: zarr.Group,
    attributes: Mapping[str, Any],
    name: str,
    notes: Sequence[str],
) -> Pyramid:
    multiscale, units = _validated(where, attributes)
    axes = _axis_letters(where, [(a.name, a.type) for a in multiscale.axes])
    arrays = [_array(group, dataset.path, where) for dataset in multiscale.datasets]
    spatial = [axes.index(a) for a in "yx"]
    scales, places = _transforms(multiscale, spatial)
    if not np.isfinite(places).all():
        raise PyramidError(
            f"The OME-Zarr metadata of {where} are wrong: they hold a translation that "
            "is no finite number."
        )
    levels = _levels(arrays, axes, scales, places)
    _check_overlap(where, levels)
    factors = [units[i] for i in spatial]
    pixel_size = translation = None
    if all(f is not None for f in factors):
        in_um = np.asarray(factors, dtype=float)
        translation = tuple(float(v) for v in places[0] * in_um)
        if is_pixel_size(scales[0] * in_um):
            pixel_size = tuple(float(v) for v in scales[0] * in_um)
        else:
            notes = [*notes, f"its pixel size {scales[0]} cannot be used"]
    fixed = [
        f"{axis} is fixed at the first of {n}"
        for axis, n in zip(axes, arrays[0].shape, strict=True)
        if axis not in "cyx" and n > 1
    ]
    channels = _omero_channels(attributes, levels[0].source.shape[0])
    names = tuple(str(c.get("label") or "") for c in channels)
    return Pyramid(
        levels=levels,
        name=name,
        pixel_size=pixel_size,
        translation=translation,
        path=path,
        rgb=_looks_rgb(channels, levels[0].source),
        channel_names=names if any(names) else (),
        note="; ".join([*notes, *fixed]),
    )


def _is_size(values: NDArray[np.float64]) -> bool:
    return bool(np.all(np.isfinite(values) & (values > 0)))


def _validated(
    where: Path, attributes: Mapping[str, Any]
) -> tuple[v04.Multiscale | v05.Multiscale, list[float | None]]:
    """Check the first multiscale; return it with micrometres per unit of each axis."""
    listed = attributes["multiscales"]
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], Mapping):
        raise PyramidError(f"{where} has an empty or broken 'multiscales' entry.")
    first = dict(listed[0])
    units: list[float | None] = []
    axes = first.get("axes")
    if isinstance(axes, list) and all(isinstance(a, Mapping) for a in axes):
        units = [micrometres(a.get("unit")) for a in axes]
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


def _axis_letters(where: Path, axes: Sequence[tuple[str, str | None]]) -> str:
    """One letter an axis; the last two spatial axes are y and x if not named so."""
    letters: list[str] = []
    spare = iter("abdefghijklmnopqrsuvw")
    for name, kind in axes:
        known = {"time": "t", "channel": "c"}.get(kind or "")
        letter = known or (name.lower() if name.lower() in list("tczyx") else None)
        letters.append(letter if letter and letter not in letters else next(spare))
    if not {"y", "x"} <= set(letters):
        space = [i for i, (_, kind) in enumerate(axes) if kind == "space"]
        if len(space) < 2:
            raise PyramidError(f"{where} has no y and x axes, only {axes}.")
        for letter, index in zip("yx", space[-2:], strict=True):
            letters[index] = letter
    return "".join(letters)


def _array(group: zarr.Group, inside: str, where: Path) -> zarr.Array[Any]:
    check_markers(where / inside)
    try:
        node = group[inside]
    except Exception as error:
        raise PyramidError(
            f"{where} names a level {inside!r} that cannot be read: {one_line(error)}"
        ) from error
    if not isinstance(node, zarr.Array):
        raise PyramidError(f"The level {inside!r} of {where} is no array.")
    check_chunks(node, where / inside)
    return node


def _transforms(
    multiscale: v04.Multiscale | v05.Multiscale, spatial: Sequence[int]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Pixel size and centre of pixel 0 of each level, in the file's unit, (y, x)."""
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
    arrays: Sequence[zarr.Array[Any]],
    axes: str,
    scales: Sequence[NDArray[np.float64]],
    places: Sequence[NDArray[np.float64]],
) -> tuple[PyramidLevel, ...]:
    sources = [ArraySource(array, axes) for array in arrays]
    finest = sources[0].shape[1:]
    placed = any(not np.allclose(place, places[0]) for place in places)
    levels = []
    for source, scale, place in zip(sources, scales, places, strict=True):
        factors = snap_factors(finest, source.shape[1:], _ratio(scale, scales[0]))
        offset = np.zeros(len(factors))
        if placed and _is_size(scales[0]):
            centre = (place - places[0]) / scales[0]
            offset = centre + 0.5 - np.asarray(factors) / 2
            offset = np.where(np.abs(offset) < 0.01, 0.0, offset)
        levels.append(PyramidLevel(source, factors, tuple(float(v) for v in offset)))
    return tuple(levels)


def _check_overlap(where: Path, levels: Sequence[PyramidLevel]) -> None:
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


def _numbered_arrays(group: zarr.Group, path: Path) -> list[zarr.Array[Any]]:
    """Arrays of a group without metadata, named 0, 1, 2 ... or the only one there."""
    for folder in path.iterdir():
        check_markers(folder)
    try:
        arrays = dict(group.arrays())
    except Exception as error:
        raise PyramidError(
            f"{path} is no image that can be read: {one_line(error)}"
        ) from error
    for name, array in arrays.items():
        check_chunks(array, path / name)
    numbered = sorted((k for k in arrays if k.isdigit()), key=int)
    if numbered:
        return [arrays[k] for k in numbered]
    if len(arrays) == 1:
        return list(arrays.values())
    raise PyramidError(
        f"{path} is a zarr group without an image: it has no OME metadata and no "
        "arrays named 0, 1, ..."
    )


def _open_plain(path: Path, arrays: Sequence[zarr.Array[Any]], name: str) -> Pyramid:
    dimensions = getattr(arrays[0].metadata, "dimension_names", None)
    axes, rgb = guess_axes(arrays[0].shape, dimensions)
    return Pyramid(
        levels=levels_from_arrays(arrays, axes, rgb),
        name=name,
        path=path,
        rgb=rgb and np.dtype(arrays[0].dtype) == np.uint8,
        note="a zarr without OME metadata: axes and factors follow from the shapes",
    )
