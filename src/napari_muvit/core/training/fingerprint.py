"""Whether slides and annotations are those of before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np

from ..config import NormalisationMode
from ..data.block_cache import Pixels
from ..data.level_reading import read_stored
from ..data.pyramid import Pyramid
from ..data.sampling import PlainSlide, TrainingSlide

PIECES = 8
"""Pieces of a slide that are looked at."""
PIECE_EDGE = 64
"""Pixels of a piece along each axis."""


def fingerprint(
    slides: Sequence[PlainSlide | TrainingSlide], mode: NormalisationMode
) -> str:
    """Hash of what the slides hold, wherever they lie.

    It takes in sizes, the range of the pixels (of chunks all over the slide), else some
    of the pixels themselves, and where each class is annotated: what another slide or
    another annotation would change.

    Parameters
    ----------
    slides
        Ready to be sampled.
    mode
        How they are normalised.
    """
    digest = hashlib.sha256()
    for slide in slides:
        numbers = {
            "extent": slide.pyramid.extent.shape,
            "channels": slide.pyramid.num_channels,
            "dtype": str(slide.pyramid.dtype),
            "low": [float(v) for v in np.ravel(slide.normalisation.low)],
            "high": [float(v) for v in np.ravel(slide.normalisation.high)],
        }
        digest.update(json.dumps(numbers, sort_keys=True).encode())
        if mode != "percentile":
            # Its range is the same for every slide.
            for piece in _pieces(slide.pyramid):
                digest.update(np.ascontiguousarray(piece).tobytes())
        if isinstance(slide, TrainingSlide):
            digest.update(np.asarray(slide.index.counts, np.int64).tobytes())
            for points in slide.index.points:
                digest.update(np.ascontiguousarray(points, np.float64).tobytes())
        elif slide.tissue is not None:
            digest.update(np.packbits(slide.tissue.mask).tobytes())
    return digest.hexdigest()


def _pieces(view: Pyramid) -> Iterator[Pixels]:
    """Stored pixels of the finest level, all over the slide, (C, *spatial)."""
    level = view.levels[0]
    rng = np.random.default_rng(0)
    for _ in range(PIECES):
        room = [max(0, size - PIECE_EDGE) for size in level.shape]
        lower = [int(rng.integers(r + 1)) for r in room]
        upper = [
            min(size, first + PIECE_EDGE)
            for size, first in zip(level.shape, lower, strict=True)
        ]
        yield read_stored(level.source, lower, upper, view.cache)
