"""Any slide as an OME-Zarr 0.5 with all levels: streaming, continued when cut off.

The store grows in a folder beside its place, named ``....zarr.part``, and moves there
when it is complete. A list of the blocks that are written lies in it, so a killed run
goes on where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ... import __version__
from ..errors import OutputError
from ..progress import (
    Progress,
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)
from .identity import hash_image
from .ledger import open_ledger, read_ledger, start_ledger
from .open import open_pyramid
from .pyramid import Pyramid
from .zarr_metadata import (
    channel_metadata,
    create_arrays,
    label_metadata,
    level_shapes,
)
from .zarr_nodes import LabelInfo, is_zarr, read_label_info
from .zarr_writer import BlockReader, blocks_of, halver

CHUNK, SHARD = 256, 2048
"""Edges in pixels. A block that is read and written at a time is one shard."""
SMALLEST = 256
"""Levels are added until no edge is longer."""
STATE = "conversion.jsonl"
ATTRIBUTE = "napari_muvit"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion did."""

    path: Path
    """The OME-Zarr."""
    shapes: tuple[tuple[int, ...], ...]
    """Spatial shape of each level, finest first."""
    blocks: int
    """Blocks written by this run; the rest was there."""
    total: int
    """Blocks of all levels."""


def convert(
    source: Any,
    out: str | Path,
    *,
    labels: bool | None = None,
    overwrite: bool = False,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> Conversion:
    """Write a slide as an OME-Zarr 0.5 pyramid.

    Levels at factors 1, 2, 4, ...; chunks of 256 in shards of 2048 pixels. Pixel size,
    translation, channel names and class names are kept. Memory does not grow with the
    slide. The same call continues a conversion that was cut off, and leaves a finished
    one as it is.

    Parameters
    ----------
    source
        Anything that `open_pyramid` opens.
    out
        The OME-Zarr to write.
    labels
        Coarser levels keep the most frequent value instead of the mean. None: where
        the file says that it is a label image.
    overwrite
        Replace the zarr at ``out``, and what is left of another conversion.
    on_progress, should_stop
        See `napari_muvit.core.progress`; the unit is blocks.

    Raises
    ------
    PyramidError
        If the source cannot be read.
    OutputError
        If something else is at ``out``, or it cannot be written.
    Cancelled
        If ``should_stop`` said so; what is written is kept for the next run.
    """
    image, path = open_pyramid(source), Path(os.path.abspath(out))
    info = read_label_info(image.contents.place)
    labels = info.is_label if labels is None else labels
    _check_place(path, image)
    identity = {"image": hash_image(image), "labels": labels, "version": 1}
    shapes = tuple(level_shapes(image.shape, SMALLEST))
    total = sum(len(blocks_of(shape, SHARD)) for shape in shapes)
    if _converted(path) == identity:
        (path / STATE).unlink(missing_ok=True)
        return Conversion(path, shapes, 0, total)
    _check_free(path, overwrite)
    part = path.with_name(path.name + ".part")
    try:
        written = _continue(image, part, identity, labels, info, overwrite)
        count = _fill(image, part, written, labels, on_progress, should_stop)
        _finish(part, path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}. What is done is "
            "kept; free the disk and run it again."
        ) from error
    return Conversion(path, shapes, count, total)


def _check_free(path: Path, overwrite: bool) -> None:
    """Refuse what is there, and ever to replace anything but a zarr."""
    if path.exists() and not is_zarr(path):
        raise OutputError(f"{path} is there and is no zarr; choose another name.")
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path} holds something else; choose another name, or pass overwrite."
        )


def _check_place(path: Path, image: Pyramid) -> None:
    """Refuse to write into or over the image itself."""
    if image.path is None:
        return
    own = Path(os.path.realpath(image.path))
    there = Path(os.path.realpath(path))
    if there == own or own in there.parents or there in own.parents:
        raise OutputError(f"{path} and the image {own} lie in each other.")


def _converted(path: Path) -> Any:
    """Return the identity of the conversion that a store is of, or None."""
    try:
        content = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return content["attributes"][ATTRIBUTE]["converted"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _continue(
    image: Pyramid,
    part: Path,
    identity: dict[str, Any],
    labels: bool,
    info: LabelInfo,
    overwrite: bool,
) -> set[tuple[int, int]]:
    """Blocks (level, index) that are there; makes the empty store where none is."""
    if part.exists():
        lines = read_ledger(part / STATE)
        if lines and lines[0] == identity:
            return {(int(level), int(index)) for level, index in lines[1:]}
        if lines and not overwrite:
            raise OutputError(
                f"{part} is left of another conversion; remove it, or pass overwrite."
            )
        # Without a first line it was killed before the first block.
        if _converted(part) is None and any(part.iterdir()):
            raise OutputError(
                f"{part}, where the store would grow, is not of this package; remove "
                "it, or choose another name."
            )
        shutil.rmtree(part)
    _create(image, part, identity, labels, info)
    start_ledger(part / STATE, identity)
    return set()


def _create(
    image: Pyramid,
    part: Path,
    identity: dict[str, Any],
    labels: bool,
    info: LabelInfo,
) -> None:
    ome = channel_metadata(image.channel_names, image.rgb)
    if labels:
        order = sorted(info.names)
        whole = order == list(range(1, len(order) + 1))
        names = [info.names[k] for k in order] if whole else []
        colors = [info.colors[k] for k in order if k in info.colors] if whole else []
        ome |= label_metadata(names, colors if len(colors) == len(names) else [])
    create_arrays(
        part,
        level_shapes(image.shape, SMALLEST),
        dtype=image.dtype.newbyteorder("="),
        axes="yx" if image.num_channels == 1 else "cyx",
        chunk=CHUNK,
        shard=SHARD,
        channels=image.num_channels,
        pixel_size=image.pixel_size,
        translation=image.translation,
        unit=image.unit,
        name=image.name,
        ome=ome,
        attributes={ATTRIBUTE: {"converted": identity, "package": __version__}},
    )


def _fill(
    image: Pyramid,
    part: Path,
    written: set[tuple[int, int]],
    labels: bool,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> int:
    """Write the blocks that are missing, finest level first; return their number."""
    group = zarr.open_group(part, mode="r+")
    count = len(level_shapes(image.shape, SMALLEST))
    arrays: list[Any] = [group[str(level)] for level in range(count)]
    readers: list[BlockReader] = [
        image.levels[0].source.read,
        *(halver(array, labels) for array in arrays[:-1]),
    ]
    places = [blocks_of(array.shape[-2:], SHARD) for array in arrays]
    total, done = sum(map(len, places)), len(written)
    with open_ledger(part / STATE) as add:
        for level, (array, reader) in enumerate(zip(arrays, readers, strict=True)):
            for index, (lower, upper) in enumerate(places[level]):
                if (level, index) in written:
                    continue
                check_stop(should_stop)
                _write_block(array, reader, lower, upper)
                add([level, index])
                done += 1
                on_progress(
                    Progress(stage="write", done=done, total=total, unit="block")
                )
    return done - len(written)


def _write_block(
    array: Any, reader: BlockReader, lower: Sequence[int], upper: Sequence[int]
) -> None:
    block = np.asarray(reader(tuple(lower), tuple(upper)))
    key = tuple(slice(v, u) for v, u in zip(lower, upper, strict=True))
    if array.ndim == 2:
        array[key] = block.reshape(block.shape[-2:])
    else:
        array[(slice(None), *key)] = block


def _finish(part: Path, path: Path) -> None:
    """Move the complete store to its place; the list goes last, when it is safe."""
    if path.exists():
        old = path.with_name(path.name + ".old")
        path.replace(old)
        part.replace(path)
        shutil.rmtree(old)
    else:
        part.replace(path)
    (path / STATE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        # So that the move itself is safe on the disk.
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def describe(result: Conversion) -> dict[str, Any]:
    """Plain JSON types."""
    facts = dataclasses.asdict(result)
    return {
        **facts,
        "path": str(result.path),
        "shapes": [list(s) for s in result.shapes],
    }
