"""Whether a prediction was begun before and would be gone on with; torch-free.

Who predicts compares hashes of the model, the settings and the image (`identity`). A
form that wants to say so beforehand must not load the model: here names and settings
are compared, which is as good for a word on a button.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .marks import shard_marks
from .record import read_record
from .store import read_marks

if TYPE_CHECKING:
    from ..config import PredictionConfig
    from ..data.pyramid import Pyramid

SETTINGS = ("overlap", "average", "placement", "tile_size")
"""Of those that decide the pixels: what the user chooses."""


@dataclass(frozen=True, slots=True)
class BegunPrediction:
    """An output that the same request would go on with."""

    path: Path
    done: int
    """Tiles that are finished."""
    total: int
    """Tiles of the whole slide."""


def find_begun(
    paths: Iterable[Path], pyramid: Pyramid, model: str, config: PredictionConfig
) -> BegunPrediction | None:
    """Find the output that a prediction would go on with.

    Parameters
    ----------
    paths
        Where it may lie, in the order in which places are tried; the first one at which
        there is nothing ends the search.
    pyramid
        The slide.
    model
        Name of the model's folder.
    config
        What would be asked for.
    """
    for path in takewhile(Path.exists, paths):
        record = read_record(path)
        if record is None or not _same(record, pyramid, model, config):
            continue
        try:
            flags = read_marks(path)
        except OSError:
            continue
        done = flags.astype(bool) | shard_marks(path, len(flags))
        return BegunPrediction(path, int(np.count_nonzero(done)), len(flags))
    return None


def _same(
    record: dict[str, Any], pyramid: Pyramid, model: str, config: PredictionConfig
) -> bool:
    settings, image = record.get("settings", {}), record.get("image", {})
    path = pyramid.url or (pyramid.path and str(pyramid.path))
    return (
        record.get("model") == model
        and all(settings.get(name) == getattr(config, name) for name in SETTINGS)
        and record.get("outputs") == sorted(config.outputs)
        and image.get("shape") == list(pyramid.shape)
        and image.get("path") == path
        and (path is not None or image.get("name") == pyramid.name)
    )
