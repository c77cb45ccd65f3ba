"""The place of an image in the numbers and the unit of its own file.

We reckon in micrometres. What is laid over an image is written as the image itself is,
so that a reader that does not convert units puts it in the right place, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..geometry import Vector
from .units import MICROMETRES

if TYPE_CHECKING:
    from .pyramid import Pyramid


@dataclass(frozen=True, slots=True)
class FileGrid:
    """The finest level's place, one number a spatial axis."""

    scale: Vector | None
    """Edge of a pixel; None: unknown."""
    translation: Vector | None
    """Centre of pixel 0; None: 0."""
    unit: str | None
    """By its name in OME-Zarr; None: none is said."""


def file_grid(
    scale: NDArray[np.float64],
    translation: NDArray[np.float64],
    units: Sequence[object],
) -> FileGrid | None:
    """Return the grid that a file states; None where it cannot be written again."""
    if not (np.isfinite([scale, translation]).all() and (scale > 0).all()):
        return None
    unit = units[0]
    if any(other != unit for other in units):
        return None
    if unit is not None and not (isinstance(unit, str) and _is_name(unit)):
        return None
    return FileGrid(tuple(scale.tolist()), tuple(translation.tolist()), unit)


def overlay_grid(image: Pyramid) -> FileGrid:
    """Return the grid on which to write what lies over an image."""
    grid = image.contents.grid
    ours = FileGrid(
        image.pixel_size, image.translation, image.unit if image.pixel_size else None
    )
    if grid is None or grid.scale is None:
        return ours
    if grid.unit is None:
        return grid if image.pixel_size is None else ours
    # Somebody may have stated another pixel size than that of the file.
    size = np.asarray(grid.scale) * MICROMETRES[grid.unit]
    same = image.pixel_size is not None and np.allclose(size, image.pixel_size, 1e-9)
    return grid if same else ours


def _is_name(unit: str) -> bool:
    """Whether OME-Zarr knows a length by this name."""
    return unit in MICROMETRES and (
        unit.endswith("meter") or unit in ("angstrom", "inch", "foot", "yard")
    )
