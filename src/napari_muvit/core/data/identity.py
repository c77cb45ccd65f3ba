"""What tells one image from another, as a hash."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from .arrays import ArraySource
from .block_cache import Pixels
from .pyramid import Pyramid

SAMPLED_BLOCKS = 8
"""Blocks of the finest level whose pixels tell one image from another."""
SAMPLED_EDGE = 64
"""Edge of such a block in pixels."""


def hash_image(pyramid: Pyramid) -> str:
    """Return the SHA-256 of what tells one image from another, as hexadecimals.

    Name, sizes, pixel type and seeded blocks of pixels, but neither the folder nor
    times of files: a copy of the slide on another disk is the same slide.
    """
    facts = {
        "name": pyramid.name,
        "channels": pyramid.num_channels,
        "dtype": str(pyramid.dtype),
        "levels": [
            [list(v.shape), list(v.scale), list(v.offset)] for v in pyramid.levels
        ],
        "pixel_size": pyramid.pixel_size,
        "unit": pyramid.unit,
    }
    # Other images and planes of the file may be as empty where they are looked at.
    if any(pyramid.contents.planes.values()):
        facts["planes"] = dict(pyramid.contents.planes)
    if pyramid.contents.image:
        facts["image"] = pyramid.contents.image
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    if pyramid.path is not None and pyramid.path.is_file():
        digest.update(str(pyramid.path.stat().st_size).encode())
    for block in sample_blocks(pyramid.levels[0].source):
        digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def sample_blocks(source: ArraySource) -> list[Pixels]:
    """Seeded blocks of a level, each (C, *spatial)."""
    shape = source.shape[1:]
    rng = np.random.default_rng(0)
    edges = [min(SAMPLED_EDGE, n) for n in shape]
    blocks = []
    for _ in range(SAMPLED_BLOCKS):
        lower = [
            int(rng.integers(0, n - e + 1)) for n, e in zip(shape, edges, strict=True)
        ]
        upper = [v + e for v, e in zip(lower, edges, strict=True)]
        blocks.append(source.read(lower, upper))
    return blocks
