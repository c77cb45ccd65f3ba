"""Views of a crop: the ways in which it is put through a model; torch-free.

A view says which model, how the world is mirrored or turned, and where the coarser
crops lie. The logits of all views of a crop are averaged. Logits, not logarithms of
probabilities: the two differ by one number a pixel that is the same for all classes, so
labels and probabilities are the same, blended with neighbouring crops or not.

Mirroring is as in training (`data.augment.Turn`): pixels and boxes of all levels
together, so that a model sees a mirrored slide, not a slide whose parts lie elsewhere.

Shapes: B batch, S slots (the fine level, then the coarser levels of one place after the
other), L levels, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from ..data.augment import Turn, alike_axes
from ..errors import ConfigError
from ..geometry import Box, NestedCrop, nest

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import ModelConfig
    from ..data.pyramid import Pyramid
    from ..prediction_config import Average, Placement

PLACES = ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
"""Where coarser crops lie when their places are averaged: shares (y, x) of the room
from which training draws. Of each crop alone, so a region moves none of them."""


@dataclass(frozen=True, slots=True)
class View:
    """One pass of a crop through a model."""

    model: int
    """Which model of those that are averaged."""
    turn: Turn
    """How pixels and boxes are mirrored and turned."""
    place: int
    """Which place of the coarser crops."""


def list_views(models: int, average: Average, places: int) -> tuple[View, ...]:
    """Return all views of a crop, in the order in which they are added up."""
    flips = [(False, False)] if average == "none" else product((False, True), repeat=2)
    orders = ((0, 1), (1, 0)) if average == "all" else ((0, 1),)
    turns = [Turn(flip, order) for order, flip in product(orders, flips)]
    return tuple(View(*parts) for parts in product(range(models), turns, range(places)))


def describe_views(views: Sequence[View]) -> tuple[str, ...]:
    """Say how many passes a crop takes; nothing where it is one."""
    if len(views) == 1:
        return ()
    models = 1 + max(view.model for view in views)
    turns = len({view.turn for view in views})
    places = 1 + max(view.place for view in views)
    counted = (
        (models, "models"), (turns, "mirrored or turned views"),
        (places, "places of its coarser crops"),
    )  # fmt: skip
    parts = " x ".join(f"{count} {what}" for count, what in counted if count > 1)
    return (f"Each crop takes {len(views)} passes ({parts}), which are averaged.",)


def check_turns(pyramid: Pyramid, model: ModelConfig, average: Average) -> None:
    """Raise `ConfigError` where a crop cannot be turned but only mirrored."""
    if average != "all":
        return
    advice = "it can be mirrored but not turned. Choose average flips."
    if len(set(model.patch)) > 1:
        shape = " x ".join(map(str, model.patch))
        raise ConfigError(f"The model has patches of {shape}: {advice}", "average")
    if pyramid.pixel_size is not None:
        sizes = [p / z for p, z in zip(pyramid.pixel_size, pyramid.zoom, strict=True)]
        if len(set(alike_axes(sizes, pyramid.ndim))) > 1:
            shown = " x ".join(f"{size:g}" for size in sizes)
            raise ConfigError(
                f"{pyramid.name} is read in pixels of {shown} {pyramid.unit}: {advice}",
                "average",
            )


def count_places(factors: Sequence[float], placement: Placement) -> int:
    """Return the number of places of the coarser crops of each crop."""
    return len(PLACES) if placement == "averaged" and len(factors) > 1 else 1


def place_coarse(
    fine: Box, factors: Sequence[float], extent: Box, placement: Placement
) -> tuple[NestedCrop, ...]:
    """Put coarser boxes around a finest box, once for each place.

    Parameters
    ----------
    fine
        Box of the finest level.
    factors
        Scale factors of all levels.
    extent
        The slide in world coordinates.
    placement
        As in `PredictionConfig`.
    """
    if placement != "averaged":
        return (nest(fine, factors, None if placement == "centred" else extent),)
    shares = PLACES[: count_places(factors, placement)]
    return tuple(nest(fine, factors, extent, share=share) for share in shares)


def levels_at(slots: Tensor, place: int, places: int) -> Tensor:
    """Return the levels of one place, (B, L, ...) of (B, S, ...)."""
    if places == 1:
        return slots
    count = (slots.shape[1] - 1) // places
    first = 1 + place * count
    return slots[:, [0, *range(first, first + count)]]


def turn_pixels(turn: Turn, pixels: Tensor) -> Tensor:
    """Mirror the last two axes, then turn them; contiguous, as an unturned crop is."""
    return _ordered(turn, _flipped(turn, pixels)).contiguous()


def turn_back(turn: Turn, pixels: Tensor) -> Tensor:
    """Undo `turn_pixels`."""
    return _flipped(turn, _ordered(turn, pixels))


def turn_boxes(turn: Turn, boxes: Tensor, edge: float) -> Tensor:
    """Mirror and turn boxes about the middle of the square from 0 to ``edge``.

    Parameters
    ----------
    turn
        How.
    boxes
        (B, L, 2, 2), from the lower corner of that square.
    edge
        Of the square, world pixels.
    """
    turned = boxes.clone()
    for axis, flip in enumerate(turn.flips):
        if flip:
            # The lower edge comes from the upper one.
            turned[..., axis] = edge - boxes[..., axis].flip(-1)
    return turned[..., list(turn.order)]


def _flipped(turn: Turn, pixels: Tensor) -> Tensor:
    axes = [axis - 2 for axis, flip in enumerate(turn.flips) if flip]
    return pixels.flip(axes) if axes else pixels


def _ordered(turn: Turn, pixels: Tensor) -> Tensor:
    return pixels.transpose(-1, -2) if turn.order == (1, 0) else pixels
