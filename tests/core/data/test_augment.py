from __future__ import annotations

import itertools

import numpy as np
import pytest

from napari_muvit.core.data.augment import (
    Augmentation,
    Turn,
    alike_axes,
    jitter_stains,
    jitter_told_boxes,
)
from napari_muvit.core.errors import ConfigError


def test_all_eight_views_come_equally_often():
    rng = np.random.default_rng(0)
    image = np.arange(4).reshape(2, 2)
    views = [str(Turn.draw(rng, 2).pixels(image).tolist()) for _ in range(4000)]
    names, counts = np.unique(views, return_counts=True)
    wanted = {
        str(turned.tolist())
        for k in range(4)
        for turned in (np.rot90(image, k), np.rot90(image.T, k))
    }
    assert set(names.tolist()) == wanted
    # Deviation of a count: 21.
    assert np.abs(counts - 500).max() < 90


def test_axes_of_other_pixel_size_keep_their_places():
    assert alike_axes((2.0, 0.5, 0.5), 3) == (0, 1, 1)
    assert alike_axes(None, 2) == (0, 0)
    rng = np.random.default_rng(0)
    orders = {Turn.draw(rng, 3, alike_axes(None, 3)).order for _ in range(50)}
    assert orders == {(0, 1, 2), (0, 2, 1)}
    orders = {Turn.draw(rng, 3).order for _ in range(200)}
    assert orders == set(itertools.permutations(range(3)))


def test_upright_tissue_is_mirrored_left_and_right_only():
    rng = np.random.default_rng(0)
    image = np.arange(6).reshape(2, 3)
    views = [Turn.mirror(rng, 2).pixels(image).tolist() for _ in range(400)]
    plain = views.count(image.tolist())
    assert plain + views.count(image[:, ::-1].tolist()) == 400
    # Deviation of the count: 10.
    assert abs(plain - 200) < 45
    assert {Turn.mirror(rng, 3).flips[:2] for _ in range(20)} == {(False, False)}


def rgb(seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.2, 1, (2, 3, 8, 8)).astype(np.float32)


def test_stains_change_and_glass_stays_white():
    pixels = rgb()
    pixels[:, :, 0] = 1
    out = jitter_stains(pixels, 0.3, np.random.default_rng(1))
    np.testing.assert_allclose(out[:, :, 0], 1, atol=1e-5)
    assert np.abs(out - pixels)[:, :, 1:].max() > 0.02
    assert out.min() >= 0
    assert out.max() <= 1
    same = jitter_stains(pixels, 0.0, np.random.default_rng(1))
    np.testing.assert_allclose(same, pixels, atol=1e-5)


def test_more_of_one_stain_is_that_stain():
    # A pixel of pure haematoxylin only gets darker or lighter along its own colour.
    stain = np.array([0.650, 0.704, 0.286])
    pixels = np.exp(-stain).astype(np.float32).reshape(1, 3, 1, 1)
    out = jitter_stains(pixels, 0.5, np.random.default_rng(3))
    ratio = np.log(out).ravel() / -stain
    assert np.ptp(ratio) < 1e-4
    assert 0.5 <= ratio[0] <= 1.5
    assert abs(ratio[0] - 1) > 0.01


def test_told_boxes_move_within_bounds_and_the_finest_stays():
    boxes = np.array([[[8.0, 8.0], [24.0, 24.0]], [[0.0, 0.0], [64.0, 64.0]]])
    rng = np.random.default_rng(0)
    seen = np.array([jitter_told_boxes(boxes, 0.1, 0.05, rng) for _ in range(500)])
    centres, edges = seen.mean(axis=2), seen[:, :, 1] - seen[:, :, 0]
    np.testing.assert_allclose(centres[:, 0], 16)
    assert 6.0 < np.abs(centres[:, 1] - 32).max() <= 6.4
    for level, edge in enumerate((16, 64)):
        assert 0.045 * edge < np.abs(edges[:, level] - edge).max() <= 0.05 * edge
        np.testing.assert_allclose(edges[:, level, 0], edges[:, level, 1])


@pytest.mark.parametrize("amount", [-0.1, 1.0, float("nan")])
def test_impossible_amounts_are_refused(amount):
    with pytest.raises(ConfigError, match="stain_jitter"):
        Augmentation(stain_jitter=amount)
