"""The folder of a prediction: made as a whole, opened, removed; never half of it.

The store is an OME-Zarr label image. In it lie an image for each other output that was
asked for, ``probabilities`` (c, y, x) and ``confidence`` (y, x), with the same levels,
and ``.muvit/``, which says what it was made from and what of it is done (`writer`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ..data.zarr_writer import (
    create_label_pyramid,
    create_score_pyramid,
    halve_labels,
    halve_mean,
)
from ..errors import OutputError
from .filled import LABELS
from .levels import CoarseLevel, Halve, Level
from .place import NEW, aside, move
from .record import PRIVATE

if TYPE_CHECKING:
    from ..config import ModelConfig
    from ..data.pyramid import Pyramid
    from .filled import FilledTile
    from .plan import PredictionPlan


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One of the images of a prediction, open for writing."""

    levels: list[Level]
    """Finest first; the coarser ones are held in memory."""
    halve: Halve
    """Makes the next coarser level."""


def create_store(
    path: Path,
    pyramid: Pyramid,
    plan: PredictionPlan,
    config: ModelConfig,
    record: Mapping[str, Any],
) -> None:
    """Make the whole store aside and move it into place, so it is never half.

    Parameters
    ----------
    path
        Where. What another process puts there meanwhile stays.
    pyramid
        The slide, for size, scale and place.
    plan
        What will be written.
    config
        Class names and colours.
    record
        Stored as ``run.json``; ``outputs`` in it says what there is beside labels.
    """
    new = aside(path, NEW)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(new, ignore_errors=True)
    names, colors, chunk = config.names, config.colors, plan.tile_size
    try:
        create_label_pyramid(new, pyramid, names, colors, chunk)
        for name in record.get("outputs", ()):
            each = (names, colors) if name == "probabilities" else ((), ())
            create_score_pyramid(new / name, pyramid, *each, chunk=chunk)
        private = new / PRIVATE
        private.mkdir()
        (private / "run.json").write_text(json.dumps(record, indent=1))
        (private / "done").write_bytes(bytes(plan.num_tiles))
        with contextlib.suppress(FileExistsError):
            # Of several shards that begin at once, one is the first.
            move(new, path)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def open_images(path: Path, outputs: Sequence[str]) -> dict[str, StoredImage]:
    """Open the labels and the other outputs of a prediction for writing, by name."""
    images = {}
    for name in (LABELS, *outputs):
        finest, *coarse = _open_levels(_folder(path, name))
        levels: list[Level] = [finest, *(CoarseLevel(level) for level in coarse)]
        halve = halve_labels if name == LABELS else halve_mean
        images[name] = StoredImage(levels, halve)
    return images


def open_finest(path: Path, outputs: Sequence[str]) -> dict[str, zarr.Array[Any]]:
    """Open the finest levels of a prediction for writing, by name."""
    return {
        name: zarr.open_array(_folder(path, name) / "0", mode="r+")
        for name in (LABELS, *outputs)
    }


def write_finest(finest: Mapping[str, Level], filled: FilledTile) -> None:
    """Write a tile in output pixels at the finest level of each image."""
    y0, x0, y1, x1 = filled.tile.box
    for name, pixels in filled.images.items():
        finest[name][..., y0:y1, x0:x1] = pixels


def _folder(path: Path, name: str) -> Path:
    return path if name == LABELS else path / name


def _open_levels(path: Path) -> list[zarr.Array[Any]]:
    """Open the levels of a pyramid for reading and writing, finest first."""
    names = sorted(int(p.name) for p in path.iterdir() if p.name.isdigit())
    return [zarr.open_array(path / str(name), mode="r+") for name in names]


def check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise `OutputError` where a prediction cannot be continued by another run.

    Parameters
    ----------
    path
        Where it lies.
    found, wanted
        Records of the prediction and of the run.
    """
    known = found.get("identity") or {}
    identity = wanted["identity"]
    other = [name for name in identity if known.get(name) != identity[name]]
    if other:
        raise OutputError(
            f"{path} holds a prediction with other "
            f"{' and other '.join(other)}; choose another output, or overwrite it."
        )
    there, asked = (list(record.get("outputs", ())) for record in (found, wanted))
    if there != asked:
        raise OutputError(
            f"{path} holds {_listed(there)}, but {_listed(asked)} were asked for. Ask "
            "for what it holds, choose another output, or overwrite it."
        )


def _listed(outputs: Sequence[str]) -> str:
    return " and ".join((LABELS, *outputs)) if outputs else f"{LABELS} alone"


def is_whole(images: Mapping[str, StoredImage], shape: tuple[int, int]) -> bool:
    """Whether there are images, all of the same levels, the finest of a shape."""
    planes = [[level.shape[-2:] for level in i.levels] for i in images.values()]
    return all(p[:1] == [shape] and p == planes[0] for p in planes) and bool(planes)


def read_marks(path: Path) -> NDArray[np.uint8]:
    """One byte a tile, as it is on disk now."""
    return np.frombuffer((path / PRIVATE / "done").read_bytes(), np.uint8)


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn what the disk says when it refuses into an `OutputError`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}. What is finished is "
            "kept; free the disk or choose another output, and run again."
        ) from error
