"""Which validation samples are shown in a report."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...data.datasets import SegmentationDataset
from ...data.sampling import DrawnCrop
from .allowance import Allowance

POOL = 64
"""Samples that the examples are chosen from."""
ENOUGH = 0.05
"""Share of a crop from which on a class counts as shown."""


def choose_samples(
    dataset: SegmentationDataset, count: int, stop: Allowance | None = None
) -> list[int]:
    """Choose samples that together show every class on as many slides as there are.

    Parameters
    ----------
    dataset
        Its first `POOL` samples are looked at, labels only.
    count
        How many, at most; fewer where there are not so many different places.
    stop
        Checked at each of them.

    Returns
    -------
    list of int
        Indices of samples; the same ones whenever it is called.
    """
    if dataset.sampler.empty:
        return []
    drawn, shares = [], []
    for sample in range(POOL):
        if stop is not None:
            stop.check()
        drawn.append(dataset.sampler.draw(sample))
        labels = dataset.labels(drawn[-1].slide, drawn[-1].crop.boxes[0])
        counts = np.bincount(labels.ravel(), minlength=dataset.config.num_classes + 1)
        shares.append(counts[1:] / labels.size)
    shown = np.minimum(np.array(shares) / ENOUGH, 1.0)
    if dataset.config.background is not None:
        # It is in nearly every crop anyway.
        shown[:, dataset.config.background - 1] *= 0.25
    return _spread(drawn, shown, np.array(shares).sum(axis=1), count)


def _spread(
    drawn: Sequence[DrawnCrop],
    shown: NDArray[np.float64],
    annotated: NDArray[np.float64],
    count: int,
) -> list[int]:
    """Take, one after the other, what shows most of what was not shown yet."""
    chosen: list[int] = []
    times = np.zeros(shown.shape[1])
    slides: dict[int, int] = {}
    left = np.ones(len(drawn), dtype=bool)
    while left.any() and len(chosen) < count:
        new = (shown / (1.0 + times) ** 2).sum(axis=1) + 0.3 * annotated
        again = np.array([slides.get(d.slide, 0) for d in drawn])
        best = int(np.where(left, new / (1.0 + again), -1.0).argmax())
        chosen.append(best)
        times += shown[best]
        slides[drawn[best].slide] = slides.get(drawn[best].slide, 0) + 1
        left &= [not _same_place(other, drawn[best]) for other in drawn]
    return chosen


def _same_place(first: DrawnCrop, second: DrawnCrop) -> bool:
    """Whether the finest crops have a quarter in common."""
    a, b = first.crop.boxes[0], second.crop.boxes[0]
    common = a.intersection(b) if first.slide == second.slide else None
    return common is not None and math.prod(common.shape) > 0.25 * math.prod(a.shape)
