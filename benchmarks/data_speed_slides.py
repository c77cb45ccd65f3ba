"""The slides of ``data_speed.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FACTORS, EDGE = (1, 8, 32), 256
ZARR_SIZE, SVS_SIZE = 20_480, 12_288
BAND = 2048


def band(
    row: int, width: int, rng: np.random.Generator, grain: float = 4
) -> np.ndarray:
    """Smooth waves with grain: hardly compressible, as real pixels are."""
    rows = row + np.arange(BAND)[:, None]
    waves = 120 + 60 * np.sin(np.arange(width) / 300)[None] * np.cos(rows / 200)
    noise = rng.normal(0, grain, (BAND, width))
    return np.asarray(np.clip(waves + noise, 0, 255), dtype=np.uint8)


def averaged(image: np.ndarray, factor: int) -> np.ndarray:
    """Average (y, x, ...) over blocks."""
    height, width = (n // factor for n in image.shape[:2])
    image = image[: height * factor, : width * factor]
    blocks = image.reshape(height, factor, width, factor, *image.shape[2:])
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.uint8)


def make_zarr(path: Path) -> None:
    """Levels 1, 8 and 32 in chunks of 256, as zarr-python writes them."""
    import zarr

    if path.exists():
        return
    group = zarr.open_group(path.with_suffix(".part"), mode="w")
    rng = np.random.default_rng(0)
    arrays = [
        group.create_array(
            str(k), shape=(ZARR_SIZE // f,) * 2, chunks=(256, 256), dtype="u1"
        )
        for k, f in enumerate(FACTORS)
    ]
    for row in range(0, ZARR_SIZE, BAND):
        pixels = band(row, ZARR_SIZE, rng)
        for array, factor in zip(arrays, FACTORS, strict=True):
            first = row // factor
            array[first : first + BAND // factor] = averaged(pixels, factor)
    path.with_suffix(".part").rename(path)


def make_svs(path: Path) -> None:
    """Levels 1, 4 and 16 in JPEG tiles of 256, laid out as Aperio's."""
    import tifffile

    if path.exists():
        return
    rng = np.random.default_rng(0)
    # JPEG would cut less grain away.
    rows = [band(r, SVS_SIZE, rng, 10) for r in range(0, SVS_SIZE, BAND)]
    grey = np.concatenate(rows)
    image = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1)
    part = path.with_suffix(".part")
    options = {
        "photometric": "rgb", "compression": "jpeg", "tile": (256, 256),
        "compressionargs": {"level": 85}, "metadata": None,
    }  # fmt: skip
    with tifffile.TiffWriter(part, bigtiff=True) as file:
        for number, factor in enumerate((1, 4, 16)):
            said = (
                f"Aperio Image Library v1 {SVS_SIZE}x{SVS_SIZE}|AppMag = 20|MPP = 0.5"
            )
            pixels = image if factor == 1 else averaged(image, factor)
            file.write(pixels, description=said, **options)
            if number == 0:
                # Aperio's second page is a thumbnail.
                thumbnail = averaged(image, 32)
                file.write(
                    thumbnail, description=said, photometric="rgb", metadata=None
                )
    part.rename(path)
