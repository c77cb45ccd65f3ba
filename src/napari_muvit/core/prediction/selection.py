"""Which tiles are done: those that outlines touch, those with tissue; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data.tissue import TissueMask, find_tissue
from ..errors import ConfigError
from .outlined import polygons_of, touched_tiles

if TYPE_CHECKING:
    from ..config import PredictionConfig
    from ..data.pyramid import Pyramid
    from ..progress import StopFn
    from .plan import PredictionPlan

MARGIN = 1.0
"""Pixels of the tissue mask: what lies as near to tissue is predicted, too."""


def narrowed(
    plan: PredictionPlan,
    pyramid: Pyramid,
    config: PredictionConfig,
    should_stop: StopFn,
) -> PredictionPlan:
    """Return a plan without the tiles that outlines and tissue leave out.

    Parameters
    ----------
    plan
        Of all tiles that the region touches.
    pyramid
        The slide, viewed at the model's pixel size.
    config
        What the user asked for.
    should_stop
        Asked while the slide is looked at for tissue.

    Raises
    ------
    ConfigError
        If nothing is left.
    Cancelled
        If ``should_stop`` said so.
    """
    if config.outlines:
        plan = _outlined(plan, pyramid, config)
    if config.tissue:
        plan = _with_tissue(plan, pyramid, should_stop)
    return plan


def _outlined(
    plan: PredictionPlan, pyramid: Pyramid, config: PredictionConfig
) -> PredictionPlan:
    polygons = polygons_of(config.outlines)
    touched = touched_tiles(polygons, plan.shape, plan.tile_size)
    found = dataclasses.replace(plan, chosen=touched)
    rows, columns = plan.shape
    if not len(found):
        where = " within the region" if config.region else ""
        raise ConfigError(
            f"None of the {len(polygons)} outlines lies on {pyramid.name}{where}, "
            f"which has {rows} x {columns} pixels; outlines are in pixels of its "
            "finest level.",
            "outlines",
        )
    outside = sum(
        bool((p.upper <= 0).any() or (p.lower >= plan.shape).any()) for p in polygons
    )
    if not outside:
        return found
    note = f"{outside} of {len(polygons)} outlines lie outside {pyramid.name}."
    return dataclasses.replace(found, notes=(*plan.notes, note))


def _with_tissue(
    plan: PredictionPlan, pyramid: Pyramid, should_stop: StopFn
) -> PredictionPlan:
    tissue = find_tissue(pyramid, should_stop=should_stop)
    if tissue.background == "none" or not tissue.mask.any():
        lacking = "background" if tissue.mask.any() else "tissue"
        note = f"No {lacking} was found on {pyramid.name}, so nothing is skipped."
        return dataclasses.replace(plan, notes=(*plan.notes, note))
    touched = tissue_tiles(plan, tissue)
    if plan.chosen is not None:
        touched &= plan.chosen
    found = dataclasses.replace(plan, chosen=touched)
    if not len(found):
        raise ConfigError(
            f"No tissue was found where {pyramid.name} is to be predicted; choose "
            "another region, or predict without a look for tissue.",
            "tissue",
        )
    skipped = len(plan) - len(found)
    note = (
        f"{skipped} of {len(plan)} tiles ({skipped / len(plan):.0%}) of {pyramid.name} "
        "show no tissue and are skipped; they keep the label 0 (not predicted)."
    )
    return dataclasses.replace(found, notes=(*plan.notes, note))


def tissue_tiles(plan: PredictionPlan, tissue: TissueMask) -> NDArray[np.bool_]:
    """Find the tiles with tissue in them or within `MARGIN`.

    Returns
    -------
    ndarray
        One flag a tile, (rows, columns) of the tile grid.
    """
    spans = []
    for axis, stride in enumerate((plan.grid[1], 1)):
        world = [plan.tile(k * stride).world[axis] for k in range(plan.grid[axis])]
        place = np.array(world, dtype=np.float64) - tissue.extent.lower[axis]
        place /= tissue.step[axis]
        size = tissue.mask.shape[axis]
        first, last = np.floor(place[:, 0] - MARGIN), np.ceil(place[:, 1] + MARGIN)
        spans.append([edge.astype(np.int64).clip(0, size) for edge in (first, last)])
    # Pixels of tissue above and left of each corner of the mask.
    sums = np.pad(tissue.mask, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    (top, bottom), (left, right) = spans
    count = sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)]
    count -= sums[np.ix_(bottom, left)] - sums[np.ix_(top, left)]
    return np.asarray(count > 0)
