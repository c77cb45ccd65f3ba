"""File > Open Sample > MuViT."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.types import LayerData

    from .core.data.pyramid import Pyramid

SIZE = 2048
LARGE_SIZE = 4096
SEED = 7
"""Not that of the demo: its model would be shown the slide that it learned from."""


def synthetic_slide() -> list[LayerData]:
    """Return a slide in which a cell's class depends on where it lies."""
    return _layers(SIZE)


def large_synthetic_slide() -> list[LayerData]:
    """Return a larger one, of which only a part fits on the screen at full size."""
    return _layers(LARGE_SIZE)


def _layers(size: int) -> list[LayerData]:
    """Image and truth of a sample slide.

    The truth comes along as a hidden Labels layer, so that *Annotate* can be tried
    without drawing anything.
    """
    from .core.data.open import open_pyramid
    from .core.data.synthetic import CLASS_COLORS, CLASS_NAMES

    image_path, labels_path = _written(size)
    image, truth = open_pyramid(image_path), open_pyramid(labels_path)
    pixels = _planes(image)
    colors: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    colors.update(enumerate(CLASS_COLORS, start=1))
    return [
        (
            pixels,
            {
                "name": "synthetic slide",
                "multiscale": True,
                "contrast_limits": _limits(pixels[-1]),
                **_place(image),
                "metadata": {"path": str(image_path)},
            },
            "image",
        ),
        (
            _planes(truth),
            {
                "name": "synthetic truth",
                "multiscale": True,
                "visible": False,
                "opacity": 0.5,
                "features": {
                    "index": list(range(len(CLASS_NAMES) + 1)),
                    "class": ["not annotated", *CLASS_NAMES],
                },
                "colormap": colors,
                **_place(truth),
            },
            "labels",
        ),
    ]


def _written(size: int) -> tuple[Path, Path]:
    """Return the files of the sample, made once and kept in the cache folder."""
    from .core.data.synthetic import VERSION, write_synthetic
    from .widgets.places import cache_folder

    folder = cache_folder() / f"synthetic-{VERSION}-{size}-{SEED}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="napari-muvit-"))
    return write_synthetic(folder, images=1, size=size, seed=SEED)[0]


def _planes(pyramid: Pyramid) -> list[Any]:
    """Return the levels as (y, x) arrays; a sample is small enough for memory."""
    planes = []
    for level in pyramid.levels:
        array = level.source.array
        if len(array.shape) == 2:
            planes.append(array)
        else:
            planes.append(level.source.read((0, 0), level.shape)[0])
    return planes


def _place(pyramid: Pyramid) -> dict[str, Any]:
    if pyramid.pixel_size is None:
        return {}
    return {
        "scale": pyramid.pixel_size,
        "translate": pyramid.translation or (0.0, 0.0),
        "units": "um",
    }


def _limits(coarsest: Any) -> tuple[float, float]:
    values = np.asarray(coarsest[:])
    if values.dtype == np.uint8:
        return 0.0, 255.0
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.9)))
    return (low, high) if high > low else (low, low + 1.0)
