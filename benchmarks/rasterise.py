"""Speed of rasterising outlines, against peers in the same run.

1000 outlines (20 to 200 vertices, some of 5,000, a fifth with two holes) lie scattered
over a slide of 20,000 x 20,000. Crops of 512 x 512 px at factors 1, 8 and 32 are
rasterised by us, by scikit-image (``draw.polygon``) and by Pillow (``ImageDraw``); the
peers are handed only the outlines whose bounding box meets the crop. One outline of a
million vertices, and ``fractions`` (8 x 8 samples a pixel), follow. A figure is the
least CPU time of the repetitions of a crop, as mean and worst over the crops.

    python benchmarks/rasterise.py [--crops 20]

Appends one JSON line a run to ``benchmarks/results/rasterise.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from skimage.draw import polygon as fill_polygon

from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.data.polygons import Polygon
from napari_muvit.core.geometry import Box

RESULTS = Path(__file__).parent / "results" / "rasterise.jsonl"
SLIDE, CROP, COUNT, CLASSES = 20_000, 512, 1000, 4
LIMITS_MS = {1: 1.0, 32: 20.0}
"""Criteria: mean of ours a crop, by factor."""
SLOW_S = 0.1
"""What takes longer is not repeated."""
Labels = np.ndarray
Rasteriser = Callable[[Box], Labels]


def outline(
    rng: np.random.Generator, count: int, centre: np.ndarray, radius: float
) -> np.ndarray:
    """Return a wobbly ring, (count, 2)."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    wave = 1 + 0.3 * np.sin(3 * angle + rng.uniform(0, 6))
    reach = radius * (wave + 0.03 * rng.standard_normal(count))
    return centre + np.stack([np.sin(angle), np.cos(angle)], axis=1) * reach[:, None]


def many_outlines(seed: int = 0) -> list[Polygon]:
    """Return what a well annotated slide holds."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(COUNT):
        centre = rng.uniform(0, SLIDE, 2)
        radius, count = np.exp(rng.uniform(*np.log([30, 600]))), rng.integers(20, 201)
        if number % 50 == 0:
            radius, count = rng.uniform(500, 2000), 5000
        holes = tuple(
            outline(rng, 20, centre + rng.uniform(-0.3, 0.3, 2) * radius, radius * 0.15)
            for _ in range(2 if number % 5 == 0 else 0)
        )
        label = int(rng.integers(1, CLASSES + 1))
        found.append(Polygon(label, outline(rng, int(count), centre, radius), holes))
    return found


def coast() -> Polygon:
    """Return a ring of a million vertices, as a traced border is."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 1_000_000, endpoint=False)
    walk = np.cumsum(rng.standard_normal(len(angle))) * 0.02
    reach = 8000 * (1 + 0.2 * np.sin(3 * angle)) + walk
    ring = np.stack([np.sin(angle), np.cos(angle)], axis=1) * reach[:, None]
    return Polygon(1, SLIDE / 2 + ring)


class Peers:
    """The same outlines for other libraries, by the bounding boxes of ours."""

    def __init__(self, polygons: Sequence[Polygon]) -> None:
        self.polygons = list(polygons)
        self.lower = np.array([p.lower for p in polygons])
        self.upper = np.array([p.upper for p in polygons])

    def _meeting(self, box: Box) -> list[Polygon]:
        met = (self.lower < box.upper) & (self.upper > box.lower)
        return [self.polygons[i] for i in np.flatnonzero(met.all(axis=1))]

    def skimage(self, box: Box) -> Labels:
        """Outline by outline; a pixel of scikit-image is named by its centre."""
        out = np.zeros((CROP, CROP), np.uint8)
        low, step = np.asarray(box.lower), box.shape[0] / CROP
        for item in self._meeting(box):
            outer = (item.vertices - low) / step - 0.5
            rows, columns = fill_polygon(*outer.T, out.shape)
            if not item.holes:
                out[rows, columns] = item.label
                continue
            mask = np.zeros(out.shape, bool)
            mask[rows, columns] = True
            for hole in item.holes:
                mask[fill_polygon(*((hole - low) / step - 0.5).T, out.shape)] = False
            out[mask] = item.label
        return out

    def pillow(self, box: Box) -> Labels:
        """Outline by outline; its edges belong to the outline, so it is no equal."""
        picture = Image.new("L", (CROP, CROP))
        draw = ImageDraw.Draw(picture)
        low, step = np.asarray(box.lower), box.shape[0] / CROP
        for item in self._meeting(box):
            outer = ((item.vertices - low) / step - 0.5)[:, ::-1].ravel().tolist()
            if not item.holes:
                draw.polygon(outer, fill=item.label)
                continue
            mask = Image.new("1", (CROP, CROP))
            cut = ImageDraw.Draw(mask)
            cut.polygon(outer, fill=1)
            for hole in item.holes:
                ring = ((hole - low) / step - 0.5)[:, ::-1].ravel().tolist()
                cut.polygon(ring, fill=0)
            picture.paste(item.label, mask=mask)
        return np.asarray(picture)


def milliseconds(run: Rasteriser, box: Box, repeats: int) -> float:
    """Least time of a few repetitions."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        run(box)
        best = min(best, time.process_time() - start)
        if best > SLOW_S:
            break
    return float(best * 1e3)


def compare(
    runs: dict[str, Rasteriser], factor: int, crops: int, repeats: int = 3
) -> dict[str, Any]:
    """Time all of ``runs`` on the same crops, in turn."""
    rng = np.random.default_rng(factor)
    boxes = []
    for _ in range(crops):
        low = rng.uniform(0, max(1.0, SLIDE - CROP * factor), 2)
        boxes.append(Box(tuple(low), tuple(low + CROP * factor)))
    row: dict[str, Any] = {"factor": factor, "crops": crops}
    wanted = None
    times: dict[str, list[float]] = {name: [] for name in runs}
    differing = dict.fromkeys(runs, 0)
    for box in boxes:
        for name, run in runs.items():
            found = run(box)
            wanted = found if name == "ours" else wanted
            differing[name] += int((found != wanted).sum())
            times[name].append(milliseconds(run, box, repeats))
    for name, spent in times.items():
        row[name] = {
            "mean_ms": round(float(np.mean(spent)), 3),
            "worst_ms": round(max(spent), 3),
            "differs": round(differing[name] / (crops * CROP**2), 6),
        }
    return row


def measure(crops: int) -> dict[str, Any]:
    """Run everything once."""
    polygons = many_outlines()
    annotations, peers = Annotations(tuple(polygons)), Peers(polygons)
    shape = (CROP, CROP)
    runs: dict[str, Rasteriser] = {
        "ours": lambda box: annotations.rasterise(box, shape),
        "skimage": peers.skimage,
        "pillow": peers.pillow,
    }
    shares: dict[str, Rasteriser] = {
        "ours": lambda box: annotations.fractions(box, shape, CLASSES)[1:].argmax(0),
    }
    start = time.process_time()
    million = Annotations((coast(),))
    million.rasterise(Box((0, 0), (1, 1)), (1, 1))
    opened = time.process_time() - start
    alone: dict[str, Rasteriser] = {"ours": lambda box: million.rasterise(box, shape)}
    fewer = max(1, crops // 5)
    few = {1: crops, 8: max(1, crops // 2), 32: max(1, crops // 10)}
    return {
        "outlines": [compare(runs, factor, n) for factor, n in few.items()],
        "fractions": [compare(shares, factor, fewer) for factor in few],
        "million_vertices": [compare(alone, factor, n) for factor, n in few.items()],
        "million_vertices_prepared_s": round(opened, 2),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "scikit-image": version("scikit-image"),
        "pillow": version("pillow"),
        "system": platform.platform(terse=True),
    }


def table(row: dict[str, Any]) -> str:
    """Return the figures as text: mean and worst ms a crop."""
    lines = []
    for part in ("outlines", "fractions", "million_vertices"):
        for line in row[part]:
            cells = [
                "{} {mean_ms:.2f} (worst {worst_ms:.2f}, differs {differs:.4%})".format(
                    name, **line[name]
                )
                for name in ("ours", "skimage", "pillow")
                if name in line
            ]
            head = f"{part:<16} factor {line['factor']:>2}, ms a crop:"
            lines.append(f"{head}  {'  '.join(cells)}")
    lines.append(
        f"a million vertices prepared in {row['million_vertices_prepared_s']} s"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, append, print a table, and return 1 if a criterion fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=20)
    options = parser.parse_args(arguments)
    row = measure(options.crops)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(table(row))
    means = {line["factor"]: line["ours"]["mean_ms"] for line in row["outlines"]}
    passed = all(means[factor] < limit for factor, limit in LIMITS_MS.items())
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
