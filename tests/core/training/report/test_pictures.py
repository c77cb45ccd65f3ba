"""Pictures of crops, labels and boxes: what is where, and in which colour."""

from __future__ import annotations

import numpy as np
import pytest

from napari_muvit.core.data.crops import SlideNormalisation
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.pyramid import Pyramid
from napari_muvit.core.data.sampling import PlainSlide
from napari_muvit.core.geometry import Box
from napari_muvit.core.training.report.pictures import (
    LARGEST,
    Look,
    channels_text,
    enlarged,
    label_picture,
    level_color,
    plane_of,
    with_boxes,
)

YELLOW = (0xFF, 0xD9, 0x2F)


def slide(channels: int, rgb: bool = False) -> PlainSlide:
    pyramid = open_pyramid(np.zeros((channels, 16, 16), np.uint8))
    if rgb:
        pyramid = Pyramid(levels=pyramid.levels, rgb=True)
    return PlainSlide(
        pyramid, SlideNormalisation((0.0,) * channels, (255.0,) * channels)
    )


def test_rgb_slides_look_as_they_are() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8))
    pixels = (raw / 255).astype(np.float32)
    look = Look(pixels, slide(3, rgb=True))
    for level in range(2):
        assert (look(pixels[level], level) == np.moveaxis(raw[level], 0, -1)).all()


def test_grey_levels_are_stretched_each() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    pixels = np.stack([ramp, 0.4 + 0.3 * ramp])
    look = Look(pixels, slide(1))
    for level in range(2):
        shown = look(pixels[level], level)
        assert shown.min() == 0
        assert shown.max() == 255
        assert (shown[..., 0] == shown[..., 1]).all()


def test_noise_is_not_stretched_to_structure() -> None:
    rng = np.random.default_rng(0)
    noise = 0.001 * rng.random((1, 8, 8), dtype=np.float32)
    pixels = np.stack([noise, np.eye(8, dtype=np.float32)[None]])
    assert np.ptp(Look(pixels, slide(1))(noise, 0)) <= 2
    flat = np.full((1, 1, 8, 8), 0.5, np.float32)
    assert np.ptp(Look(flat, slide(1))(flat[0])) == 0


@pytest.mark.parametrize("channels", [2, 3, 4, 9])
def test_each_channel_has_a_colour(channels: int) -> None:
    pixels = np.zeros((1, channels, 8, 8), np.float32)
    for channel in range(channels):
        pixels[0, channel].flat[channel] = 1
    look = Look(pixels, slide(channels))
    shown = look(pixels[0]).reshape(-1, 3)[:channels]
    assert len({tuple(c) for c in shown[:6]}) == min(6, channels)
    assert (shown[6:] == 0).all()
    assert channels_text(slide(channels)).startswith("Colours: magenta channel 1, ")
    assert ("3 more" in channels_text(slide(channels))) == (channels == 9)


def test_pixels_that_are_no_numbers_are_black() -> None:
    pixels = np.random.default_rng(0).random((1, 3, 8, 8)).astype(np.float32)
    look = Look(pixels, slide(3, rgb=True))
    broken = pixels[0].copy()
    broken[:, 0, 0] = np.nan
    broken[:, 0, 1] = np.inf
    assert look(broken)[0, 0].tolist() == [0, 0, 0]
    assert look(broken)[0, 1].tolist() == [255, 255, 255]


def test_small_pictures_grow_and_large_ones_shrink() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 48, 3)).astype(np.uint8)
    grown = enlarged(picture)
    assert grown.shape == (256, 192, 3)
    assert (grown[::4, ::4] == picture).all()
    large = np.zeros((1024, 512, 3), np.uint8)
    large[512:] = 255
    assert enlarged(large).shape == (LARGEST, LARGEST // 2, 3)
    # Colours of classes are taken, not mixed.
    stripes = np.repeat(np.arange(700)[:, None, None] % 2, 700, axis=1) * 255
    taken = enlarged(np.repeat(stripes, 3, axis=2).astype(np.uint8), exact=True)
    assert set(np.unique(taken)) == {0, 255}


def test_a_box_is_drawn_where_it_lies() -> None:
    view, box = Box((100.0, 200.0), (356.0, 456.0)), Box((164.0, 200.0), (228.0, 264.0))
    drawn = with_boxes(np.full((256, 256, 3), 90, np.uint8), view, [box])
    yellow = (drawn == YELLOW).all(axis=-1)
    rows, columns = np.flatnonzero(yellow.any(axis=1)), np.flatnonzero(yellow.any(0))
    assert (rows[0], rows[-1]) == (64, 127)
    assert (columns[0], columns[-1]) == (0, 63)
    # An outline, nothing inside it.
    assert (drawn[75:115, 10:50] == 90).all()


def test_tiny_boxes_are_seen_and_nested_ones_have_their_colours() -> None:
    view = Box((0.0, 0.0), (2560.0, 2560.0))
    boxes = [Box((1000.0, 1000.0), (1008.0, 1008.0)), Box((900.0, 800.0), (1500, 1400))]
    drawn = with_boxes(np.zeros((256, 256, 3), np.uint8), view, boxes)
    for level in range(2):
        color = level_color(level)
        value = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (drawn == value).all(axis=-1).sum() > 10


def test_labels_have_their_colours_and_the_image_shines_through() -> None:
    labels = np.array([[0, 1], [2, 1]], np.uint8)
    beneath = np.zeros((2, 2, 3), np.uint8)
    colors = ("#ff0000", "#00ff00")
    shown = label_picture(labels, colors, beneath)
    assert shown[0, 1].tolist() == [255, 0, 0]
    assert shown[1, 0].tolist() == [0, 255, 0]
    # Black, faded to grey, and not white as where there is no image.
    assert 100 < shown[0, 0, 0] < 200
    assert label_picture(labels, colors)[0, 0].tolist() == [255, 255, 255]


def test_planes_of_volumes_lie_at_one_place() -> None:
    box = Box((10.0, 0.0, 0.0), (18.0, 4.0, 4.0))
    volume = np.arange(4)[:, None, None] * np.ones((2, 4, 4, 4), int)
    assert (plane_of(volume, box, [15.0]) == 2).all()
    assert plane_of(volume, box, [15.0]).shape == (2, 4, 4)
    # Places outside take the nearest plane.
    assert (plane_of(volume, box, [99.0]) == 3).all()
    flat = np.zeros((2, 4, 4))
    assert plane_of(flat, Box((0.0, 0.0), (4.0, 4.0)), []) is flat
