"""What a prediction will do: tiles, crops and their order. Pure functions, no torch.

Three grids meet here. **Output** pixels are the slide's own stored finest pixels;
**world** pixels are those of the model's finest level (equal to output pixels unless
the slide is viewed at another pixel size); **tiles** are output chunks of ``tile_size``
on a grid fixed to the slide, so that a pixel gets the same answer whatever region was
asked for. Crops lie on a grid of their own (`grid`); a tile is finished when all crops
that say something about it have been through the model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data.resample import snap
from ..errors import ConfigError
from ..geometry import Box, NestedCrop, place_fine
from ..prediction_config import Placement
from ..progress import never_stop
from .checks import (
    PixelBox,
    Span,
    check_slide,
    find_notes,
    select_tiles,
    whole_span,
)
from .contexts import ContextGrid, preview_notes
from .ensemble import same_input
from .grid import Axis, core_size
from .selection import narrowed
from .tiles import Crop, Tile
from .views import (
    View,
    check_turns,
    count_places,
    describe_views,
    list_views,
    place_coarse,
)

if TYPE_CHECKING:
    from ..config import ModelConfig, PredictionConfig
    from ..data.pyramid import Pyramid
    from ..progress import StopFn


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PredictionPlan:
    """What will happen. Tiles and crops are computed when asked for, never listed."""

    shape: tuple[int, int]
    """Output shape: the slide's stored finest level."""
    tile_size: int
    """Edge of a tile in output pixels."""
    crop_size: int
    """Edge of a crop at the finest level in world pixels."""
    axes: tuple[Axis, Axis]
    """Crops along the rows and along the columns."""
    scale_factors: tuple[float, ...]
    """Factor of each level of a crop."""
    zoom: tuple[float, float]
    """World pixels per output pixel along each axis."""
    offset: tuple[float, float]
    """World position of the lower edge of output pixel 0."""
    extent: Box
    """The slide in world coordinates."""
    contexts: ContextGrid | None
    """Coarser crops that fine ones share; None: each has its own around it."""
    placement: Placement
    """Where they lie then."""
    views: tuple[View, ...]
    """The passes of each crop through a model, whose logits are averaged."""
    selected: PixelBox
    """Rows and columns of the tile grid that are asked for (r0, c0, r1, c1)."""
    batch_size: int
    """Crops in one pass of the model: as configured, less where the whole slide has
    less."""
    chosen: NDArray[np.bool_] | None = None
    """One flag a tile of the slide's grid, (rows, columns): those that outlines and
    tissue leave of it; None: all."""
    notes: tuple[str, ...] = ()
    """What the user should know before trusting the result."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tile grid of the whole slide."""
        rows, columns = (-(-n // self.tile_size) for n in self.shape)
        return rows, columns

    @property
    def num_places(self) -> int:
        """Places of the coarser crops of each crop."""
        return 1 + max(view.place for view in self.views)

    @property
    def num_tiles(self) -> int:
        """Tiles of the whole slide, asked for or not."""
        return math.prod(self.grid)

    def __len__(self) -> int:
        """Tiles that are asked for."""
        r0, c0, r1, c1 = self.selected
        if self.chosen is not None:
            return int(self.chosen[r0:r1, c0:c1].sum())
        return (r1 - r0) * (c1 - c0)

    def indices(self) -> NDArray[np.int64]:
        """Return the tiles that are asked for, row by row; shape (len,)."""
        r0, c0, r1, c1 = self.selected
        rows = np.arange(r0, r1, dtype=np.int64)[:, None]
        tiles = rows * self.grid[1] + np.arange(c0, c1, dtype=np.int64)
        return (
            tiles.ravel() if self.chosen is None else tiles[self.chosen[r0:r1, c0:c1]]
        )

    def tiles(self) -> Iterator[Tile]:
        """Yield the tiles that are asked for, row by row."""
        return (self.tile(int(index)) for index in self.indices())

    def tile(self, index: int) -> Tile:
        """Return a tile by its place in the slide's grid.

        Raises
        ------
        IndexError
            If the slide has no such tile.
        """
        if not 0 <= index < self.num_tiles:
            raise IndexError(f"The slide has {self.num_tiles} tiles, no tile {index}.")
        starts = [i * self.tile_size for i in divmod(index, self.grid[1])]
        stops = [
            min(s + self.tile_size, n) for s, n in zip(starts, self.shape, strict=True)
        ]
        rows, columns = (
            self._world_span(axis, s, t)
            for axis, (s, t) in enumerate(zip(starts, stops, strict=True))
        )
        box = (starts[0], starts[1], stops[0], stops[1])
        return Tile(index, box, (rows, columns), self.zoom, self.offset)

    def _world_span(self, axis: int, start: int, stop: int) -> Span:
        """Whole world pixels that output pixels [start, stop) touch."""
        first, last = whole_span(self.extent, axis)
        lower, upper = (self.offset[axis] + v * self.zoom[axis] for v in (start, stop))
        low = min(max(math.floor(snap(lower)), first), last - 1)
        high = min(max(math.ceil(snap(upper)), low + 1), last)
        return low, high

    @property
    def num_crops(self) -> int:
        """Crops of the whole slide."""
        return math.prod(axis.count for axis in self.axes)

    def crops_of(self, tile: Tile) -> list[int]:
        """Indices of the crops that say something about a tile, row by row."""
        rows, columns = (
            axis.touching(*span)
            for axis, span in zip(self.axes, tile.world, strict=True)
        )
        return [r * self.axes[1].count + c for r, c in product(rows, columns)]

    def tiles_of(self, crop: Crop) -> list[int]:
        """Indices of the tiles about which a crop says something, row by row."""
        ranges = []
        for axis, (low, high) in enumerate(crop.window):
            # Output pixels whose world pixels are touched, and one more: the caller
            # asks each tile.
            zoom, offset = self.zoom[axis], self.offset[axis]
            first = math.floor((low - offset) / zoom) - 1
            last = math.ceil((high - offset) / zoom) + 1
            ranges.append(
                range(
                    max(first // self.tile_size, 0),
                    min(-(-last // self.tile_size), self.grid[axis]),
                )
            )
        return [r * self.grid[1] + c for r, c in product(*ranges)]

    def crop(self, index: int) -> Crop:
        """Return a crop by its place in the slide's grid.

        It is put around its core, pushed into the slide where needed. Coarser boxes
        are put around it, or are those of the context that it shares with others.
        """
        places = divmod(index, self.axes[1].count)
        rows, columns = (
            axis.window(place) for axis, place in zip(self.axes, places, strict=True)
        )
        centre = [
            (axis.edge(place) + axis.edge(place + 1)) / 2
            for axis, place in zip(self.axes, places, strict=True)
        ]
        spans = [(axis.first, axis.last) for axis in self.axes]
        inside = Box((spans[0][0], spans[1][0]), (spans[0][1], spans[1][1]))
        fine = place_fine(centre, (self.crop_size, self.crop_size), inside)
        if self.contexts is None:
            padded, *elsewhere = place_coarse(
                fine, self.scale_factors, self.extent, self.placement
            )
            return Crop(index, padded, (rows, columns), elsewhere=tuple(elsewhere))
        context = self.contexts.index_of(fine.centre)
        padded = NestedCrop((fine, *self.contexts.boxes(context)))
        return Crop(index, padded, (rows, columns), context)

    def order(
        self,
        done: NDArray[np.bool_] | None = None,
        focus: Sequence[float] | None = None,
    ) -> NDArray[np.int64]:
        """Return the tiles that are left in the order in which to predict them.

        Parameters
        ----------
        done
            One flag a tile of the slide's grid, shape (num_tiles,); None: none done.
        focus
            (y0, x0, y1, x1) in output pixels, such as what is on screen: tiles that
            touch it come first, then the nearer ones. None: along a Z-curve, so that
            neighbours share their context and their coarse output chunks.

        Returns
        -------
        ndarray
            Tile indices, int64.
        """
        left = self.indices()
        if done is not None:
            left = left[~done[left]]
        rows, columns = np.divmod(left, self.grid[1])
        if focus is None:
            return left[np.argsort(_interleave(rows, columns), kind="stable")]
        lower = np.stack([rows, columns], axis=1) * self.tile_size
        upper = np.minimum(lower + self.tile_size, self.shape)
        box = np.asarray(focus, dtype=np.float64).reshape(2, 2)
        outside = ((lower >= box[1]) | (upper <= box[0])).any(axis=1)
        distance = np.square((lower + upper) / 2 - box.mean(axis=0)).sum(axis=1)
        return left[np.lexsort((distance, outside))]


def _interleave(
    rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Position along the Z-curve of each (row, column)."""
    code = np.zeros_like(rows)
    for bit in range(24):
        code |= ((columns >> bit) & 1) << (2 * bit)
        code |= ((rows >> bit) & 1) << (2 * bit + 1)
    return code


def plan_prediction(
    pyramid: Pyramid,
    model_config: ModelConfig | Sequence[ModelConfig],
    config: PredictionConfig,
    should_stop: StopFn = never_stop,
    *,
    shifted: bool = False,
) -> PredictionPlan:
    """Find out what predicting a slide will do.

    Parameters
    ----------
    pyramid
        The slide; it is viewed at the model's pixel size here.
    model_config
        What the model reads; of several models, all of them.
    config
        What the user asked for.
    should_stop
        Asked while a slide without coarse levels is looked at for tissue.
    shifted
        Crops and contexts on grids that lie half a step away: another way to tile the
        same slide, for comparison.

    Raises
    ------
    ConfigError
        If the model cannot read this slide, several ones do not read the same, or
        nothing of it is asked for.
    Cancelled
        If ``should_stop`` said so.
    """
    given = model_config
    models = tuple(given) if isinstance(given, Sequence) else (given,)
    model_config = same_input(models)
    pyramid = pyramid.viewed_at(model_config.pixel_size)
    for each in models:
        check_slide(pyramid, each)
        check_turns(pyramid, each, config.average)
    contexts = _contexts(pyramid.extent, models, config)
    places = count_places(model_config.scale_factors, config.placement)
    views = list_views(len(models), config.average, places)
    rows, columns = pyramid.shape
    crop = model_config.crop_size
    level = pyramid.levels[0]
    axes = _axes(pyramid.extent, crop, config.overlap)
    if shifted:
        axes = (axes[0].shifted(), axes[1].shifted())
        contexts = contexts and dataclasses.replace(contexts, shift=True)
    no_preview = preview_notes(model_config) if config.preview else ()
    plan = PredictionPlan(
        shape=(rows, columns),
        tile_size=config.tile_size,
        crop_size=crop,
        axes=axes,
        scale_factors=model_config.scale_factors,
        zoom=_pair(level.scale),
        offset=_pair(level.offset),
        extent=pyramid.extent,
        contexts=contexts,
        placement=config.placement,
        views=views,
        selected=select_tiles(pyramid, config),
        batch_size=config.batch_size,
        notes=find_notes(pyramid, model_config) + no_preview + describe_views(views),
    )
    # Of the whole slide, not of the region: the model's answer may depend on the
    # shape of its batch in the last digit.
    batch_size = min(config.batch_size, plan.num_crops)
    plan = dataclasses.replace(plan, batch_size=batch_size)
    return narrowed(plan, pyramid, config, should_stop)


def _axes(extent: Box, crop: int, overlap: float) -> tuple[Axis, Axis]:
    rows, columns = (
        Axis(*whole_span(extent, axis), crop, core_size(crop, overlap))
        for axis in range(2)
    )
    return rows, columns


def _contexts(
    extent: Box, models: Sequence[ModelConfig], config: PredictionConfig
) -> ContextGrid | None:
    """Return the grid of shared contexts, None where each crop has its own.

    Raises
    ------
    ConfigError
        If sharing was asked for and a model cannot.
    """
    if config.context == "own" or config.placement != "inside":
        return None
    if all(model.shares_context for model in models):
        grid = ContextGrid(models[0].crop_size, models[0].scale_factors, extent)
        if grid.stride >= 1:
            return grid
    if config.context == "shared":
        raise ConfigError(
            f"{'This model' if len(models) == 1 else 'One of the models'} cannot share "
            "context between crops: its coarse levels see the fine crop "
            "(coarse_to_fine or within_level attention, the pyramid or UNETR decoder "
            "and true boxes are needed), or its second scale factor is too small. "
            "Leave context at auto.",
            "context",
        )
    return None


def _pair(values: Sequence[float]) -> tuple[float, float]:
    y, x = (1.0 if abs(v - 1) < 1e-9 else float(v) for v in values)
    return y, x
