"""Slides that OpenSlide reads, a level as an array that any thread can slice.

For the formats that tifffile does not read (MRXS, DICOM, CZI, BIF, ...), and as a
second choice for those that it does. OpenSlide is asked for a place in whole pixels of
level 0: where a level's factor is 4.0003, its pixels come shifted by up to half a pixel
of level 0. That is why tifffile, which hands out stored tiles, comes first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingExtraError, PyramidError
from .arrays import ArraySource
from .file_stamp import FileStamp
from .pyramid import Pyramid, PyramidLevel
from .units import is_pixel_size, snap_factors

if TYPE_CHECKING:
    import openslide

OWN_CACHE_BYTES = 16 * 2**20
"""OpenSlide's own cache of a slide; decoded blocks are kept by the pyramid's."""
BLOCK = 512
"""Edge of the blocks that are read where the slide does not say its tiles."""
MAX_TILE_PIXELS = 2**28
"""OpenSlide ends the whole process when it gets no memory for a tile."""


def openslide_module(path: Path) -> Any:
    """Import OpenSlide.

    Raises
    ------
    MissingExtraError
        That says what to install for ``path``.
    """
    try:
        import openslide
    except (ImportError, OSError) as error:
        raise MissingExtraError(
            f"{path} needs OpenSlide, which is not installed: "
            'pip install "napari-muvit[wsi]".'
        ) from error
    return openslide


def is_openslide(path: Path) -> bool:
    """Whether OpenSlide is installed and knows the format of this file."""
    try:
        module = openslide_module(path)
    except MissingExtraError:
        return False
    return module.OpenSlide.detect_format(str(path)) is not None


class OpenSlideLevel:
    """A level of a slide as an array (y, x, 3) of uint8.

    Parameters
    ----------
    path
        The slide.
    level
        Index of the level.
    """

    def __init__(self, path: Path, level: int) -> None:
        self.path = path
        self.level = level
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)
        self._lock = threading.Lock()
        self._pid = -1
        self._stamp = FileStamp.of(path)
        self._slide: openslide.OpenSlide | None = None
        slide = self._opened()
        width, height = slide.level_dimensions[level]
        self.shape: tuple[int, int, int] = (height, width, 3)
        edges = (
            _whole(slide.properties.get(f"openslide.level[{level}].tile-{side}"))
            for side in ("height", "width")
        )
        # A block of several tiles costs one call instead of many.
        self.chunks: tuple[int, ...] = (*(_block_edge(e) for e in edges), 3)
        self._colour = _background(slide)

    def __reduce__(self) -> tuple[type[OpenSlideLevel], tuple[Path, int]]:
        return (OpenSlideLevel, (self.path, self.level))

    def __repr__(self) -> str:
        return f"<OpenSlideLevel {self.path.name} {self.level} {self.shape}>"

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        key = (key,) if not isinstance(key, tuple) else key
        if not all(isinstance(k, slice) for k in key[:2]):
            raise IndexError("A slide's level is read by slices of rows and columns.")
        rows, columns, *channels = (*key, slice(None), slice(None))[:3]
        spans = [
            s.indices(n) for s, n in zip((rows, columns), self.shape[:2], strict=True)
        ]
        if any(step != 1 for _, _, step in spans):
            raise IndexError("Slices of a slide's level have no step.")
        (top, bottom, _), (left, right, _) = spans
        if bottom <= top or right <= left:
            empty = np.zeros((max(0, bottom - top), max(0, right - left), 3), np.uint8)
            return empty[:, :, channels[0]]
        pixels = self._read(top, left, bottom - top, right - left)
        return pixels[:, :, channels[0]]

    def _read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        module = openslide_module(self.path)
        self._stamp.check()
        slide = self._opened()
        factor = slide.level_downsamples[self.level]
        place = (round(left * factor), round(top * factor))
        try:
            region = slide.read_region(place, self.level, (width, height))
        except module.OpenSlideError as error:
            # After an error the handle refuses everything.
            with self._lock:
                self._slide = None
            raise PyramidError(
                f"Pixels of {self.path} cannot be read: {error}."
            ) from error
        rgba = np.asarray(region)
        alpha = rgba[..., 3:]
        if alpha.min() == 255:
            return rgba[..., :3]
        # Places that were not scanned are transparent. Pillow's are not premultiplied.
        share = alpha.astype(np.float32) / 255
        mixed = rgba[..., :3] * share + self._colour * (1 - share)
        return np.rint(mixed).astype(np.uint8)

    def _opened(self) -> openslide.OpenSlide:
        """Return the slide, opened in this process."""
        with self._lock:
            if self._slide is None or self._pid != os.getpid():
                module = openslide_module(self.path)
                try:
                    self._slide = module.OpenSlide(str(self.path))
                    cache = module.OpenSlideCache(OWN_CACHE_BYTES)
                    self._slide.set_cache(cache)
                except (module.OpenSlideError, OSError) as error:
                    raise PyramidError(
                        f"{self.path} is no slide that can be read: {error}."
                    ) from error
                self._pid = os.getpid()
            return self._slide


def open_with_openslide(path: Path, name: str) -> Pyramid:
    """Open a slide by OpenSlide; no pixels are read yet.

    Raises
    ------
    MissingExtraError
        Without OpenSlide.
    PyramidError
        If OpenSlide does not know the format, or the slide is broken.
    """
    module = openslide_module(path)
    if module.OpenSlide.detect_format(str(path)) is None:
        raise PyramidError(
            f"{path} cannot be read: it is no slide that OpenSlide knows. Convert it "
            "to OME-Zarr or OME-TIFF, for example with bioformats2raw."
        )
    try:
        with module.OpenSlide(str(path)) as slide:
            count, properties = slide.level_count, dict(slide.properties)
    except (module.OpenSlideError, OSError) as error:
        raise PyramidError(
            f"{path} is no slide that can be read: {str(error).rstrip('.')}."
        ) from error
    _check_tiles(path, count, properties)
    arrays = [OpenSlideLevel(path, level) for level in range(count)]
    finest = arrays[0].shape[:2]
    levels = tuple(
        PyramidLevel(
            ArraySource(array, "yxc"), snap_factors(finest, array.shape[:2]), (0.0, 0.0)
        )
        for array in arrays
    )
    return Pyramid(
        levels=levels,
        name=name,
        path=path,
        rgb=True,
        pixel_size=_pixel_size(properties),
    )


def _check_tiles(path: Path, count: int, properties: Mapping[str, str]) -> None:
    """Refuse tiles of a size that only a damaged file has."""
    for level in range(count):
        height, width = (
            _whole(properties.get(f"openslide.level[{level}].tile-{side}")) or 1
            for side in ("height", "width")
        )
        if height * width > MAX_TILE_PIXELS:
            raise PyramidError(
                f"{path} is no slide that can be read: it says that its tiles are "
                f"{height} x {width} pixels."
            )


def _pixel_size(properties: dict[str, str]) -> tuple[float, float] | None:
    """Micrometres (y, x), or None where the slide does not say."""
    found = [_number(properties.get(f"openslide.mpp-{axis}")) for axis in "yx"]
    y, x = (v or 0.0 for v in found)
    return (y, x) if is_pixel_size((y, x)) else None


def _background(slide: openslide.OpenSlide) -> NDArray[np.float32]:
    """Colour of what was not scanned: the slide's own, else white."""
    text = slide.properties.get("openslide.background-color", "")
    try:
        values = bytes.fromhex(text)
    except ValueError:
        values = b""
    return np.array(list(values) if len(values) == 3 else [255] * 3, dtype=np.float32)


def _block_edge(tile: int | None) -> int:
    """Whole tiles of about `BLOCK` pixels."""
    if tile is None or not 16 <= tile <= 4 * BLOCK:
        return BLOCK
    return tile * max(1, BLOCK // tile)


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
