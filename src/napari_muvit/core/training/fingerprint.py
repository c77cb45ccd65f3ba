"""Whether slides and annotations are those of before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from ..data.sampling import PlainSlide, TrainingSlide


def fingerprint(slides: Sequence[PlainSlide | TrainingSlide]) -> str:
    """Hash of what the slides hold, wherever they lie.

    It takes in sizes, the range of the pixels (of chunks all over the slide) and where
    each class is annotated: what another slide or another annotation would change.
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
        if isinstance(slide, TrainingSlide):
            digest.update(np.asarray(slide.index.counts, np.int64).tobytes())
            for points in slide.index.points:
                digest.update(np.ascontiguousarray(points, np.float64).tobytes())
        elif slide.tissue is not None:
            digest.update(np.packbits(slide.tissue.mask).tobytes())
    return digest.hexdigest()
