"""Hundreds of outlines come back without holding the window up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel

from napari_muvit._layer_annotations import shape_classes
from napari_muvit.core.data.named_labels import read_project
from napari_muvit.widgets import MuViTPanel, outline_pieces

if TYPE_CHECKING:
    import pytest

TIMEOUT = 10_000
COUNT = 250


def add_slide(panel: MuViTPanel, slide: np.ndarray) -> Any:
    panel.viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    return panel.annotate.slide


def leave_outlines(qtbot: Any, panel: MuViTPanel, slide: np.ndarray) -> Any:
    """Draw, save, and take everything away again."""
    held = add_slide(panel, slide)
    qtbot.waitUntil(lambda: held._ready, timeout=TIMEOUT)
    layer = panel.annotate.new_layer()
    assert layer is not None
    square = np.array([[0, 0], [0, 9], [9, 9], [9, 0]], dtype=float)
    for index in (1, 0):
        panel.annotate.classes.choose(index)
        layer.add_polygons([square + 2 * k for k in range(COUNT // 2)])
    assert held.autosave.flush()
    panel.viewer.layers.clear()
    assert held.path.is_file()
    return held.path


def test_they_come_back_piece_by_piece_with_their_classes(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = leave_outlines(qtbot, panel, slide)
    text, sizes = path.read_bytes(), []
    step = outline_pieces.Filling._step

    def counted(filling: outline_pieces.Filling) -> None:
        before = filling._layer.nshapes
        step(filling)
        sizes.append(filling._layer.nshapes - before)

    monkeypatch.setattr(outline_pieces.Filling, "_step", counted)
    held = add_slide(panel, slide)
    qtbot.waitUntil(lambda: held._ready, timeout=TIMEOUT)
    assert sizes[:3] == [100, 100, 50]
    (layer,) = [x for x in viewer.layers if x.name == "annotations"]
    assert held.layer is layer
    wanted = ["class 1"] * (COUNT // 2) + ["background"] * (COUNT // 2)
    assert shape_classes(layer) == wanted
    for place, name in ((0, "class 1"), (-1, "background")):
        np.testing.assert_allclose(
            layer.edge_color[place], layer.edge_color_cycle_map[name]
        )
    # The file holds what it held, to the byte.
    assert held.autosave.flush()
    assert path.read_bytes() == text


def test_what_is_drawn_meanwhile_stays(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray
) -> None:
    path = leave_outlines(qtbot, panel, slide)
    held = add_slide(panel, slide)
    qtbot.waitUntil(lambda: held._filling is not None, timeout=TIMEOUT)
    layer = panel.annotate.new_layer()
    assert layer is not None
    layer.add_polygons([np.array([[300.0, 300.0], [300.0, 340.0], [350.0, 340.0]])])
    qtbot.waitUntil(lambda: held._ready, timeout=TIMEOUT)
    assert len([x for x in viewer.layers if x.name == "annotations"]) == 1
    assert layer.nshapes == COUNT + 1
    assert held.autosave.flush()
    assert len(read_project(path).items) == COUNT + 1


def test_a_slide_that_is_left_meanwhile_keeps_its_file(
    qtbot: Any, panel: MuViTPanel, viewer: ViewerModel, slide: np.ndarray
) -> None:
    path = leave_outlines(qtbot, panel, slide)
    held = add_slide(panel, slide)
    qtbot.waitUntil(lambda: held._filling is not None, timeout=TIMEOUT)
    viewer.layers.clear()
    qtbot.wait(200)
    assert len(viewer.layers) == 0
    assert len(read_project(path).items) == COUNT
