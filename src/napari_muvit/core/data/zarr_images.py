"""Find an image in a plate, a well or a collection of a zarr store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zarr

from ..errors import PyramidError
from .choice import choose_image
from .place import Place
from .zarr_checks import inner_path
from .zarr_nodes import ome_attributes, open_node

MAX_STEPS = 4
"""Groups inside groups that are followed: plate, well, field, and one to spare."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """A group with an image in it."""

    place: Place
    """Where it lies."""
    group: zarr.Group
    """The group, open."""
    attributes: Mapping[str, Any]
    """Its OME metadata; without ``multiscales`` it holds plain arrays at most."""
    path: str = ""
    """Path from where the search began, as `Choice.image` takes it."""
    images: tuple[str, ...] = ()
    """What the first group offered to choose from."""
    notes: tuple[str, ...] = ()
    """Which images were taken without being asked for."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """What a group without an image of its own leads to."""

    note: str
    """What to say when the first one is taken, with a place for its path."""
    paths: tuple[str, ...]


def find_image(place: Place, group: zarr.Group, wanted: str | None) -> FoundImage:
    """Follow a plate, well or collection to one of its images.

    Parameters
    ----------
    place, group
        Where to begin.
    wanted
        Path of the image (``B/03/0``, ``labels/cells``) or its index in the list;
        None: the first one. A well alone means its first field.

    Raises
    ------
    PyramidError
        If there is no such image; the message lists those that there are.
    """
    images: tuple[str, ...] = ()
    notes: list[str] = []
    path, left = "", wanted or ""
    for _ in range(MAX_STEPS):
        attributes = ome_attributes(group)
        offer = _offer(place, attributes, wanted=bool(left))
        if offer is None:
            break
        if not images and not path:
            images = offer.paths
        if left:
            number, left = choose_image(left, offer.paths, place)
            step = offer.paths[number]
        else:
            step = offer.paths[0]
            notes.append(offer.note.format(step))
        path = f"{path}/{step}".strip("/")
        place = place / step
        node = open_node(place)
        if isinstance(node, zarr.Array):
            raise PyramidError(f"{place} is an array, but an image group is needed.")
        group = node
    if left:
        raise PyramidError(f"{place} has no image {left!r}; it holds one image only.")
    found = ome_attributes(group)
    return FoundImage(place, group, found, path, images, tuple(notes))


def _offer(place: Place, attributes: Mapping[str, Any], wanted: bool) -> _Offer | None:
    """Images below a group; None where it is an image, or leads nowhere."""
    if "multiscales" in attributes:
        # An image may hold labels, which are taken only when asked for.
        labels = _labels_of(place) if wanted else ()
        return _Offer("", labels) if labels else None
    try:
        for key, note, paths in (
            (
                "plate",
                "the first well ({}) of a plate",
                _listed(attributes, "plate", "wells"),
            ),
            ("well", "its first field ({})", _listed(attributes, "well", "images")),
            (
                "labels",
                "the first label image ({})",
                tuple(attributes.get("labels", ())),
            ),
        ):
            if key in attributes:
                return _Offer(note, _checked(paths, place))
        if "series" in attributes or "bioformats2raw.layout" in attributes:
            paths = _series(attributes, place)
            return _Offer(
                "the first image ({}) of a collection", _checked(paths, place)
            )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise PyramidError(
            f"{place} lists no image in its metadata ({type(error).__name__}: {error})."
        ) from error
    if isinstance(_member(place, "0"), zarr.Group):
        # Wells and collections whose own metadata got lost.
        return _Offer("its first image ({})", ("0",))
    return None


def _listed(attributes: Mapping[str, Any], key: str, inside: str) -> tuple[Any, ...]:
    if key not in attributes:
        return ()
    return tuple(entry["path"] for entry in attributes[key][inside])


def _checked(paths: tuple[Any, ...], place: Place) -> tuple[str, ...]:
    if not paths:
        raise IndexError("the list is empty")
    return tuple(inner_path(path, place) for path in paths)


def _labels_of(place: Place) -> tuple[str, ...]:
    labels = _member(place, "labels")
    if not isinstance(labels, zarr.Group):
        return ()
    listed = ome_attributes(labels).get("labels")
    names = listed if isinstance(listed, list) else []
    return tuple(f"labels/{name}" for name in names)


def _series(attributes: Mapping[str, Any], place: Place) -> tuple[Any, ...]:
    """Images of a bioformats2raw container: listed in OME/, or numbered."""
    listed = attributes.get("series")
    if listed is None:
        node = _member(place, "OME")
        if isinstance(node, zarr.Group):
            listed = ome_attributes(node).get("series")
    if listed:
        return tuple(listed)
    count = 1
    while count < 1000 and isinstance(_member(place, str(count)), zarr.Group):
        count += 1
    return tuple(map(str, range(count)))


def _member(place: Place, name: str) -> zarr.Array[Any] | zarr.Group | None:
    """A node below a place; None where there is none that can be read."""
    try:
        return open_node(place / name)
    except PyramidError:
        return None
