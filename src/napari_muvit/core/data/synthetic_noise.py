"""Random numbers and Perlin noise as pure functions of integer positions and a seed.

Nothing here keeps a state, so a value does not depend on the window in which it is
asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MIX = (np.uint32(0x7FEB352D), np.uint32(0x846CA68B))
_STEP = (np.uint32(0x9E3779B9), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35))


def hash_positions(y: ArrayLike, x: ArrayLike, seed: int) -> NDArray[np.uint32]:
    """Hash whole positions to 32 random bits; arrays broadcast."""
    with np.errstate(over="ignore"):
        bits = np.asarray(y).astype(np.int64).astype(np.uint32) * _STEP[0]
        bits = bits ^ _mixed(
            np.asarray(x).astype(np.int64).astype(np.uint32) + _STEP[1]
        )
        return _mixed(bits + np.uint32(seed & 0xFFFFFFFF) * _STEP[2])


def _mixed(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Spread each bit over all of them (a 32-bit finaliser)."""
    bits = (bits ^ (bits >> np.uint32(16))) * _MIX[0]
    bits = (bits ^ (bits >> np.uint32(15))) * _MIX[1]
    return np.asarray(bits ^ (bits >> np.uint32(16)))


def uniform(
    y: ArrayLike, x: ArrayLike, seed: int, low: float = 0.0, high: float = 1.0
) -> NDArray[np.float64]:
    """Even random numbers in [low, high), one a whole position."""
    return low + (high - low) * (hash_positions(y, x, seed) / 2.0**32)


def perlin(
    y: NDArray[np.float64], x: NDArray[np.float64], seed: int
) -> NDArray[np.float32]:
    """Gradient noise with a lattice of spacing 1, about -1 to 1 (Perlin 2002).

    Parameters
    ----------
    y, x
        Positions, of one shape or broadcasting.
    seed
        Of the gradients.
    """
    row, column = np.floor(y), np.floor(x)
    v, u = (y - row).astype(np.float32), (x - column).astype(np.float32)
    rows, columns = row.astype(np.int64), column.astype(np.int64)
    corner = {
        (i, j): _slope(rows + i, columns + j, v - i, u - j, seed)
        for i in (0, 1)
        for j in (0, 1)
    }
    fade_v, fade_u = _fade(v), _fade(u)
    top = corner[0, 0] + fade_u * (corner[0, 1] - corner[0, 0])
    bottom = corner[1, 0] + fade_u * (corner[1, 1] - corner[1, 0])
    return np.asarray((top + fade_v * (bottom - top)) * np.sqrt(2), dtype=np.float32)


def _fade(t: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(t * t * t * (t * (t * 6 - 15) + 10), dtype=np.float32)


def _slope(
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    v: NDArray[np.float32],
    u: NDArray[np.float32],
    seed: int,
) -> NDArray[np.float32]:
    """Height at the offset (v, u) of the plane that is tilted at a lattice point."""
    index = hash_positions(row, column, seed) >> np.uint32(24)
    return np.asarray(v * _SIN[index] + u * _COS[index], dtype=np.float32)


_ANGLES = np.arange(256) * (2 * np.pi / 256)
_SIN = np.sin(_ANGLES).astype(np.float32)
_COS = np.cos(_ANGLES).astype(np.float32)
