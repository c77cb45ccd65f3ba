from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from napari_muvit.core.geometry import Box
from napari_muvit.core.training.hard_places import REMEMBERED, HardPlaces


def slide(zoom: float = 1.0) -> Any:
    return SimpleNamespace(zoom=(zoom, zoom))


def box(y: float, x: float) -> Box:
    return Box((y, x), (y + 10, x + 10))


def test_the_worst_come_first_and_none_upon_another() -> None:
    places = HardPlaces()
    for y, x, wrong in ((0, 0, 0.2), (5, 5, 0.9), (50, 50, 0.5), (80, 0, 0.001)):
        places.add(0, slide(), box(y, x), wrong)
    places.add(1, slide(), box(5, 5), 0.7)
    worst = places.worst(8)
    assert [(p.slide, p.wrong) for p in worst] == [(0, 0.9), (1, 0.7), (0, 0.5)]
    assert worst[0].box == box(5, 5)
    assert len(places.worst(1)) == 1


def test_a_place_that_was_learned_meanwhile_is_no_longer_hard() -> None:
    places = HardPlaces()
    places.add(0, slide(), box(0, 0), 0.9)
    places.add(0, slide(), box(2, 2), 0.0)
    assert places.worst(8) == []


def test_boxes_are_in_pixels_of_the_slide() -> None:
    # A model of 1 um per px sees a slide of 0.5 um per px at half its size.
    places = HardPlaces()
    places.add(0, slide(0.5), box(10, 20), 0.5)
    assert places.worst(1)[0].box == Box((20, 40), (40, 60))


def test_only_the_last_crops_are_remembered() -> None:
    places = HardPlaces()
    places.add(0, slide(), box(90, 90), 1.0)
    for _ in range(REMEMBERED):
        places.add(0, slide(), box(0, 0), 0.1)
    assert [p.wrong for p in places.worst(8)] == [0.1]
