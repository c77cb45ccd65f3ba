"""What is wrong between model and slide, and what a slide suggests."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.pyramid import Pyramid
from napari_muvit.core.errors import ConfigError
from napari_muvit.widgets.describe import problems
from napari_muvit.widgets.model_fit import fit_problems
from napari_muvit.widgets.pixel_size import parse_pixel_size
from napari_muvit.widgets.scale_choice import parse_factors, reason

MODEL = ModelConfig(
    num_classes=2, pixel_size=0.5, crop_size=64, scale_factors=(1, 4),
    class_names=("stroma", "Gland"),
)  # fmt: skip


def slide(size: float | None = 0.5, dtype: type = np.uint8, edge: int = 600) -> Pyramid:
    return open_pyramid(np.zeros((edge, edge), dtype), pixel_size=size)


def test_a_model_that_fits_is_not_talked_about() -> None:
    assert fit_problems(MODEL, slide(), ["stroma", "gland"]) == []
    assert fit_problems(MODEL, slide(0.54)) == []
    assert problems(MODEL.to_dict(), slide()) == []


def test_channels() -> None:
    two = open_pyramid(np.zeros((2, 300, 300), np.uint8), axes="cyx", pixel_size=0.5)
    (words,) = fit_problems(MODEL, two)
    assert "reads 1 channel, but 2 are" in words
    rgb = open_pyramid(np.zeros((300, 300, 3), np.uint8), pixel_size=0.5)
    assert "colour image" in fit_problems(MODEL, rgb)[0]


@pytest.mark.parametrize(
    ("size", "said"),
    [(0.58, "read at the model's size."), (0.25, "Check that"), (1.0, "less detail"),
     (None, "unknown")],
)  # fmt: skip
def test_pixel_size(size: float | None, said: str) -> None:
    (words,) = fit_problems(MODEL, slide(size))
    assert said in words


def test_normalisation() -> None:
    bytes_ = dataclasses.replace(MODEL, normalisation="uint8")
    assert fit_problems(bytes_, slide()) == []
    assert "uint16" in fit_problems(bytes_, slide(dtype=np.uint16))[0]


def test_classes() -> None:
    (words,) = fit_problems(MODEL, slide(), ["stroma", "vessel"])
    assert "does not know vessel" in words
    assert "lacks Gland" in words


def test_levels_that_reach_beyond_are_counted_in_the_model_s_pixels() -> None:
    wide = {**MODEL.to_dict(), "scale_factors": (1, 8)}
    assert problems(wide, slide()) == []
    # 600 px of 0.2 um are 240 px of the model.
    assert "larger than the image (240 px)" in problems(wide, slide(0.2))[0]


@pytest.mark.parametrize(
    ("words", "size"),
    [("0.25", 0.25), ("0,25 um", 0.25), (" 250 nm ", 0.25), ("1e", None), ("", None),
     ("0", None), ("-1", None), ("1.2.3", None), ("99999", None), ("0.5 cm", None)],
)  # fmt: skip
def test_a_typed_pixel_size(words: str, size: float | None) -> None:
    got = parse_pixel_size(words)
    assert got == (None if size is None else pytest.approx(size))


def test_typed_scales() -> None:
    assert parse_factors("1, 8 and 32×") == (1, 8, 32)
    assert parse_factors("1 2.5") == (1, 2.5)
    for words in ("", "many", "8, 1", "0, 1", "1, 1"):
        with pytest.raises(ConfigError):
            parse_factors(words)


def test_the_reason_says_how_wide_it_is() -> None:
    assert "fits 2 times" in reason((1, 4), 64, slide())
    assert "(128 µm)" in reason((1, 4), 64, slide())
    assert "larger than the slide" in reason((1, 32), 64, slide())
    assert "nearly" in reason((1, 8), 64, slide(None))
