from __future__ import annotations

import warnings

import dask.array as da
import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.data import tissue
from napari_muvit.core.data.crops import (
    SlideNormalisation,
    estimate_background,
    estimate_normalisation,
    read_crop,
)
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.geometry import Box, NestedCrop


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


NESTED = NestedCrop((Box((64, 64), (96, 96)), Box((0, 0), (256, 256))))
READS = ModelConfig(
    scale_factors=(1, 8), crop_size=32, background_value=(0.25,), num_classes=2
)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf, 1e300, -3.4e38])
def test_pixels_that_are_no_numbers_are_read_as_background(broken: float) -> None:
    rng = np.random.default_rng(0)
    clean = rng.random((256, 256))
    spoiled = rng.random(clean.shape) < 0.01
    slide = open_pyramid(np.where(spoiled, broken, clean))
    numbers = estimate_normalisation(slide, "percentile")
    assert 0 <= numbers.low[0] < 0.1
    assert 0.9 < numbers.high[0] <= 1
    got = read_crop(slide, NESTED, READS, numbers)
    whole = read_crop(open_pyramid(clean), NESTED, READS, numbers)
    there = spoiled[64:96, 64:96]
    np.testing.assert_array_equal(got[0, 0][there], np.float32(0.25))
    np.testing.assert_array_equal(got[0, 0][~there], whole[0, 0][~there])
    # A coarse pixel is the mean of those that are known: half of them had been lost.
    blocks = np.where(spoiled, np.nan, clean).reshape(32, 8, 32, 8)
    means = numbers.apply(np.nanmean(blocks, axis=(1, 3))[None].astype(np.float32))
    np.testing.assert_allclose(got[1], means, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [1.25, 1.5, 3.0, 8.0])
def test_a_coarse_pixel_without_a_known_one_is_none(factor: float) -> None:
    pixels = np.ones((96, 96), np.float32)
    pixels[:, 48:] = np.nan
    slide = open_pyramid(pixels)
    count = int(96 / factor)
    box = Box((0, 0), (count * factor,) * 2)
    got = slide.read(box, factor, (count, count))[0]
    centres = (np.arange(count) + 0.5) * factor
    left, right = centres + factor / 2 < 48, centres - factor / 2 > 48
    np.testing.assert_allclose(got[:, left], 1, rtol=1e-6)
    assert np.isnan(got[:, right]).all()


def test_a_mark_of_missing_data_does_not_reach_the_network() -> None:
    # One of float32's own size would have become infinite in it.
    pixels = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    pixels[5, 5] = -1e30
    config = ModelConfig(scale_factors=(1,), crop_size=64, background_value=(0.5,))
    crop = NestedCrop((Box((0, 0), (64, 64)),))
    slide = open_pyramid(pixels)
    got = read_crop(slide, crop, config, estimate_normalisation(slide, "percentile"))
    assert got[0, 0, 5, 5] == 0.5
    assert np.abs(got).max() < 2


def test_a_slide_of_one_value_has_finite_pixels() -> None:
    for value in (0, 7, 255):
        slide = open_pyramid(np.full((64, 64), value, np.uint8))
        numbers = estimate_normalisation(slide, "percentile")
        config = ModelConfig(scale_factors=(1,), crop_size=64)
        got = read_crop(slide, NestedCrop((Box((0, 0), (64, 64)),)), config, numbers)
        np.testing.assert_array_equal(got, 0)
