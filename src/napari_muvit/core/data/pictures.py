"""PNG and JPEG files as arrays, decoded as a whole when first read."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import PyramidError
from .file_stamp import FileStamp

MAX_EDGE = 20_000
"""Larger pictures would not fit into memory; they belong into tiles."""
_KEPT = {"L": np.uint8, "RGB": np.uint8, "I;16": np.uint16, "I": np.int32}


class Picture:
    """A picture as an array (y, x) or (y, x, 3).

    Parameters
    ----------
    path
        A PNG or JPEG file. Only its header is read at first.

    Raises
    ------
    PyramidError
        If it is too large.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._pixels: Any = None
        self._stamp = FileStamp.of(path)
        with _opened(path) as image:
            width, height = image.size
            self._mode = _mode(image.mode)
        if max(width, height) > MAX_EDGE:
            raise _too_large(path, f"{height} x {width}")
        self.dtype: np.dtype[Any] = np.dtype(_KEPT[self._mode])
        lead = (height, width)
        self.shape: tuple[int, ...] = (*lead, 3) if self._mode == "RGB" else lead

    def __reduce__(self) -> tuple[type[Picture], tuple[Path]]:
        return (Picture, (self.path,))

    def __getitem__(self, key: Any) -> Any:
        with self._lock:
            if self._pixels is None:
                self._stamp.check()
                try:
                    with _opened(self.path) as image:
                        converted = image
                        if image.mode != self._mode:
                            converted = image.convert(self._mode)
                        self._pixels = np.asarray(converted, dtype=self.dtype)
                except (OSError, SyntaxError, ValueError) as error:
                    raise PyramidError(
                        f"{self.path} is no image that can be read: {error}."
                    ) from error
        return self._pixels[key]


def _opened(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        # Our own limit is said clearly.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            # Pillow goes by the content: EPS would start another program.
            return Image.open(path, formats=("PNG", "JPEG"))
        except Image.DecompressionBombError as error:
            raise _too_large(path, "too many pixels") from error


def _too_large(path: Path, size: str) -> PyramidError:
    return PyramidError(
        f"{path} is too large for a PNG or JPEG ({size}; at most {MAX_EDGE} x "
        f"{MAX_EDGE}). Convert it to a tiled TIFF or OME-Zarr."
    )


def _mode(mode: str) -> str:
    """Pillow mode in which the pixels are kept; alpha is dropped."""
    if mode in _KEPT:
        return mode
    if mode.startswith("I;16"):
        return "I;16"
    return "L" if mode in ("1", "LA", "La") else "RGB"
