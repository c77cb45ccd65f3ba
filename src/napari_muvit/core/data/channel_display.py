"""How an OME-Zarr wants its channels to be shown: colours and ranges."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zarr

from .place import Place
from .zarr_nodes import ome_attributes, open_node


@dataclass(frozen=True, slots=True)
class ChannelDisplay:
    """What a file says of a channel."""

    color: str | None = None
    """``#rrggbb``; None: not said."""
    limits: tuple[float, float] | None = None
    """Values shown black and bright; None: not said, or all that the type holds."""


def channel_displays(place: Place | None, count: int) -> tuple[ChannelDisplay, ...]:
    """Return what the ``omero`` part of the metadata says of each channel.

    Parameters
    ----------
    place
        The zarr group; None, or one without such metadata: nothing is said.
    count
        Channels of the image; a list of another length is not believed.
    """
    unsaid = (ChannelDisplay(),) * count
    node = None if place is None else open_node(place)
    if not isinstance(node, zarr.Group):
        return unsaid
    omero = ome_attributes(node).get("omero")
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(channels, list) or len(channels) != count:
        return unsaid
    return tuple(
        ChannelDisplay(_color(c.get("color")), _limits(c.get("window")))
        if isinstance(c, Mapping)
        else ChannelDisplay()
        for c in channels
    )


def _color(text: object) -> str | None:
    found = re.fullmatch("#?([0-9a-fA-F]{6})", str(text).strip())
    return None if found is None else f"#{found[1].lower()}"


def _limits(window: Any) -> tuple[float, float] | None:
    """Start and end of a window that somebody chose."""
    if not isinstance(window, Mapping):
        return None
    try:
        low, high = float(window["start"]), float(window["end"])
    except (LookupError, TypeError, ValueError, OverflowError):
        return None
    # The whole range of 16 bits is what writers put that know none.
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return None
    return None if (low, high) == (0.0, 65535.0) else (low, high)
