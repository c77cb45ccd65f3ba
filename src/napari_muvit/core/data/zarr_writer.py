"""Writing OME-Zarr 0.5 pyramids: block by block, so memory never grows with the image.

The arrays `0`, `1`, ... lie at the root of the store. Level k has ``ceil(n / 2**k)``
pixels, the scale ``2**k`` and the half-pixel translation that averaging in twos gives.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError, PyramidError
from ..progress import (
    Progress,
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)
from .arrays import ArraySource
from .block_cache import Pixels
from .file_grid import overlay_grid
from .pyramid import Pyramid
from .zarr_metadata import (
    channel_metadata,
    create_arrays,
    label_metadata,
    level_shapes,
    score_metadata,
)

if TYPE_CHECKING:
    import zarr

BlockReader = Callable[[tuple[int, ...], tuple[int, ...]], Pixels]
"""Called with the lower and upper pixel edges; gives (*spatial) or (C, *spatial)."""
BLOCK_EDGE = 1024
"""Edge of the blocks that are read and written at a time."""


def halve_mean(block: Pixels) -> Pixels:
    """Average (..., h, w) in twos; the last row or column of an odd edge stands alone.

    Returns
    -------
    ndarray
        (..., ceil(h / 2), ceil(w / 2)) of the same type, integers rounded.
    """
    even = _padded_to_even(block)
    quarters = [even[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    if block.dtype.kind == "f":
        return np.asarray(sum(q * 0.25 for q in quarters), dtype=block.dtype)
    # float64 holds the sum of four of any integer type but huge 64-bit ones.
    mean = sum(q.astype(np.float64) for q in quarters) / 4
    return np.rint(mean).astype(block.dtype)


def halve_labels(block: Pixels) -> Pixels:
    """Keep the most frequent label of each 2 x 2 pixels; ties go to the larger label.

    Parameters
    ----------
    block
        Labels (..., h, w).

    Returns
    -------
    ndarray
        (..., ceil(h / 2), ceil(w / 2)) of the same type.
    """
    even = _padded_to_even(block)
    # Copies without gaps: all that follows is several times as fast on them.
    quarters = [even[..., i::2, j::2].copy() for i in (0, 1) for j in (0, 1)]
    a, b, c, d = _sorted_four(*quarters)
    low_pair = (a == b) & (c != d)
    return np.asarray(np.where(b == c, b, np.where(low_pair, a, d)))


def _sorted_four(a: Pixels, b: Pixels, c: Pixels, d: Pixels) -> tuple[Pixels, ...]:
    """Sort four values at each place: ten times as fast as ``np.sort``."""
    a, b = np.minimum(a, b), np.maximum(a, b)
    c, d = np.minimum(c, d), np.maximum(c, d)
    a, c = np.minimum(a, c), np.maximum(a, c)
    b, d = np.minimum(b, d), np.maximum(b, d)
    return a, np.minimum(b, c), np.maximum(b, c), d


def _padded_to_even(block: Pixels) -> Pixels:
    odd = [n % 2 for n in block.shape[-2:]]
    if not any(odd):
        return block
    pad = [(0, 0)] * (block.ndim - 2) + [(0, n) for n in odd]
    return np.pad(block, pad, mode="edge")


def create_label_pyramid(
    path: str | Path,
    image: Pyramid,
    class_names: Sequence[str],
    class_colors: Sequence[str],
    chunk: int = 512,
) -> list[zarr.Array[Any]]:
    """Create an empty label pyramid over an image: OME-Zarr 0.5, uint8, all zero.

    Parameters
    ----------
    path
        Where; nothing may be there yet.
    image
        Gives shape, pixel size, translation and unit of the finest level, as its file
        states them.
    class_names, class_colors
        Of the labels 1..K; colours as ``#rrggbb``.
    chunk
        Edge of a chunk at every level, pixels.

    Returns
    -------
    list of zarr.Array
        The levels, finest first, open for writing. Until an edge is at most 512
        pixels, but no more levels than a chunk can be halved.

    Raises
    ------
    OutputError
        If something is there already, or the folder cannot be written.
    """
    ome = label_metadata(class_names, class_colors)
    return _create_over(path, image, chunk, ome)


def create_score_pyramid(
    path: str | Path,
    image: Pyramid,
    class_names: Sequence[str] = (),
    class_colors: Sequence[str] = (),
    chunk: int = 512,
) -> list[zarr.Array[Any]]:
    """Create an empty pyramid of scores, with the levels of a label pyramid.

    Parameters
    ----------
    path, image, chunk
        As for `create_label_pyramid`.
    class_names, class_colors
        One channel each, (c, y, x), a chunk a channel; without any, a plane (y, x).

    Returns
    -------
    list of zarr.Array
        The levels, finest first, uint8, open for writing.

    Raises
    ------
    OutputError
        If something is there already, or the folder cannot be written.
    """
    if not class_names:
        return _create_over(path, image, chunk, {})
    ome = score_metadata(class_names, class_colors)
    return _create_over(path, image, chunk, ome, channels=len(class_names))


def _create_over(
    path: str | Path,
    image: Pyramid,
    chunk: int,
    ome: Mapping[str, Any],
    channels: int | None = None,
) -> list[zarr.Array[Any]]:
    """Create a uint8 pyramid on an image's own grid; None channels: a plane."""
    most = int(math.log2(chunk)) + 1
    grid = overlay_grid(image)
    return create_arrays(
        path,
        level_shapes(image.shape, 512, most),
        dtype=np.uint8,
        axes="yx" if channels is None else "cyx",
        chunk=chunk,
        channels=channels or 1,
        # A viewer shows one at a time.
        channel_chunk=1,
        pixel_size=grid.scale,
        translation=grid.translation,
        unit=grid.unit,
        name=image.name,
        ome=ome,
    )


def write_pyramid(
    path: str | Path,
    source: BlockReader | Pyramid | Pixels,
    *,
    shape: Sequence[int] | None = None,
    dtype: Any = None,
    channels: int | None = None,
    labels: bool = False,
    class_names: Sequence[str] = (),
    class_colors: Sequence[str] = (),
    channel_names: Sequence[str] = (),
    rgb: bool = False,
    pixel_size: float | Sequence[float] | None = None,
    translation: Sequence[float] | None = None,
    unit: str = "micrometer",
    name: str | None = None,
    chunk: int = 256,
    smallest: int = 256,
    attributes: Mapping[str, Any] | None = None,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> list[zarr.Array[Any]]:
    """Write an OME-Zarr 0.5 pyramid block by block.

    Parameters
    ----------
    path
        Where; nothing may be there yet.
    source
        An array (y, x) or (c, y, x), a Pyramid (its finest level, with its pixel size
        and names), or a function of the lower and upper pixel edges.
    shape, dtype, channels
        What a function gives; read off an array or Pyramid.
    labels
        Coarser levels keep the most frequent label instead of the mean.
    class_names, class_colors
        Of the labels 1..K.
    channel_names, rgb
        For the image metadata.
    pixel_size, translation, unit
        Physical edge and centre of the finest pixel 0; None: unknown.
    name
        Of the image; None: the file name.
    chunk
        Edge of a chunk.
    smallest
        Levels are added until no edge is longer.
    attributes
        More attributes of the group.
    on_progress, should_stop
        See `napari_muvit.core.progress`; the unit is blocks.

    Returns
    -------
    list of zarr.Array
        The levels, finest first.

    Raises
    ------
    OutputError
        If something is there already, or the folder cannot be written.
    Cancelled
        If ``should_stop`` said so; the store is then incomplete.
    """
    path = Path(path)
    if isinstance(source, Pyramid):
        pixel_size = source.pixel_size if pixel_size is None else pixel_size
        translation = source.translation if translation is None else translation
        unit, rgb = source.unit, rgb or source.rgb
        channel_names = channel_names or source.channel_names
        name = name or source.name
    read, shape, dtype, channels = _block_reader(source, shape, dtype, channels)
    size = None
    if pixel_size is not None:
        size = tuple(float(v) for v in np.broadcast_to(pixel_size, (2,)))
    ome = channel_metadata(channel_names, rgb)
    if labels:
        ome |= label_metadata(class_names, class_colors)
    arrays = create_arrays(
        path,
        level_shapes(shape, smallest),
        dtype=dtype,
        axes="yx" if channels == 1 else "cyx",
        chunk=chunk,
        channels=channels,
        pixel_size=size,
        translation=translation,
        unit=unit,
        name=name or path.name.split(".")[0],
        ome=ome,
        attributes=attributes,
    )
    readers = [read, *(halver(array, labels) for array in arrays[:-1])]
    _fill(path, arrays, readers, chunk, on_progress, should_stop)
    return arrays


def _fill(
    path: Path,
    arrays: Sequence[zarr.Array[Any]],
    readers: Sequence[BlockReader],
    chunk: int,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> None:
    """Write each level from its reader, finest first."""
    # Of whole chunks.
    edge = max(1, BLOCK_EDGE // chunk) * chunk
    blocks = [blocks_of(array.shape[-2:], edge) for array in arrays]
    total = sum(len(b) for b in blocks)
    done = 0
    for array, reader, places in zip(arrays, readers, blocks, strict=True):
        for lower, upper in places:
            check_stop(should_stop)
            block = np.asarray(reader(lower, upper))
            key = tuple(slice(v, u) for v, u in zip(lower, upper, strict=True))
            if array.ndim == 2:
                block = block.reshape(block.shape[-2:])
            else:
                key = (slice(None), *key)
            try:
                array[key] = block
            except OSError as error:
                raise OutputError(
                    f"{path} cannot be written: {error.strerror or error}. Free the "
                    "disk, or choose another folder."
                ) from error
            done += 1
            on_progress(Progress(stage="write", done=done, total=total, unit="block"))


def _block_reader(
    source: BlockReader | Pyramid | Pixels,
    shape: Sequence[int] | None,
    dtype: Any,
    channels: int | None,
) -> tuple[BlockReader, tuple[int, ...], np.dtype[Any], int]:
    """Return a function for any source, with shape, type and channels."""
    if isinstance(source, Pyramid):
        finest = source.levels[0].source
        return finest.read, finest.shape[1:], finest.dtype, finest.shape[0]
    if callable(source):
        if shape is None or dtype is None:
            raise PyramidError("A block function needs shape and dtype to be written.")
        return source, tuple(shape), np.dtype(dtype), channels or 1
    array = ArraySource(source, "yx" if len(source.shape) == 2 else "cyx")
    return array.read, array.shape[1:], array.dtype, array.shape[0]


def halver(finer: zarr.Array[Any], labels: bool) -> BlockReader:
    """Read a level at half the size of the level before."""

    def read(lower: tuple[int, ...], upper: tuple[int, ...]) -> NDArray[Any]:
        limits = finer.shape[-2:]
        key = tuple(
            slice(2 * v, min(2 * u, n))
            for v, u, n in zip(lower, upper, limits, strict=True)
        )
        block = np.asarray(finer[(slice(None),) * (finer.ndim - 2) + key])
        block = block[None] if block.ndim == 2 else block
        return halve_labels(block) if labels else halve_mean(block)

    return read


def blocks_of(
    shape: Sequence[int], edge: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Lower and upper edges of blocks of ``edge`` pixels, row by row."""
    corners = itertools.product(*(range(0, n, edge) for n in shape))
    return [
        (
            corner,
            tuple(min(c + edge, n) for c, n in zip(corner, shape, strict=True)),
        )
        for corner in corners
    ]
