"""Measure what the cache of coarse levels costs and saves on a flat slide.

Writes a tiled TIFF of one level, with tissue-like texture, then reads nested crops of
256 x 256 pixels at factors 1, 8 and 32 at random places: averaged from the only level
when they are read, and with the coarse levels out of the cache. Each in a fresh
process, cold: no decoded pixels are held at the start (the file itself is in the
system's page cache). The first crops are counted on their own, because averages stay
in memory as long as there is room for them.

    python benchmarks/level_cache.py [--again] [--size 20000] [--codecs jpeg deflate]

Appends one JSON line a codec to ``benchmarks/results/level_cache.jsonl``; what is there
already is skipped unless ``--again``.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESULTS = Path(__file__).parent / "results" / "level_cache.jsonl"
FACTORS = (1, 8, 32)
CROP, TILE = 256, 256
FIRST = 20
"""Crops that count as the first ones."""
OPTIONS: dict[str, dict[str, Any]] = {
    "jpeg": {"compression": "jpeg", "compressionargs": {"level": 85}},
    "deflate": {"compression": "zlib", "compressionargs": {"level": 6}},
}


def tiles(size: int) -> Iterator[NDArray[np.uint8]]:
    """Tiles of smooth blobs with grain, row by row."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, np.pi, TILE)
    blob = 60 * np.outer(np.sin(ramp), np.sin(ramp))
    for _ in range((-(-size // TILE)) ** 2):
        grain = rng.normal(120, 12, (TILE, TILE))
        yield np.clip(grain + rng.random() * blob, 0, 255).astype(np.uint8)


def write_slide(path: Path, size: int, codec: str) -> None:
    """Write the slide tile by tile."""
    import tifffile

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            tiles(size), shape=(size, size), dtype=np.uint8, tile=(TILE, TILE),
            photometric="minisblack", **OPTIONS[codec],
        )  # fmt: skip


def measure(slide: Path, cache: Path | None, seconds: float) -> dict[str, Any]:
    """Read nested crops in this process, for about ``seconds``."""
    from napari_muvit.core import Box, open_pyramid
    from napari_muvit.core.data.cache_folder import folder_bytes
    from napari_muvit.core.data.cache_settings import CacheSettings
    from napari_muvit.core.data.level_cache import with_coarse_levels
    from napari_muvit.core.geometry import nest

    image, facts = open_pyramid(slide), {}
    if cache is not None:
        start = time.perf_counter()
        image = with_coarse_levels(image, FACTORS, cache=CacheSettings(folder=cache))
        facts["open_s"] = round(time.perf_counter() - start, 3)
        facts["cache_mb"] = round(folder_bytes(cache) / 1e6, 1)
    rng = np.random.default_rng(1)
    size, count, first = image.shape[0], 0, 0.0
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds or count < FIRST:
        if count == FIRST:
            first = spent
        lower = rng.integers(0, size - CROP, 2).astype(float)
        fine = Box(tuple(lower), tuple(lower + CROP))
        crop = nest(fine, FACTORS, image.extent, rng)
        for box, factor in zip(crop.boxes, FACTORS, strict=True):
            image.read(box, factor, (CROP, CROP))
        count += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return facts | {
        "first_per_s": round(FIRST / (first or spent), 2),
        "crops_per_s": round(count / spent, 2),
        "peak_mib": round(peak),
    }


def in_process(*arguments: Any) -> dict[str, Any]:
    """Measure in a fresh process."""
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(found)
    return result


def run(size: int, codec: str, seconds: float) -> dict[str, Any]:
    """All figures of one slide."""
    with tempfile.TemporaryDirectory() as folder:
        slide, cache = Path(folder) / "flat.tif", Path(folder) / "cache"
        write_slide(slide, size, codec)
        without = in_process(slide, "-", seconds)
        build = in_process(slide, cache, 0)
        with_cache = in_process(slide, cache, seconds)
        return {
            "size": size, "codec": codec, "slide_mb": round(slide.stat().st_size / 1e6),
            "build_s": build["open_s"], "build_peak_mib": build["peak_mib"],
            "cache_mb": with_cache["cache_mb"], "open_s": with_cache["open_s"],
            "first_per_s_without": without["first_per_s"],
            "first_per_s_with": with_cache["first_per_s"],
            "crops_per_s_without": without["crops_per_s"],
            "crops_per_s_with": with_cache["crops_per_s"],
            "seconds": seconds,
            "python": platform.python_version(), "system": platform.platform(),
        }  # fmt: skip


def main() -> None:
    """Measure what is not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--size", type=int, default=20000)
    parser.add_argument("--codecs", nargs="+", default=list(OPTIONS))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        slide, cache, seconds = options.child
        where = None if cache == "-" else Path(cache)
        print(json.dumps(measure(Path(slide), where, float(seconds))))
        return
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    there = {(row["size"], row["codec"]) for row in map(json.loads, lines)}
    for codec in options.codecs:
        if (options.size, codec) in there and not options.again:
            continue
        row = run(options.size, codec, options.seconds)
        print(row)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
