"""What several subcommands have in common: how slides are read, and output."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError

if TYPE_CHECKING:
    import argparse

EXIT_MISTAKE = 2
EXIT_STOPPED = 130
Commands = Any  # argparse's own type is private


def add_reading(add: Callable[..., argparse.Action]) -> None:
    """Add how slides are read."""
    add_inside(add, "files")
    add("--channels", help="channels by name, or counted from 0, such as DAPI,2")
    add(
        "--pixel-size",
        type=float,
        metavar="UM",
        help="of all slides, whatever they say",
    )


def add_inside(add: Callable[..., argparse.Action], what: str) -> None:
    """Add what is taken of files with several images or planes."""
    add(
        "--image",
        dest="inside",
        metavar="NAME",
        help=f"which image of {what} with several, such as B/03/0 of a plate",
    )
    add(
        "--plane",
        metavar="AXIS=N",
        help=f"which plane of {what} that are stacks, such as z=10,t=0",
    )


def add_no_cache(add: Callable[..., argparse.Action]) -> None:
    add(
        "--no-cache", action="store_true", help="keep no coarse levels of flat slides"
    )  # fmt: skip


def cache_settings(arguments: argparse.Namespace) -> Any:
    """Where coarse levels are kept; None: as the environment says."""
    from ..core.data.cache_settings import CacheSettings

    return CacheSettings(enabled=False) if arguments.no_cache else None


def open_image(path: str, arguments: argparse.Namespace) -> Any:
    from ..core.data.open import open_pyramid

    return open_pyramid(path, **reading_options(arguments))


def reading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """How slides are read, as `open_pyramid` takes it."""
    channels = arguments.channels
    return {
        "image": arguments.inside,
        "planes": planes(arguments.plane),
        "channels": [c.strip() for c in channels.split(",")] if channels else None,
        "pixel_size": arguments.pixel_size,
    }


def planes(text: str | None) -> dict[str, int]:
    """``z=10,t=0`` as indices by axis."""
    planes = {}
    for part in text.split(",") if text else ():
        axis, _, index = (side.strip() for side in part.partition("="))
        if not axis or axis in planes or not index.isdecimal():
            raise ConfigError(
                f"--plane is {text!r}; axes and numbers are needed, such as z=10,t=0."
            )
        planes[axis] = int(index)
    return planes


def as_json(content: Any) -> str:
    from ..core.checks import finite_json

    return json.dumps(finite_json(content), indent=2)


def numbers(text: str, kind: type, name: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--{name} is {text!r}; numbers separated by commas are needed."
        ) from error


def split_names(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",")] if text else None
