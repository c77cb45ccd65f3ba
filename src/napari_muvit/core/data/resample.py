"""Exact area averaging on one axis at a time, and nearest sampling."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .block_cache import Pixels

GRID_TOLERANCE = 1e-4
"""Positions this near to a pixel edge (in pixels) count as on it."""


def snap(value: float) -> float:
    """Return the whole number next to ``value`` when it is as good as there."""
    nearest = round(value)
    return float(nearest) if abs(value - nearest) < GRID_TOLERANCE else value


def source_span(start: float, step: float, count: int) -> tuple[int, int]:
    """Source pixels [first, last) that ``count`` outputs of width ``step`` touch."""
    return math.floor(snap(start)), math.ceil(snap(start + step * count))


def average_axis(
    block: Pixels, axis: int, start: float, step: float, count: int
) -> NDArray[np.float32]:
    """Average along ``axis``: output i is the mean of the source over its interval.

    Parameters
    ----------
    block
        Source pixels; pixel j covers [j, j + 1) along ``axis``.
    axis
        Axis to average.
    start
        Position of output 0's lower edge in source pixels.
    step
        Width of an output in source pixels. Below 1 the source is interpolated
        linearly between pixel centres instead.
    count
        Number of outputs.

    Returns
    -------
    ndarray
        float32, ``count`` long along ``axis``. Positions outside take the edge pixel.
    """
    data = np.moveaxis(block, axis, -1)
    first, whole = snap(start), snap(step)
    if whole == 1.0 and first.is_integer() and _inside(first, count, data.shape[-1]):
        out = data[..., int(first) : int(first) + count].astype(np.float32)
    elif (
        whole.is_integer()
        and first.is_integer()
        and _inside(first, count * int(whole), data.shape[-1])
    ):
        part = data[..., int(first) : int(first) + count * int(whole)]
        grouped = part.reshape(*part.shape[:-1], count, int(whole))
        out = grouped.mean(axis=-1, dtype=np.float32)
    elif step < 1.0:
        out = _interpolate(data, np.asarray(start + step * (np.arange(count) + 0.5)))
    else:
        out = _average_fractional(data, start, step, count)
    return np.moveaxis(out, -1, axis)


def _inside(first: float, length: int, available: int) -> bool:
    return first >= 0 and first + length <= available


def _interpolate(data: Pixels, positions: NDArray[np.floating]) -> NDArray[np.float32]:
    """Linear interpolation between pixel centres, edges held."""
    where = np.clip(positions - 0.5, 0, data.shape[-1] - 1)
    left = np.floor(where).astype(int)
    right = np.minimum(left + 1, data.shape[-1] - 1)
    share = (where - left).astype(np.float32)
    low = data[..., left].astype(np.float32)
    high = data[..., right].astype(np.float32)
    return np.asarray(low + (high - low) * share, dtype=np.float32)


def _average_fractional(
    data: Pixels, start: float, step: float, count: int
) -> NDArray[np.float32]:
    """Mean over intervals with fractional ends, by differences of the running sum."""
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        # In a running sum one NaN would reach all that follows it.
        broken = ~np.isfinite(data)
        clean = np.where(broken, 0, data)
        touched = _average_fractional(broken, start, step, count) > 0
        mean = _average_fractional(clean, start, step, count)
        return np.where(touched, np.float32(np.nan), mean)
    size = data.shape[-1]
    total = np.zeros((*data.shape[:-1], size + 1), dtype=np.float64)
    np.cumsum(data, axis=-1, out=total[..., 1:], dtype=np.float64)
    edges = np.clip(start + step * np.arange(count + 1), 0, size)
    left = np.minimum(np.floor(edges).astype(int), size - 1)
    running = total[..., left] + data[..., left].astype(np.float64) * (edges - left)
    width = np.diff(edges)
    mean = np.diff(running, axis=-1) / np.maximum(width, 1e-12)
    # An interval wholly outside has no width: it takes the edge pixel.
    middle = np.clip((start + step * (np.arange(count) + 0.5)).astype(int), 0, size - 1)
    mean = np.where(width > 1e-9, mean, data[..., middle])
    return mean.astype(np.float32)


def nearest_positions(start: float, step: float, count: int) -> NDArray[np.intp]:
    """Source pixel under the centre of each output."""
    where = np.floor(start + step * (np.arange(count) + 0.5) + 1e-9)
    return np.asarray(where, dtype=np.intp)


def take_positions(block: Pixels, axis: int, positions: NDArray[np.intp]) -> Pixels:
    """Take ascending positions along an axis; a view where they are evenly spaced."""
    stride = int(positions[-1] - positions[0]) // max(1, len(positions) - 1)
    if stride and np.array_equal(positions, np.arange(len(positions)) * stride):
        key = (slice(None),) * axis
        return block[(*key, slice(0, int(positions[-1]) + 1, stride))]
    return np.take(block, positions, axis=axis)
