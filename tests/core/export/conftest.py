"""Objects of small label images, cut into blocks of any size."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from napari_muvit.core.export import runs as runs_module
from napari_muvit.core.export.pieces import CornerFile
from napari_muvit.core.export.rings import Objects, find_objects
from napari_muvit.core.export.runs import BlockGrid, read_bands
from napari_muvit.core.export.tracer import Tracer


@pytest.fixture(scope="session")
def follow() -> Callable[..., Any]:
    """A context in which the objects of a label image can be read."""

    @contextmanager
    def opened(
        labels: np.ndarray,
        block: tuple[int, int] | None = None,
        part_runs: int = 2**18,
        least: int = 1,
        most: int = 0,
    ):
        kept = runs_module.PART_RUNS
        runs_module.PART_RUNS = part_runs
        grid = BlockGrid(labels.shape, *(block or labels.shape))

        def read(lower: tuple[int, int], upper: tuple[int, int]) -> np.ndarray:
            return labels[lower[0] : upper[0], lower[1] : upper[1]]

        def see(runs, _block, _top, _left):
            return runs if most else runs.select(runs.value > 0)

        try:
            with (
                tempfile.TemporaryDirectory() as folder,
                CornerFile(Path(folder) / "corners") as corners,
            ):
                tracer = Tracer(labels.shape[1], corners, least, enclosing=most > 0)
                for _, bottom, runs in read_bands(grid, read, see):
                    tracer.add(bottom, runs)
                tracer.finish(labels.shape[0])
                objects = find_objects(tracer, least, most)
                yield objects
                del objects
        finally:
            runs_module.PART_RUNS = kept

    return opened


@pytest.fixture(scope="session")
def plain() -> Callable[[Objects], list[Any]]:
    """All that is known of objects, as plain values."""

    def listed(objects: Objects) -> list[Any]:
        return [
            (
                int(objects.value[k]),
                int(objects.area[k]),
                objects.centroid[k].tolist(),
                objects.box[k].tolist(),
                [np.concatenate(list(objects.ring(p))).tolist()
                 for p in objects.rings(k)],
            )
            for k in range(len(objects))
        ]  # fmt: skip

    return listed


@pytest.fixture(scope="session")
def reference() -> Callable[..., list[tuple[int, np.ndarray]]]:
    """The same objects, as masks, by labelling the whole image."""

    def masks(
        labels: np.ndarray, least: int = 1, most: int = 0
    ) -> list[tuple[int, np.ndarray]]:
        found = []
        for value in np.unique(labels[labels > 0]).tolist():
            parts, count = ndimage.label(labels == value)
            found += [(value, parts == k) for k in range(1, count + 1)]
        found = [(v, m) for v, m in found if m.sum() >= least]
        filled = []
        for _, mask in found:
            outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
            sizes = np.bincount(outside.ravel())
            small = np.flatnonzero(sizes <= most)
            small = small[(small > 0) & (small != outside[0, 0])]
            filled.append(np.isin(outside, small)[1:-1, 1:-1])
        left = [
            (value, mask | holes)
            for number, ((value, mask), holes) in enumerate(
                zip(found, filled, strict=True)
            )
            if not any((other & mask).any()
                       for k, other in enumerate(filled) if k != number)
        ]  # fmt: skip
        return sorted(left, key=lambda item: int(item[1].ravel().argmax()))

    return masks
