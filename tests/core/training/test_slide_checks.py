from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.data.annotations import Annotations, Rectangle
from napari_muvit.core.data.crops import SlideNormalisation
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.pyramid import Pyramid
from napari_muvit.core.data.sampling import PlainSlide, TrainingSlide
from napari_muvit.core.data.tissue import find_tissue
from napari_muvit.core.errors import Cancelled, ConfigError, PyramidError
from napari_muvit.core.training.prepare import prepare_unlabelled
from napari_muvit.core.training.slide_checks import kind_notes, pixel_notes

CONFIG = ModelConfig(scale_factors=(1,), crop_size=32, num_classes=2)
RGB = dataclasses.replace(CONFIG, in_channels=3)
NUMBERS = SlideNormalisation((0.0,), (255.0,))


def plain(pixels: np.ndarray, name: str = "slide", tissue: bool = False) -> PlainSlide:
    view = open_pyramid(pixels, name=name)
    return PlainSlide(view, NUMBERS, find_tissue(view) if tissue else None)


def annotated(pixels: np.ndarray, *areas: Rectangle) -> TrainingSlide:
    view = open_pyramid(pixels, name="slide")
    marks = Annotations(areas)
    return TrainingSlide(view, marks, NUMBERS, marks.index(view.extent, 2, 0))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("value", [0, 255])
def test_a_slide_of_one_value_is_refused(value: int) -> None:
    flat = np.full((200, 200), value, np.uint8)
    with pytest.raises(PyramidError, match=f"slide has the same value.*{value}"):
        pixel_notes([plain(flat)], CONFIG)
    with pytest.raises(PyramidError, match="Each of the 2 slides has the same value"):
        pixel_notes([plain(flat), plain(flat)], CONFIG)


def test_one_flat_slide_among_others_is_told() -> None:
    flat = np.zeros((200, 200), np.uint8)
    notes = pixel_notes([plain(noise(200, 200)), plain(flat, "black")], CONFIG)
    (note,) = notes
    assert note.startswith("black has the same value everywhere (0)")


def test_a_channel_that_differs_is_enough() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[5, 5, 2] = 1
    config = ModelConfig(scale_factors=(1,), crop_size=32, in_channels=3)
    assert pixel_notes([plain(pixels)], config) == ()
    pixels[:] = (10, 20, 30)
    with pytest.raises(PyramidError, match="10, 20, 30"):
        pixel_notes([plain(pixels)], config)


def test_a_large_slide_is_looked_at_where_it_is_annotated() -> None:
    pixels = np.zeros((1500, 1500), np.uint8)
    pixels[700:800, 700:800] = noise(100, 100)
    seen = annotated(pixels, Rectangle(1, (720, 720), (30, 30)),
                     Rectangle(2, (0, 0), (600, 600)))  # fmt: skip
    assert pixel_notes([seen], CONFIG) == ()
    # Not all of it was seen, so it is not refused.
    dark = annotated(pixels, Rectangle(1, (0, 0), (600, 600)))
    (note,) = pixel_notes([dark], CONFIG)
    assert "wherever it was looked at" in note


def test_tissue_is_looked_at() -> None:
    pixels = np.zeros((1500, 1500), np.uint8)
    pixels[700:1000, 700:1000] = 100 + noise(300, 300) // 2
    assert pixel_notes([plain(pixels, tissue=True)], CONFIG) == ()
    assert "wherever" in pixel_notes([plain(pixels)], CONFIG, seed=1)[0]


@pytest.mark.parametrize("size", [200, 1500])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_share_of_pixels_that_are_no_numbers(size: int, value: float) -> None:
    pixels = np.random.default_rng(1).random((size, size)).astype(np.float32)
    pixels[np.random.default_rng(2).random((size, size)) < 0.03] = value
    (note,) = pixel_notes([plain(pixels)], CONFIG)
    share = float(note.split("about ")[1].split(" %")[0])
    assert 2 < share < 4
    assert "read as background" in note


def test_one_broken_pixel_is_not_rounded_away() -> None:
    pixels = np.random.default_rng(1).random((500, 500)).astype(np.float32)
    pixels[0, 0] = np.nan
    assert "about 0.1 %" in pixel_notes([plain(pixels)], CONFIG)[0]


def test_slides_smaller_than_a_crop_and_viewed_at_another_size() -> None:
    assert pixel_notes([plain(noise(9, 20))], CONFIG) == ()
    view = open_pyramid(noise(1200, 1200), pixel_size=0.5).viewed_at(1.0)
    assert pixel_notes([PlainSlide(view, NUMBERS)], CONFIG) == ()
    finer = open_pyramid(noise(1200, 1200), pixel_size=2.0).viewed_at(0.5)
    assert pixel_notes([PlainSlide(finer, NUMBERS)], CONFIG) == ()


def test_it_can_be_stopped() -> None:
    with pytest.raises(Cancelled):
        pixel_notes([plain(noise(64, 64))], CONFIG, should_stop=lambda: True)


def three_channels(name: str, *, rgb: bool = False, dtype: type = np.uint8) -> Pyramid:
    pixels = noise(3, 64, 64).astype(dtype)
    image = open_pyramid(pixels, axes="cyx", name=name)
    return dataclasses.replace(image, rgb=rgb)


@pytest.mark.parametrize("first", [0, 1])
def test_colour_beside_fluorescence_is_told(first: int) -> None:
    """Both have three channels, and were mixed without a word."""
    images = [three_channels("stain", rgb=True), three_channels("glow")]
    _, _, notes = prepare_unlabelled([images[first], images[1 - first]], RGB)
    (note,) = [note for note in notes if "RGB" in note]
    assert note.startswith("stain is a colour image (RGB), glow has 3 channels")
    for same in images:
        _, _, notes = prepare_unlabelled([same, same], RGB)
        assert not [note for note in notes if "RGB" in note]


def test_wide_pixels_are_not_divided_by_255() -> None:
    images = [
        three_channels("stain", rgb=True),
        three_channels("glow", dtype=np.uint16),
    ]
    with pytest.raises(ConfigError, match="glow holds uint16"):
        prepare_unlabelled(images, RGB)
    # Percentiles fit any type.
    assert len(prepare_unlabelled(images[::-1], RGB)[0]) == 2


def test_channels_in_another_order_are_told() -> None:
    names = [("DAPI", "FITC", "Cy3"), ("FITC", "DAPI", "Cy3")]
    images = [
        dataclasses.replace(three_channels(f"s{k}"), channel_names=channels)
        for k, channels in enumerate(names)
    ]
    (note,) = kind_notes(images, RGB)
    assert "s0 has DAPI, FITC, Cy3" in note
    assert "s1 has FITC, DAPI, Cy3" in note
    assert kind_notes([images[0], images[0], three_channels("nameless")], RGB) == ()
