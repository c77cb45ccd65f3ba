"""Reading of nested crops against plain libraries, in one run.

Each reader runs in a process of its own, in turn, several rounds; a figure is the best
of its rounds. The slides are made on the first run. Appends one JSON line a case to
``results/data_speed.jsonl``; then writes ``docs/benchmarks/data.md`` and its plot.

    python benchmarks/data_speed.py [--work DIR] [--seconds 4] [--rounds 3]
                                    [--only CASE] [--data DIR] [--report]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from data_speed_slides import EDGE, FACTORS, SVS_SIZE, ZARR_SIZE, make_svs, make_zarr

RESULTS = Path(__file__).parent / "results" / "data_speed.jsonl"
CASES = {
    "grey zarr": ("zarr-python", "ours", "ours+tensorstore", "bare tensorstore"),
    "grey zarr, 64 MiB": ("zarr-python", "ours", "ours+tensorstore"),
    "2 workers": ("bare tensorstore", "ours+tensorstore", "ours"),
    "RGB SVS": ("openslide", "tifffile", "ours"),
    "RGB SVS, 64 MiB": ("openslide", "tifffile", "ours"),
    "RGB SVS, a part": ("openslide", "tifffile", "ours"),
    "10,000 crops": ("ours", "ours+tensorstore"),
}
Read = Callable[[np.ndarray], Any]


def places(size: int, seed: int = 0, part: bool = False) -> Callable[[], np.ndarray]:
    """Places all over the slide, or in a third of its edge, as world coordinates."""
    rng = np.random.default_rng(seed)
    first, last = (size // 3, 2 * size // 3) if part else (0, size)
    return lambda: rng.integers(first, last, 2)


def corners(centre: np.ndarray, factor: int, size: int) -> np.ndarray:
    """Lower corner of a crop around a place, inside the slide, in pixels of a level."""
    return np.clip(centre // factor - EDGE // 2, 0, size // factor - EDGE)


def zarr_python(path: Path) -> Read:
    """Three plain reads a place: what a user would write first."""
    import zarr

    levels = [zarr.open_array(path / str(k), mode="r") for k in range(len(FACTORS))]

    def read(centre: np.ndarray) -> list[np.ndarray]:
        out = []
        for array, factor in zip(levels, FACTORS, strict=True):
            y, x = corners(centre, factor, ZARR_SIZE)
            out.append(array[y : y + EDGE, x : x + EDGE])
        return out

    return read


def bare_tensorstore(path: Path) -> Read:
    """tensorstore for the finest level, the others in memory."""
    import tensorstore

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "0/")}}
    finest = tensorstore.open(spec, open=True, read=True).result()
    levels: list[Any] = [finest]
    for number in range(1, len(FACTORS)):
        spec["kvstore"]["path"] = str(path / str(number)) + "/"
        opened = tensorstore.open(spec, open=True, read=True).result()
        levels.append(opened.read().result())

    def read(centre: np.ndarray) -> list[np.ndarray]:
        out = []
        for array, factor in zip(levels, FACTORS, strict=True):
            y, x = corners(centre, factor, ZARR_SIZE)
            part = array[y : y + EDGE, x : x + EDGE]
            out.append(part if isinstance(part, np.ndarray) else part.read().result())
        return out

    return read


def ours(path: Path, max_bytes: int | None = None) -> Read:
    """Read by a pyramid, as float32."""
    from napari_muvit.core.data.open import open_pyramid
    from napari_muvit.core.geometry import Box

    pyramid = open_pyramid(path, max_bytes=max_bytes)
    size = pyramid.shape[0]

    def read(centre: np.ndarray) -> list[np.ndarray]:
        out = []
        for factor in FACTORS:
            lower = corners(centre, factor, size) * factor
            box = Box(tuple(lower), tuple(lower + EDGE * factor))
            out.append(pyramid.read(box, factor, (EDGE, EDGE)))
        return out

    return read


class Counted:
    """Counts calls of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, and count."""
        self.calls += 1
        return self.function(*args, **kwargs)


def shrunk(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Average over blocks: rows, then columns."""
    if factor == 1:
        return pixels.astype(np.float32)
    height, width, channels = pixels.shape
    rows = pixels.reshape(height // factor, factor, width, channels)
    part = rows.mean(axis=1, dtype=np.float32)
    columns = part.reshape(height // factor, width // factor, factor, channels)
    return np.asarray(columns.mean(axis=2))


def nearest_finer(stored: list[float], factor: int) -> int:
    """Coarsest stored level that is not coarser than wanted."""
    return max(k for k, have in enumerate(stored) if have <= factor * 1.01)


def openslide_reader(path: Path) -> tuple[Read, Counted]:
    """Three regions a place, averaged down where the level is finer than wanted."""
    import openslide

    slide = openslide.OpenSlide(str(path))
    stored = [round(v) for v in slide.level_downsamples]
    region = Counted(slide.read_region)

    def read(centre: np.ndarray) -> list[np.ndarray]:
        out = []
        for factor in FACTORS:
            level = nearest_finer(stored, factor)
            ratio = factor // stored[level]
            y, x = (int(v) * factor for v in corners(centre, factor, SVS_SIZE))
            picture = region((x, y), level, (EDGE * ratio, EDGE * ratio))
            out.append(shrunk(np.asarray(picture)[..., :3], ratio))
        return out

    return read, region


def tifffile_reader(path: Path) -> tuple[Read, Counted]:
    """The same through tifffile's zarr store."""
    import tifffile
    import zarr

    file = tifffile.TiffFile(path)
    levels = [
        zarr.open_array(file.series[0].aszarr(level=k), mode="r")
        for k in range(len(file.series[0].levels))
    ]
    stored = [round(levels[0].shape[0] / v.shape[0]) for v in levels]
    take = Counted(lambda level, rows, columns: levels[level][rows, columns])

    def read(centre: np.ndarray) -> list[np.ndarray]:
        out = []
        for factor in FACTORS:
            level = nearest_finer(stored, factor)
            ratio = factor // stored[level]
            y, x = corners(centre, factor, SVS_SIZE) * ratio
            edge = EDGE * ratio
            out.append(
                shrunk(take(level, slice(y, y + edge), slice(x, x + edge)), ratio)
            )
        return out

    return read, take


def ours_counted(path: Path, max_bytes: int | None) -> tuple[Read, Counted]:
    """Ours, with the calls into the file counted."""
    from napari_muvit.core.data.tiff_levels import TiffLevel

    counted = Counted(lambda: None)
    real = TiffLevel.__getitem__

    def get(self: TiffLevel, key: Any) -> Any:
        counted.calls += 1
        return real(self, key)

    TiffLevel.__getitem__ = get  # type: ignore[method-assign]
    return ours(path, max_bytes), counted


def timed(
    read: Read, size: int, seconds: float, part: bool = False
) -> dict[str, float]:
    """Crops a second, warm."""
    place = places(size, part=part)
    for _ in range(30):
        read(place())
    count, begun, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        read(place())
        count += len(FACTORS)
    wall = time.perf_counter() - begun
    return {
        "crops_a_second": count / wall,
        "cpu_ms_a_crop": 1e3 * (time.process_time() - cpu) / count,
    }


def run_zarr(case: str, who: str, work: Path, seconds: float) -> dict[str, float]:
    """Grey slide, one process."""
    path = work / "grey.zarr"
    if who == "zarr-python":
        return timed(zarr_python(path), ZARR_SIZE, seconds)
    if who == "bare tensorstore":
        return timed(bare_tensorstore(path), ZARR_SIZE, seconds)
    return timed(ours(path, budget(case)), ZARR_SIZE, seconds)


def budget(case: str) -> int | None:
    """Bytes for decoded pixels that a case allows."""
    return 64 * 2**20 if "MiB" in case else None


def run_svs(case: str, who: str, work: Path, seconds: float) -> dict[str, float]:
    """RGB slide, one process; also the calls into the library."""
    path = work / "rgb.svs"
    makers = {
        "openslide": openslide_reader, "tifffile": tifffile_reader,
        "ours": lambda p: ours_counted(p, budget(case)),
    }  # fmt: skip
    read, counted = makers[who](path)
    part = "part" in case
    found = timed(read, SVS_SIZE, seconds, part)
    # After the warm-up, per place of three crops.
    place, before, reads = places(SVS_SIZE, 1, part), counted.calls, 200
    for _ in range(reads):
        read(place())
    return {**found, "calls_a_place": (counted.calls - before) / reads}


def run_workers(_case: str, who: str, work: Path, seconds: float) -> dict[str, float]:
    """Two workers that hand batches of 16 to this process."""
    from data_speed_loader import bare_dataset, our_dataset

    from napari_muvit.core.data.loading import make_loader

    path = work / "grey.zarr"
    make = bare_dataset if who == "bare tensorstore" else our_dataset
    order = [list(range(16 * n, 16 * n + 16)) for n in range(100_000)]
    loader = iter(make_loader(make(path), batch_sampler=order, num_workers=2))
    for _ in range(20):
        next(loader)
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        next(loader)
        count += 16 * len(FACTORS)
    rate = count / (time.perf_counter() - begun)
    del loader
    return {"crops_a_second": rate}


def run_memory(_case: str, who: str, work: Path, _seconds: float) -> dict[str, float]:
    """Peak memory after 1,000 and after 10,000 places."""
    del who
    read = ours(work / "grey.zarr")
    place, found = places(ZARR_SIZE), {}
    for count in range(1, 10_001):
        read(place())
        if count in (1000, 2000, 10_000):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            found[f"peak_mib_{count}"] = peak
    return found


RUNS = {
    "grey zarr": run_zarr, "grey zarr, 64 MiB": run_zarr, "2 workers": run_workers,
    "RGB SVS": run_svs, "RGB SVS, 64 MiB": run_svs,
    "RGB SVS, a part": run_svs, "10,000 crops": run_memory,
}  # fmt: skip


def in_child(case: str, who: str, work: Path, seconds: float) -> dict[str, float]:
    """Measure in a fresh process."""
    command = [
        sys.executable, __file__, "--work", str(work), "--seconds", str(seconds),
        "--child", case, who,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if who == "ours":
        # As if tensorstore were not installed.
        environment["NO_TENSORSTORE"] = "1"
    # A file and no pipe: a worker that outlives its parent would keep the pipe open.
    with tempfile.TemporaryFile("w+") as output:
        subprocess.run(command, env=environment, check=True, stdout=output, timeout=300)
        output.seek(0)
        found: dict[str, float] = json.loads(output.read().strip().splitlines()[-1])
    return found


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Keep the largest rate, and the least of everything else."""
    return {
        key: round((max if key == "crops_a_second" else min)(r[key] for r in rounds), 4)
        for key in rounds[0]
    }


def measure(case: str, work: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """All readers of a case, in turn."""
    found: dict[str, list[dict[str, float]]] = {who: [] for who in CASES[case]}
    for _ in range(1 if case == "10,000 crops" else rounds):
        for who in CASES[case]:
            found[who].append(in_child(case, who, work, seconds))
            sys.stderr.write(f"{case}: {who}: {found[who][-1]}\n")
    return {
        "case": case,
        "cpu": cpu_name(),
        "load": round(os.getloadavg()[0], 2),
        **{who: best(rows) for who, rows in found.items()},
    }


def cpu_name() -> str:
    """Return what kind of CPU this is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(v.split(":")[1].strip() for v in lines if v.startswith("model name"))


def child(arguments: argparse.Namespace) -> None:
    """Run one reader and print what was found."""
    case, who = arguments.child
    if os.environ.get("NO_TENSORSTORE"):
        sys.modules["tensorstore"] = None  # type: ignore[assignment]
    found = RUNS[case](case, who, arguments.work, arguments.seconds)
    sys.stdout.write(json.dumps(found) + "\n")


def main() -> None:
    """Measure what is asked for, then write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, default=Path("build/data_speed"))
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=[*CASES, "opening"])
    parser.add_argument("--data", type=Path, help="folder of real slides to open")
    parser.add_argument("--report", action="store_true", help="only write the page")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    from data_speed_opening import opening
    from data_speed_report import write_report

    if not arguments.report:
        make_zarr(arguments.work / "grey.zarr")
        make_svs(arguments.work / "rgb.svs")
        RESULTS.parent.mkdir(exist_ok=True)
        for case in arguments.only or [*CASES, "opening"]:
            if case == "opening":
                row = opening(arguments.work, arguments.data)
            else:
                seconds, rounds = arguments.seconds, arguments.rounds
                row = measure(case, arguments.work, seconds, rounds)
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
    write_report()


if __name__ == "__main__":
    main()
