"""Reads what it is told to read, one path a line, in a process with limits.

Run by the fixture `reader`, not by pytest: a crash, a hang or a hunger for memory ends
this process only. Answers one line of JSON a path.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

from napari_muvit._describe import describe_path, render
from napari_muvit.cli import main
from napari_muvit.core.data.geojson import read_geojson
from napari_muvit.core.data.identity import hash_image
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.tissue import cheap_to_look_at, find_tissue
from napari_muvit.core.errors import MuvitError
from napari_muvit.core.geometry import Box


def boxes(pyramid):
    """Boxes inside, across the edge and outside, at stored and missing factors."""
    extent = pyramid.extent
    for factor in sorted({1.0, 3.0, 8.0, *pyramid.scale_factors}):
        size = tuple(32 * factor for _ in extent.shape)
        for share in (0.0, 0.5, 1.0):
            lower = tuple(
                v + share * e - 3.5 * factor
                for v, e in zip(extent.lower, extent.shape, strict=True)
            )
            box = Box(lower, tuple(v + s for v, s in zip(lower, size, strict=True)))
            yield box, factor


def read_image(path: Path) -> str:
    pyramid = open_pyramid(path)
    for box, factor in boxes(pyramid):
        got = pyramid.read(box, factor, (32,) * pyramid.ndim)
        assert got.shape == (pyramid.num_channels, *(32,) * pyramid.ndim)
        assert got.dtype == np.float32
        pyramid.sample(box, (32,) * pyramid.ndim)
    hash_image(pyramid)
    if cheap_to_look_at(pyramid):
        mask = find_tissue(pyramid)
        assert 0 <= mask.share <= 1
    render(describe_path(path))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["info", "--json", str(path)]) == 0
    json.loads(printed.getvalue())
    return f"{pyramid.num_channels} x {pyramid.shape} {pyramid.scale_factors}"


def read_areas(path: Path) -> str:
    annotations = read_geojson(path).annotations()
    bounds = annotations.bounds()
    annotations.rasterise(Box.from_shape((64, 64)), (64, 64))
    if bounds is not None:
        annotations.rasterise(bounds, (64, 64))
        annotations.fractions(bounds, (64, 64), len(annotations.class_names or ()))
    return f"{len(annotations.items)} items {annotations.note[:100]}"


def answer(path: Path) -> dict[str, object]:
    read = read_areas if path.suffix in (".json", ".geojson") else read_image
    try:
        return {"kind": "read", "message": read(path)}
    except MuvitError as error:
        return {"kind": "refused", "message": str(error)}
    except BaseException:  # noqa: BLE001 - any other end is what is looked for
        return {"kind": "failed", "message": traceback.format_exc()}


def peak() -> int:
    """Most memory since the last call, bytes; 0 where the system does not say."""
    if not Path("/proc/self/status").exists():
        return 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            Path("/proc/self/clear_refs").write_text("5")
            return int(line.split()[1]) * 1024
    return 0


def serve(memory: int, seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    warnings.simplefilter("always")
    out = sys.stdout
    sys.stdout = sys.stderr
    peak()
    for line in sys.stdin:
        path = Path(json.loads(line))
        faulthandler.dump_traceback_later(seconds, exit=True)
        before, start = peak(), time.perf_counter()
        result = answer(path)
        result["seconds"] = time.perf_counter() - start
        faulthandler.cancel_dump_traceback_later()
        result["nbytes"] = peak() - before
        out.write(json.dumps(result) + "\n")
        out.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]))
