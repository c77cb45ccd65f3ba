"""How long slides take to open: ``data_speed.py``."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

MANY = 1500
OPENED = {".svs", ".qptiff", ".tif", ".zarr"}


def opening(work: Path, data: Path | None) -> dict[str, Any]:
    """Milliseconds to open each slide, and what 1,500 of them cost together."""
    from napari_muvit.core.data.open import open_pyramid

    slides = [work / "grey.zarr", work / "rgb.svs"]
    if data is not None:
        found = sorted(p for folder in data.iterdir() for p in folder.glob("*"))
        kinds = [p for p in found if p.suffix in OPENED and "broken" not in p.name]
        tiffs = [p for p in kinds if p.suffix == ".tif"]
        slides += [p for p in kinds if p.suffix != ".tif"] + tiffs[:1]
    row: dict[str, Any] = {"case": "opening", "milliseconds": {}, "many": {}}
    for path in slides:
        open_pyramid(path)
        times = []
        for _ in range(7):
            begun = time.perf_counter()
            open_pyramid(path)
            times.append(1e3 * (time.perf_counter() - begun))
        row["milliseconds"][path.name] = round(sorted(times)[len(times) // 2], 1)
    for path in slides[:2]:
        row["many"][path.name] = many(path)
    return row


def many(path: Path) -> dict[str, float]:
    """Open a slide many times and keep all of them."""
    from napari_muvit.core.data.open import open_pyramid

    handles = len(os.listdir("/proc/self/fd"))
    begun = time.perf_counter()
    kept = [open_pyramid(path) for _ in range(MANY)]
    seconds = time.perf_counter() - begun
    opened = len(os.listdir("/proc/self/fd")) - handles
    del kept
    tracemalloc.start()
    kept = [open_pyramid(path) for _ in range(50)]
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return {
        "slides": MANY, "seconds": round(seconds, 2), "kib_each": round(size / 1024, 1),
        "open_files": opened,
    }  # fmt: skip
