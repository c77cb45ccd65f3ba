"""Places without labels: uniform, in tissue, by weight, the same for any worker."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.data.augment import Augmentation
from napari_muvit.core.data.crops import SlideNormalisation, estimate_normalisation
from napari_muvit.core.data.datasets import MAEDataset
from napari_muvit.core.data.loading import make_loader
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.sampling import PlainSlide, UniformSampler
from napari_muvit.core.data.tissue import TissueMask
from napari_muvit.core.data.zarr_writer import write_pyramid
from napari_muvit.core.errors import ConfigError, PyramidError
from napari_muvit.core.geometry import Box

CONFIG = ModelConfig(
    scale_factors=(1, 4), crop_size=16, patch_size=8, embed_dim=32, depth=1,
    num_heads=2, background_value=(0.0,),
)  # fmt: skip


def slide(image, tissue=None):
    pyramid = open_pyramid(image)
    return PlainSlide(pyramid, SlideNormalisation((0.0,), (1.0,)), tissue)


def corners(sampler, count=2000):
    return np.array([sampler.draw(i).crop.boxes[0].lower for i in range(count)])


def test_every_place_has_the_same_chance():
    sampler = UniformSampler([slide(np.zeros((80, 112), np.uint8))], CONFIG, seed=0)
    drawn = corners(sampler, 6400)
    assert drawn.min(axis=0).tolist() == [0, 0]
    assert drawn.max(axis=0).tolist() == [64, 96]
    counts, _, _ = np.histogram2d(*drawn.T, bins=(4, 4), range=((0, 64.1), (0, 96.1)))
    # 400 are expected; the deviation of a count is 19.
    assert np.abs(counts - 400).max() < 80


def test_coarse_crops_are_not_forced_to_be_centred():
    sampler = UniformSampler([slide(np.zeros((400, 400), np.uint8))], CONFIG, seed=0)
    crops = [sampler.draw(i).crop.as_array() for i in range(800)]
    inside = [c for c in crops if c[0, 0].min() > 64 and c[0, 1].max() < 336]
    offset = np.array([c[0, 0] - c[1, 0] for c in inside])
    assert offset.min() >= 0
    assert offset.max() <= 48
    # Uniform over [0, 48] in steps of the coarse pixel.
    assert offset.mean() == pytest.approx(24, abs=2)
    assert offset.std() == pytest.approx(48 / 12**0.5, abs=2)


def test_tissue_only():
    mask = np.zeros((10, 10), bool)
    mask[2:4, 6:9] = True
    tissue = TissueMask(mask, Box.from_shape((200, 200)), "bright")
    sampler = UniformSampler(
        [slide(np.zeros((200, 200), np.uint8), tissue)], CONFIG, seed=0
    )
    for i in range(300):
        assert tissue.touches(sampler.draw(i).crop.boxes[0])
    empty = TissueMask(np.zeros((4, 4), bool), Box.from_shape((200, 200)), "bright")
    anywhere = UniformSampler(
        [slide(np.zeros((200, 200), np.uint8), empty)], CONFIG, seed=0
    )
    assert np.ptp(corners(anywhere, 200), axis=0).min() > 150


def test_slides_come_by_their_weights():
    slides = [slide(np.zeros((64, 64), np.uint8)) for _ in range(3)]
    sampler = UniformSampler(slides, CONFIG, seed=0, weights=[1, 0, 3])
    chosen = np.bincount([sampler.draw(i).slide for i in range(2000)], minlength=3)
    assert chosen[1] == 0
    assert chosen[2] / 2000 == pytest.approx(0.75, abs=0.04)
    for wrong in ([1, 2], [0, 0, 0], [1, -1, 1], [1, float("nan"), 1]):
        with pytest.raises(ConfigError, match="weights"):
            UniformSampler(slides, CONFIG, seed=0, weights=wrong)


def test_a_slide_smaller_than_the_crop_is_padded():
    data = MAEDataset(
        UniformSampler([slide(np.ones((9, 70), np.float32))], CONFIG, seed=0), CONFIG
    )
    pixels = data[0].pixels
    assert pixels.shape == (2, 1, 16, 16)
    assert pixels[0].sum() == 9 * 16


def test_three_axes():
    import dataclasses

    config = dataclasses.replace(CONFIG, ndim=3, scale_factors=(1, 2))
    image = np.random.default_rng(0).random((40, 50, 60)).astype(np.float32)
    pyramid = open_pyramid(image, axes="zyx", ndim=3)
    item = PlainSlide(pyramid, SlideNormalisation((0.0,), (1.0,)))
    sampler = UniformSampler([item], config, seed=0)
    data = MAEDataset(sampler, config)
    for i in range(5):
        fine, coarse = (b.as_array().astype(int) for b in sampler.draw(i).crop.boxes)
        got = data[i].pixels.numpy()[:, 0]
        want = image[tuple(map(slice, *fine))]
        np.testing.assert_allclose(got[0], want)
        want = image[tuple(map(slice, *coarse))].reshape(16, 2, 16, 2, 16, 2)
        np.testing.assert_allclose(got[1], want.mean((1, 3, 5)), atol=1e-5)


@pytest.fixture
def stored(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (3, 300, 260), dtype=np.uint8)
    write_pyramid(tmp_path / "a.zarr", image)
    return tmp_path / "a.zarr"


def test_samples_do_not_depend_on_the_number_of_workers(stored):
    import dataclasses

    config = dataclasses.replace(CONFIG, in_channels=3, background_value=(0.0,) * 3)
    pyramid = open_pyramid(stored)
    item = PlainSlide(pyramid, estimate_normalisation(pyramid, "percentile"))
    sampler = UniformSampler([item], config, seed=3)
    change = Augmentation(flips=True, intensity_jitter=0.2, box_shift=0.1)
    data = MAEDataset(sampler, config, change)
    order = [[4, 0], [1, 2], [3, 5], [6, 7]]
    # The parent has read before: nothing that it opened may be used by a worker.
    alone = list(make_loader(data, batch_sampler=order))
    beside = list(make_loader(data, batch_sampler=order, num_workers=2))
    for a, b in zip(alone, beside, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.bboxes, b.bboxes)


def test_an_error_in_a_worker_is_one_line(stored):
    import dataclasses

    config = dataclasses.replace(CONFIG, in_channels=3, background_value=(0.0,) * 3)
    item = PlainSlide(
        open_pyramid(stored), SlideNormalisation((0.0,) * 3, (255.0,) * 3)
    )
    data = MAEDataset(UniformSampler([item], config, seed=0), config)
    shutil.rmtree(stored)
    with pytest.raises(PyramidError) as caught:
        next(iter(make_loader(data, batch_sampler=[[0, 1]], num_workers=1)))
    assert "\n" not in str(caught.value)


def test_stain_jitter_needs_rgb(stored):
    import dataclasses

    pyramid = open_pyramid(stored)
    config = dataclasses.replace(CONFIG, in_channels=3, background_value=(0.0,) * 3)
    plain, stained = (
        MAEDataset(
            UniformSampler(
                [PlainSlide(p, SlideNormalisation((0.0,) * 3, (255.0,) * 3))],
                config, seed=0,
            ),
            config, Augmentation(stain_jitter=0.3),
        )[0].pixels
        for p in (pyramid, dataclasses.replace(pyramid, rgb=True))
    )  # fmt: skip
    assert not torch.equal(plain, stained)


@pytest.mark.parametrize("white", [255, 4095, 65535, 1.0], ids=str)
def test_stain_jitter_of_any_pixel_type(white):
    import dataclasses

    rng = np.random.default_rng(0)
    dtype = {255: "u1", 1.0: "f4"}.get(white, "u2")
    image = (rng.uniform(0.2, 1, (200, 200, 3)) * white).astype(dtype)
    pyramid = open_pyramid(image)
    config = dataclasses.replace(CONFIG, in_channels=3, background_value=(1.0,) * 3)
    item = PlainSlide(pyramid, estimate_normalisation(pyramid, "auto"))
    sampler = UniformSampler([item], config, seed=0)
    plain, jittered = (
        MAEDataset(sampler, config, Augmentation(stain_jitter=amount))[0].pixels
        for amount in (0.0, 0.1)
    )
    assert 0.01 < (plain - jittered).abs().max() < 0.5
    assert np.corrcoef(plain.flatten(), jittered.flatten())[0, 1] > 0.99
