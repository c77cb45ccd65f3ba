from __future__ import annotations

import warnings

import dask.array as da
import numpy as np

from napari_muvit.core.data import tissue
from napari_muvit.core.data.crops import (
    SlideNormalisation,
    estimate_background,
    estimate_normalisation,
)
from napari_muvit.core.data.open import open_pyramid


def test_the_background_of_a_slide_with_a_border_of_nan() -> None:
    # numpy warned of an all-NaN slice on the user's terminal.
    pixels = np.full((40, 40), np.nan, dtype=np.float32)
    pixels[10:30, 10:30] = np.arange(400).reshape(20, 20)
    slide = open_pyramid(pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers = estimate_normalisation(slide, "percentile")
        assert estimate_background(slide, numbers) == (0.0,)


def test_the_background_of_a_flat_slide_without_reading_all_of_it(monkeypatch) -> None:
    monkeypatch.setattr(tissue, "CHEAP_PIXELS", 2**20)
    pixels = da.full((20000, 16000), 50, dtype=np.uint8, chunks=1000)
    pixels = da.pad(pixels, 3000, constant_values=200)
    seen: list[int] = []

    def count(block: np.ndarray) -> np.ndarray:
        seen.append(block.size)
        return block

    slide = open_pyramid(pixels.map_blocks(count, dtype=np.uint8, meta=np.empty(0)))
    background = estimate_background(slide, SlideNormalisation((0.0,), (255.0,)))
    assert background == (round(200 / 255, 4),)
    assert sum(seen) < 0.4 * pixels.size


def test_the_numbers_of_a_stack_are_of_many_places() -> None:
    # One piece of 256 x 256 x 256 was one place: signal or background, by chance.
    stack = np.zeros((40, 400, 400), dtype=np.uint16)
    stack[:, :200] = np.arange(200 * 400).reshape(200, 400) % 900
    slide = open_pyramid(stack, ndim=3)
    for seed in range(3):
        numbers = estimate_normalisation(slide, "percentile", seed)
        assert numbers.low == (0.0,)
        assert 850 < numbers.high[0] < 900


def test_large_numbers_of_a_narrow_range_stay_numbers() -> None:
    pixels = np.full((40, 40), 2**31, dtype=np.uint32)
    pixels[::2] += 100
    numbers = estimate_normalisation(open_pyramid(pixels), "percentile")
    values = numbers.apply(pixels[None].astype(np.float32))
    assert np.isfinite(values).all()
    assert np.isfinite(numbers.revert(values)).all()
