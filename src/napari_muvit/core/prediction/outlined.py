"""Which tiles areas touch that somebody has outlined; torch-free."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.geojson import REGION, read_geojson
from ..data.polygons import Polygon, edge_table
from ..data.scanlines import EdgeTable, Ints, ranges
from ..errors import AnnotationError
from ..geometry import Box
from ..prediction_config import Outlines


def read_outlines(path: str | Path, plane: tuple[int, int] = (0, 0)) -> Outlines:
    """Read the areas of a GeoJSON file, such as QuPath writes, for `PredictionConfig`.

    Parameters
    ----------
    path
        The file: (x, y) in pixels of the slide's finest level. Classes do not matter,
        but for QuPath's way to say that an area is none (``Ignore*``).
    plane
        (z, t) of the areas to take.

    Returns
    -------
    tuple
        Of each area its outer ring, then its holes; a ring is (y, x) pairs.

    Raises
    ------
    ImageNotFoundError
        If there is no file.
    AnnotationError
        If it is no GeoJSON, or holds no area.
    """
    file = read_geojson(path, plane, unnamed=True)
    found = [
        outline
        for outline in file.outlines
        if not outline.class_name.endswith("*")
        or outline.class_name.lower() == REGION.lower()
    ]
    if not found:
        left_out = f" ({file.note})" if file.note else ""
        raise AnnotationError(
            f"{path} holds no area{left_out}; polygons are needed to say where to "
            "predict."
        )
    return tuple(
        tuple(
            tuple((float(y), float(x)) for y, x in ring.tolist())
            for ring in (outline.vertices, *outline.holes)
        )
        for outline in found
    )


def polygons_of(outlines: Outlines) -> list[Polygon]:
    """Return areas as polygons in output pixels."""
    return [
        Polygon(1, np.array(outer), tuple(np.array(hole) for hole in holes))
        for outer, *holes in outlines
    ]


def touched_tiles(
    polygons: list[Polygon], shape: tuple[int, int], tile_size: int
) -> NDArray[np.bool_]:
    """Find the tiles that share more than a border with one of the areas.

    A tile does if an edge runs through it, or if it lies inside as a whole. Exact for
    areas whose holes lie inside of them.

    Parameters
    ----------
    polygons
        At least one, in output pixels.
    shape
        Of the slide, output pixels.
    tile_size
        Edge of a tile; those at the end of the slide are smaller.

    Returns
    -------
    ndarray
        One flag a tile, (rows, columns) of the tile grid.
    """
    rows, columns = (-(-n // tile_size) for n in shape)
    table = edge_table(polygons)
    inside = np.zeros((rows, columns), dtype=np.uint8)
    # As pixels whose centres are those of the first pixel of each tile, which is there
    # in the smallest one.
    lower = 0.5 - tile_size / 2
    upper = (lower + rows * tile_size, lower + columns * tile_size)
    table.fill(inside, Box((lower, lower), upper))
    return inside.astype(bool) | _crossed(table, shape, tile_size)


def _crossed(
    table: EdgeTable, shape: tuple[int, int], tile_size: int
) -> NDArray[np.bool_]:
    """One flag a tile: whether an edge has a part strictly inside."""
    height, width = shape
    number, row = _rows_met(table, height, tile_size)
    (y0, x0), (y1, x1) = table.low[:, number], table.high[:, number]
    top = np.maximum(np.maximum(y0, row * tile_size), 0)
    bottom = np.minimum(np.minimum(y1, (row + 1) * tile_size), height)
    # A level edge is in its row as a whole.
    level = y1 == y0
    drop = np.where(level, 1.0, y1 - y0)
    ends = np.stack(
        [
            x0 + np.where(level, 0.0, (top - y0) / drop) * (x1 - x0),
            x0 + np.where(level, 1.0, (bottom - y0) / drop) * (x1 - x0),
        ]
    )
    left, right = ends.min(axis=0), ends.max(axis=0)
    there = left < width
    row, left, right = row[there], left[there].clip(0), right[there].clip(0, width)
    grid = (-(-height // tile_size), -(-width // tile_size))
    # Each run of tiles begins with +1 and ends with -1.
    steps = np.zeros((grid[0], grid[1] + 1), dtype=np.int64)
    np.add.at(steps, (row, np.floor(left / tile_size).astype(np.int64)), 1)
    np.add.at(steps, (row, np.ceil(right / tile_size).astype(np.int64)), -1)
    return np.asarray(steps.cumsum(axis=1)[:, :-1] > 0)


def _rows_met(table: EdgeTable, height: int, tile_size: int) -> tuple[Ints, Ints]:
    """Edge and row of tiles, of all rows that each edge runs through."""
    upper, lower = table.low[0], table.high[0]
    first = np.floor(upper.clip(0, height) / tile_size).astype(np.int64)
    last = np.ceil(lower.clip(0, height) / tile_size).astype(np.int64)
    count = np.where(upper < height, last - first, 0).clip(0)
    return np.repeat(np.arange(len(count)), count), ranges(first, count)
