"""Tissue found from a coarse look, whatever the stain and the background."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.tissue import LONGEST, cheap_to_look_at, find_tissue
from napari_muvit.core.geometry import Box

DATA = Path(__file__).parents[4] / "shared" / "data"
SHAPE = (600, 500)


def disc(shape=SHAPE, radius=180):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(y - shape[0] / 2, x - shape[1] / 2) < radius


def noisy(values, noise, seed=0):
    rng = np.random.default_rng(seed)
    out = values + rng.normal(0, noise, values.shape)
    return out.clip(0, 255).astype(np.uint8)


def stained(tissue, colour=(200, 120, 170), glass=(240, 238, 242)):
    picture = np.where(tissue[..., None], colour, glass).astype(float)
    return noisy(picture, 5)


def agreement(found, tissue):
    """Share of the pixels of tissue found, and of background taken for tissue."""
    assert found.mask.shape == tissue.shape
    return found.mask[tissue].mean(), found.mask[~tissue].mean()


@pytest.mark.parametrize(
    "colour",
    [(200, 120, 170), (225, 205, 220), (120, 70, 140)],
    ids=["usual", "pale", "dark"],
)
def test_stained_on_glass(colour):
    found = find_tissue(open_pyramid(stained(disc(), colour)))
    hit, wrong = agreement(found, disc())
    assert found.background == "bright"
    assert hit > 0.99
    assert wrong < 0.06


@pytest.mark.parametrize("white", [4095, 65535, 1.0])
def test_stained_in_another_range(white):
    picture = stained(disc()) / 255 * white
    found = find_tissue(open_pyramid(picture.astype("f4" if white == 1 else "u2")))
    hit, wrong = agreement(found, disc())
    assert found.background == "bright"
    assert hit > 0.99
    assert wrong < 0.06


@pytest.mark.parametrize("level", [3, 20, 120])
def test_fluorescence_faint_or_bright(level):
    picture = noisy(np.where(disc(), 10 + level, 10).astype(float), 2)
    found = find_tissue(open_pyramid(picture))
    hit, wrong = agreement(found, disc())
    assert found.background == "dark"
    assert hit > 0.98
    assert wrong < 0.12


def test_sparse_bright_cells():
    # A threshold between two peaks found the cells alone.
    rng = np.random.default_rng(0)
    picture = np.zeros(SHAPE, np.uint8)
    picture[disc() & (rng.random(SHAPE) < 0.02)] = 255
    hit, wrong = agreement(find_tissue(open_pyramid(picture)), disc())
    assert hit > 0.95
    assert wrong < 0.12


def test_dark_tissue_in_one_channel():
    picture = noisy(np.where(disc(), 90, 200).astype(float), 3)
    found = find_tissue(open_pyramid(picture))
    hit, wrong = agreement(found, disc())
    assert found.background == "bright"
    assert hit > 0.98
    assert wrong < 0.12


def test_coloured_fluorescence_has_a_dark_background():
    picture = np.zeros((*SHAPE, 3), np.uint8)
    picture[disc(), 1] = 90
    found = find_tissue(open_pyramid(noisy(picture.astype(float) + 8, 2)))
    assert found.background == "dark"
    assert agreement(found, disc())[0] > 0.98


def test_without_background_all_is_tissue():
    whole = np.ones(SHAPE, dtype=bool)
    for picture in (stained(whole), np.full(SHAPE, 7, np.uint8)):
        found = find_tissue(open_pyramid(picture))
        assert found.mask.all()
        assert found.background == "none"


def test_glass_alone_is_no_tissue():
    found = find_tissue(open_pyramid(stained(np.zeros(SHAPE, dtype=bool))))
    assert found.share < 0.01


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (3, 2), (40, 7)])
@pytest.mark.parametrize("rgb", [True, False])
def test_tiny_slides(shape, rgb):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (*shape, 3) if rgb else shape, dtype=np.uint8)
    axes = "yxc" if rgb else "yx"
    found = find_tissue(open_pyramid(picture, axes=axes))
    assert found.mask.shape == shape


def test_pixels_that_are_no_numbers():
    picture = np.where(disc(), 100.0, 10.0)
    picture[:50] = np.nan
    picture[50:60] = np.inf
    found = find_tissue(open_pyramid(picture))
    assert found.mask[300, 250]


def test_places_in_world_coordinates():
    tissue = np.zeros((2000, 3000), dtype=bool)
    tissue[400:1200, 1000:2500] = True
    pyramid = open_pyramid(stained(tissue))
    found = find_tissue(pyramid)
    assert max(found.mask.shape) == LONGEST
    points = np.array([[800.0, 1500.0], [100.0, 100.0], [-5.0, 900.0], [1e6, 1e6]])
    assert found.at(points).tolist() == [True, False, False, False]
    drawn = found.draw(500, np.random.default_rng(0))
    assert found.at(drawn).all()
    inside = (drawn > [390, 990]) & (drawn < [1210, 2510])
    assert inside.all(axis=1).mean() > 0.99
    assert abs(drawn.mean(axis=0) - [800, 1750]).max() < 60
    assert found.touches(Box((700, 900), (900, 1100)))
    assert not found.touches(Box((0, 0), (300, 900)))
    assert not found.touches(Box((-900, 0), (-300, 900)))
    assert cheap_to_look_at(pyramid)


def test_no_tissue_nothing_to_draw():
    found = find_tissue(open_pyramid(stained(np.zeros(SHAPE, dtype=bool))))
    empty = type(found)(np.zeros_like(found.mask), found.extent, "bright")
    with pytest.raises(ValueError, match="no tissue"):
        empty.draw(1, np.random.default_rng(0))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs real files")
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("glomeruli_pas/10003", 0.93, 0.02),
        ("glomeruli_pas/10169", 0.95, 0.02),
        ("glomeruli_pas/stitched_2048", 0.95, 0.02),
        ("brain_sections/s0237", 0.97, 0.08),
    ],
)
def test_real_tissue(name, least, most):
    found = find_tissue(open_pyramid(DATA / f"{name}_image.tif"))
    labels = tifffile.imread(DATA / f"{name}_labels.tif")
    points = np.argwhere(labels > 0) + 0.5
    hits, truth = found.at(points), labels[labels > 0] > 1
    assert hits[truth].mean() > least
    assert hits[~truth].mean() < most


@pytest.mark.parametrize("mark", [-3.4e38, -1e30, 1e300])
def test_marks_of_missing_data_do_not_hide_the_tissue(mark: float) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(10, 1, (400, 400))
    pixels[100:300, 150:250] += 50
    clean = find_tissue(open_pyramid(pixels.copy()))
    pixels[5, 7] = mark
    found = find_tissue(open_pyramid(pixels))
    assert (found.mask == clean.mask).mean() > 0.99
