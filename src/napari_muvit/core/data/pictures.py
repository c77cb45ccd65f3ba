"""PNG and JPEG files as arrays, decoded as a whole when first read."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from ..errors import PyramidError
from .file_stamp import FileStamp

MAX_EDGE = 20_000
"""Larger pictures would not fit into memory; they belong into tiles."""
_KEPT = {"L": np.uint8, "RGB": np.uint8, "I;16": np.uint16, "I": np.int32,
         "P": np.uint8, "1": np.uint8}  # fmt: skip
_DEEP_COLOUR = "RGB;16"
"""16 bits a colour, which Pillow would cut to 8; a mode of ours."""


class Picture:
    """A picture as an array (y, x) or (y, x, 3).

    Parameters
    ----------
    path
        A PNG or JPEG file. Only its header is read at first.
    as_labels
        The indices of a palette are wanted, not its colours; and 1 bit as 0 and 1.

    Raises
    ------
    PyramidError
        If it is too large.
    """

    def __init__(self, path: Path, as_labels: bool = False) -> None:
        self.path = path
        self.as_labels = as_labels
        self._lock = threading.Lock()
        self._pixels: Any = None
        self._stamp = FileStamp.of(path)
        with _opened(path) as image:
            width, height = image.size
            self._mode = _mode(image.mode, as_labels)
        if max(width, height) > MAX_EDGE:
            raise _too_large(path, f"{height} x {width}")
        if _is_deep_colour(path):
            self._mode = _DEEP_COLOUR
        self.dtype: np.dtype[Any] = np.dtype(_KEPT.get(self._mode, np.uint16))
        lead = (height, width)
        self.shape: tuple[int, ...] = lead
        if self._mode in ("RGB", _DEEP_COLOUR):
            self.shape = (*lead, 3)

    def __reduce__(self) -> tuple[type[Picture], tuple[Path, bool]]:
        return (Picture, (self.path, self.as_labels))

    def __getitem__(self, key: Any) -> Any:
        with self._lock:
            if self._pixels is None:
                self._stamp.check()
                try:
                    self._pixels = self._decode()
                except (OSError, SyntaxError, ValueError, RuntimeError) as error:
                    raise PyramidError(
                        f"{self.path} is no image that can be read: {error}."
                    ) from error
        return self._pixels[key]

    def _decode(self) -> Any:
        if self._mode == _DEEP_COLOUR:
            return imagecodecs.png_decode(self.path.read_bytes())[..., :3]
        with _opened(self.path) as image:
            same = image.mode == self._mode
            converted = image if same else image.convert(self._mode)
            return np.asarray(converted, dtype=self.dtype)


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


def _mode(mode: str, as_labels: bool) -> str:
    """Pillow mode in which the pixels are kept; alpha is dropped."""
    if mode in ("P", "1"):
        colours = "RGB" if mode == "P" else "L"
        return mode if as_labels else colours
    if mode in _KEPT:
        return mode
    if mode.startswith("I;16"):
        return "I;16"
    return "L" if mode in ("LA", "La") else "RGB"


def _is_deep_colour(path: Path) -> bool:
    """Whether a PNG has 16 bits a colour: depth and colour type of its header."""
    with path.open("rb") as file:
        header = file.read(26)
    return header.startswith(b"\x89PNG") and header[24:26] in (b"\x10\2", b"\x10\6")
