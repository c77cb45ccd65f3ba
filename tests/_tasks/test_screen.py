"""Pictures of the screen by a model in training: real models, minute ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_muvit._tasks import screen as module
from napari_muvit._tasks.screen import Screen, ScreenPicture
from napari_muvit.core import ModelConfig, build_model, open_pyramid
from napari_muvit.core.errors import Cancelled
from napari_muvit.core.geometry import Box


def never() -> bool:
    return False


@pytest.fixture
def network() -> Any:
    config = ModelConfig(
        scale_factors=(1, 4), crop_size=32, embed_dim=16, depth=1, num_heads=2,
        decoder="pyramid", attention="coarse_to_fine", pyramid_channels=(8, 8, 8, 16),
        num_classes=3, normalisation="uint8", background_value=(0.0,),
    )  # fmt: skip
    return build_model(config).eval()


@pytest.fixture
def shown() -> list[ScreenPicture]:
    return []


def screen(shown: list[ScreenPicture], box: Box | None, size: int = 300) -> Screen:
    pixels = np.random.default_rng(0).integers(0, 255, (size, size + 40), np.uint8)
    return Screen(open_pyramid(pixels), box, 1, shown.append)


@pytest.mark.parametrize(
    ("lower", "upper", "step"),
    [
        ((10.2, 20.7), (110.0, 140.1), 1),
        ((0, 0), (300, 340), 1),
        ((0, 0), (300, 340), 4),
    ],
)
def test_a_picture_covers_what_is_on_screen(
    shown: list[ScreenPicture], network: Any, lower: Any, upper: Any, step: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "LONGEST", 340 // step)
    monkeypatch.setattr(module, "FINE_SECONDS", 60.0)
    one = screen(shown, Box(lower, upper))
    assert one.due
    one.take(network, 7, never)
    (picture,) = shown
    y0, x0, y1, x1 = picture.box
    assert (y0, x0) == (int(lower[0]), int(lower[1]))
    assert y1 >= upper[0]
    assert x1 >= upper[1]
    assert picture.step == step
    assert picture.labels.shape == (-(-(y1 - y0) // step), -(-(x1 - x0) // step))
    assert picture.labels.min() > 0  # all of it was looked at
    assert picture.trained_steps == 7
    assert not one.due  # the next one after some training


def test_without_time_for_the_finest_level_coarse_ones_show_all(
    shown: list[ScreenPicture], network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FINE_SECONDS", -1.0)
    screen(shown, Box((0, 0), (300, 340))).take(network, 1, never)
    assert shown[0].labels.min() > 0


def test_fine_tiles_are_those_of_a_prediction(
    shown: list[ScreenPicture], network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_muvit.core import PredictionConfig, predict

    monkeypatch.setattr(module, "FINE_SECONDS", 60.0)
    one = screen(shown, Box((40, 50), (200, 260)))
    one.take(network, 1, never)
    wanted = np.zeros(one.image.shape, np.uint8)
    config = PredictionConfig(overlap=0.0, region=(40, 50, 200, 260), num_threads=1)
    for tile in predict(one.image, network, config):
        y0, x0, y1, x1 = tile.box
        wanted[y0:y1, x0:x1] = tile.labels
    np.testing.assert_array_equal(shown[0].labels, wanted[40:200, 50:260])


def test_another_place_and_a_stroke_are_looked_at_soon(
    shown: list[ScreenPicture], network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    one = screen(shown, Box((0, 0), (50, 50)))
    one._next = 1000.0
    one.look(Box((0, 0), (50, 50)))  # the same
    assert not one.due
    one.look(Box((60, 60), (90, 90)))
    now[0] += module.LEAST_AFTER_LOOK
    assert one.due
    one._next = 1000.0
    one.stroke()
    assert not one.due
    now[0] += module.AFTER_STROKE
    assert one.due
    one.look(None)
    assert not one.due


def test_a_stop_ends_a_picture(shown: list[ScreenPicture], network: Any) -> None:
    with pytest.raises(Cancelled):
        screen(shown, Box((0, 0), (300, 340))).take(network, 1, lambda: True)
    assert not shown


def test_a_model_that_cannot_look_is_left_alone(shown: list[ScreenPicture]) -> None:
    config = ModelConfig(
        in_channels=3, scale_factors=(1, 2), crop_size=32, embed_dim=16, depth=1,
        num_heads=2, decoder="pyramid", pyramid_channels=(8, 8, 8, 16),
    )  # fmt: skip
    one = screen(shown, Box((0, 0), (50, 50)))
    one.take(build_model(config), 1, never)  # of a slide with one channel
    assert not shown
    assert not one.due
