"""The boxes around the cursor: where they lie, and that they leave no trace."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Shapes

from napari_muvit.core.data.open import open_pyramid
from napari_muvit.widgets import MuViTPanel
from napari_muvit.widgets.view_boxes import VIEW, Sight


def sight(size: float | None = 0.5, own: float | None = None) -> Sight:
    pyramid = open_pyramid(np.zeros((600, 900), np.uint8), pixel_size=size)
    return Sight.of(pyramid, (1, 4), 64, own)


def views(viewer: ViewerModel) -> list[Shapes]:
    """Layers of boxes that are seen."""
    return [x for x in every(viewer) if x.visible]


def every(viewer: ViewerModel) -> list[Any]:
    return [x for x in viewer.layers if x.metadata.get("muvit") == VIEW]


def places(layer: Shapes) -> list[np.ndarray]:
    """Corners of the boxes in the viewer's world."""
    return [np.array([layer.data_to_world(p) for p in box]) for box in layer.data]


def close(found: Any, wanted: tuple[float, float]) -> bool:
    return bool(np.abs(np.subtract(found, wanted)).max() < 2.5)


def move(viewer: ViewerModel, *world: float) -> None:
    for callback in list(viewer.mouse_move_callbacks):
        callback(viewer, types.SimpleNamespace(position=world))


@given(st.floats(-200, 800), st.floats(-200, 1100))
def test_boxes_are_nested_inside_the_slide_around_the_cursor(
    y: float, x: float
) -> None:
    fine, coarse = sight().boxes(np.array([y, x]))
    for box, edge in ((fine, 64), (coarse, 256)):
        np.testing.assert_allclose(box[1] - box[0], edge)
        assert (box[0] >= 0).all()
        assert (box[1] <= (600, 900)).all()
    assert (coarse[0] <= fine[0]).all()
    assert (fine[1] <= coarse[1]).all()
    inside = np.clip([y, x], 0, (600, 900))
    assert (fine[0] - 1 <= inside).all()
    assert (inside <= fine[1] + 1).all()


def test_sizes_are_those_of_the_model() -> None:
    assert sight().labels() == ["1× 32 µm", "4× 128 µm"]
    assert sight(None).labels() == ["1× 64 px", "4× 256 px"]
    # A model of 1 um sees twice as far on a slide of 0.5 um.
    seen = sight(0.5, 1.0)
    assert seen.labels() == ["1× 64 µm", "4× 256 µm"]
    fine = seen.boxes(np.array([300.0, 400.0]))[0]
    np.testing.assert_allclose(fine[1] - fine[0], 128)


@pytest.fixture
def image(viewer: ViewerModel, panel: MuViTPanel, slide: np.ndarray) -> Any:
    return viewer.add_image(
        slide, name="slide", scale=(0.5, 0.5), translate=(10, 20), units="um"
    )


def test_boxes_follow_the_mouse_and_go(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, image: Any
) -> None:
    viewer.layers.selection.active = image
    panel.data.boxes_button.click()
    (layer,) = views(viewer)
    assert viewer.layers.selection.active is image
    assert list(layer.features["seen"]) == ["1× 32 µm", "4× 128 µm"]
    move(viewer, 160.0, 170.0)  # slide pixel (300, 300)
    qtbot.waitUntil(
        lambda: close(places(layer)[0].mean(axis=0), (160, 170)), timeout=2000
    )
    np.testing.assert_allclose(np.ptp(places(layer)[0], axis=0), (32, 32))
    np.testing.assert_allclose(np.ptp(places(layer)[1], axis=0), (128, 128))
    # Near a corner the wider one is pushed into the slide.
    move(viewer, 12.0, 22.0)
    qtbot.waitUntil(lambda: close(places(layer)[1].min(axis=0), (9.75, 19.75)))
    assert close(places(layer)[0].min(axis=0), (9.75, 19.75))
    move(viewer, 200.0, 170.0)
    qtbot.waitUntil(lambda: close(places(layer)[1].mean(axis=0), (200, 170)))
    assert close(places(layer)[0].mean(axis=0), (200, 170))
    panel.data.boxes_button.click()
    assert views(viewer) == []
    assert viewer.mouse_move_callbacks == []
    # Again, and it is the same layer.
    panel.data.boxes_button.click()
    assert views(viewer) == every(viewer) == [layer]
    assert viewer.layers.selection.active is image


def test_boxes_are_no_annotation(
    panel: MuViTPanel, viewer: ViewerModel, image: Any
) -> None:
    panel.data.boxes_button.click()
    offered = [panel.annotate.layers.itemText(k)
               for k in range(panel.annotate.layers.count())]  # fmt: skip
    assert offered == []
    panel.annotate.new_layer()
    assert panel.annotate.layers.layer.metadata.get("muvit") != VIEW
    assert [panel.data.image.itemText(0)] == ["slide"]


def test_boxes_follow_the_scales_and_the_slide(
    panel: MuViTPanel, viewer: ViewerModel, image: Any
) -> None:
    panel.data.boxes_button.click()
    panel.data.scales.combo.setCurrentText("1, 2, 4")
    panel.data.scales._on_typed()
    (layer,) = views(viewer)
    assert len(layer.data) == 3
    viewer.layers.remove(image)
    assert views(viewer) == []
    assert not panel.data.boxes_button.isChecked()


def test_boxes_that_the_user_deletes_are_off(
    panel: MuViTPanel, viewer: ViewerModel, image: Any
) -> None:
    panel.data.boxes_button.click()
    viewer.layers.remove(views(viewer)[0])
    assert not panel.data.boxes.shown
    assert not panel.data.boxes_button.isChecked()
    assert viewer.mouse_move_callbacks == []


def test_boxes_go_with_the_panel(
    panel: MuViTPanel, viewer: ViewerModel, image: Any
) -> None:
    panel.data.boxes_button.click()
    panel.let_go()
    assert every(viewer) == []


def test_without_a_slide_there_are_none(
    panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray
) -> None:
    assert not panel.data.boxes_button.isEnabled()
    viewer.add_image(slide, rotate=20)
    assert not panel.data.boxes_button.isEnabled()
