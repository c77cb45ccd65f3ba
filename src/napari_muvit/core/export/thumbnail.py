"""A small picture: class colours over the image."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.open import open_pyramid
from ..data.pyramid import Pyramid
from ..errors import MuvitError
from .runs import Labels

EDGE = 1024
"""Longest edge of the picture, pixels."""
MOST_PIXELS = 2**26
"""Pixels of the coarsest level of an image that is shown; a larger one takes long."""
OPACITY = 0.5
"""Of the colours over an image."""
Rgb = NDArray[np.uint8]


class Thumbnail:
    """Every so many pixels of a label image, picked while it is read."""

    def __init__(self, shape: tuple[int, int]) -> None:
        step = max(1, -(-max(shape) // EDGE))
        # The pixel in the middle of those that one stands for.
        self._rows, self._columns = (
            np.minimum(np.arange(0, n, step) + step // 2, n - 1) for n in shape
        )
        self.labels: Labels = np.zeros(
            (len(self._rows), len(self._columns)), dtype=np.uint8
        )

    def see(self, block: Labels, top: int, left: int) -> None:
        """Pick what lies in a block whose first pixel is (top, left)."""
        rows = slice(*np.searchsorted(self._rows, [top, top + block.shape[0]]))
        columns = slice(*np.searchsorted(self._columns, [left, left + block.shape[1]]))
        self.labels[rows, columns] = block[
            np.ix_(self._rows[rows] - top, self._columns[columns] - left)
        ]

    def png(self, colors: Mapping[int, str], below: Rgb | None = None) -> bytes:
        """Return the picture.

        Parameters
        ----------
        colors
            ``#rrggbb`` of the labels that are shown.
        below
            (h, w, 3) image of the same size; None: white.
        """
        table = np.full((256, 3), 255.0)
        opacity = np.zeros(256)
        for label, color in colors.items():
            table[label] = list(bytes.fromhex(color[1:]))
            opacity[label] = 1.0 if below is None else OPACITY
        share = opacity[self.labels][..., None]
        ground = 255.0 if below is None else below.astype(np.float64)
        mixed = share * table[self.labels] + (1 - share) * ground
        buffer = io.BytesIO()
        picture = Image.fromarray(np.rint(mixed).astype(np.uint8))
        picture.save(buffer, format="PNG")
        return buffer.getvalue()


def image_below(
    record: Mapping[str, Any], shape: tuple[int, int], size: tuple[int, int]
) -> tuple[Rgb | None, str]:
    """See the image that a prediction was made of, if it is still there.

    Parameters
    ----------
    record
        What the prediction says of itself.
    shape
        Pixels (y, x) of the labels.
    size
        Pixels (y, x) of the picture.

    Returns
    -------
    tuple of (ndarray or None, str)
        (h, w, 3), uint8; and why there is none, if it was named.
    """
    path = (record.get("image") or {}).get("path")
    if not isinstance(path, str) or "://" in path:
        return None, ""
    if not Path(path).exists():
        return None, f"The image {path} is not there; the picture shows labels only."
    try:
        image = open_pyramid(path)
        coarsest = image.levels[-1].shape
        if image.shape != shape:
            return None, f"The image {path} has other pixels; it is not shown."
        if int(np.prod(coarsest)) > MOST_PIXELS:
            return None, f"The image {path} has no coarse level; it is not shown."
        return _shown(image, size), ""
    except MuvitError as error:
        return None, f"The image is not shown: {error}"


def _shown(image: Pyramid, size: tuple[int, int]) -> Rgb:
    """Red, green and blue as they are, or the first channel between percentiles."""
    pixels = image.sample(image.extent, size)
    if image.rgb and image.num_channels >= 3 and pixels.dtype == np.uint8:
        colors: Rgb = np.moveaxis(pixels[:3], 0, -1)
        return colors
    channel = pixels[0].astype(np.float64)
    known = channel[np.isfinite(channel)]
    low, high = np.percentile(known, [1, 99]) if len(known) else (0.0, 1.0)
    scaled = (np.nan_to_num(channel) - low) / max(high - low, 1e-12)
    gray = np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)
