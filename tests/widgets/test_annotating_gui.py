"""The Annotate page in a real window, by mouse and keys."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_muvit.core.data.named_labels import read_project
from napari_muvit.core.geometry import Box
from napari_muvit.widgets import MuViTPanel

pytestmark = pytest.mark.gui
LEFT = Qt.MouseButton.LeftButton
CONTROL = Qt.KeyboardModifier.ControlModifier
SHIFT = Qt.KeyboardModifier.ShiftModifier
TIMEOUT = 10_000


@pytest.fixture
def window(make_napari_viewer: Callable[..., Any], slide: np.ndarray) -> Any:
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1100, 700)
    viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    return viewer


@pytest.fixture
def panel(qtbot: Any, window: Any) -> MuViTPanel:
    made = MuViTPanel(window)
    window.window.add_dock_widget(made, name="MuViT")
    qtbot.waitUntil(lambda: made.annotate.slide._ready, timeout=TIMEOUT)
    QTest.qWait(100)
    window.reset_view()
    made.show_step(1)
    return made


def click(panel: MuViTPanel, tool: str) -> None:
    QTest.mouseClick(panel.annotate.tool_buttons[tool], LEFT)


def drag(canvas: Any, *corners: tuple[int, int]) -> None:
    """Draw with the button held down."""
    points = [QPoint(*corner) for corner in corners]
    QTest.mouseMove(canvas, points[0])
    QTest.mousePress(canvas, LEFT, pos=points[0])
    for start, end in itertools.pairwise(points):
        for share in np.linspace(0, 1, 12)[1:]:
            place = QPointF(start + (end - start) * float(share))
            event = QMouseEvent(
                QEvent.Type.MouseMove,
                place,
                canvas.mapToGlobal(place),
                Qt.MouseButton.NoButton,
                LEFT,
                Qt.KeyboardModifier.NoModifier,
            )
            QApplication.sendEvent(canvas, event)
            QTest.qWait(2)
    QTest.mouseRelease(canvas, LEFT, pos=points[-1])
    QTest.qWait(30)


def test_lasso_brush_erase_and_box_by_mouse(window: Any, panel: MuViTPanel) -> None:
    page = panel.annotate
    canvas = window.window._qt_viewer.canvas.native

    def areas() -> list[tuple[str, int]]:
        return [(type(x).__name__, x.label) for x in page.slide.areas()]

    click(panel, "Lasso")
    QTest.keyClick(canvas, "2")
    drag(canvas, (150, 150), (300, 150), (300, 300), (150, 300))
    assert areas() == [("Polygon", 2)]
    click(panel, "Brush")
    QTest.keyClick(canvas, "1")
    drag(canvas, (350, 200), (450, 260))
    drag(canvas, (350, 300), (450, 360))
    assert areas()[1:] == [("BrushMask", 1)]
    painted = np.count_nonzero(page.slide.areas()[1].mask)
    QTest.keyClick(canvas, "Z", CONTROL)
    half = np.count_nonzero(page.slide.areas()[1].mask)
    assert 0 < half < painted
    QTest.keyClick(canvas, "Z", CONTROL | SHIFT)
    assert np.count_nonzero(page.slide.areas()[1].mask) == painted
    click(panel, "Erase")
    drag(canvas, (340, 180), (480, 180), (480, 280), (340, 280))
    assert 0 < np.count_nonzero(page.slide.areas()[-1].mask) < painted
    click(panel, "Background box")
    drag(canvas, (120, 120), (480, 400))
    assert areas() == [
        ("Polygon", 2), ("Polygon", 0), ("Region", 1), ("BrushMask", 1)
    ]  # fmt: skip
    QTest.keyClick(canvas, "Z", CONTROL)
    assert len(areas()) == 3
    QTest.keyClick(canvas, "Y", CONTROL)
    assert len(areas()) == 4
    assert page.slide.autosave.flush()
    assert len(read_project(page.slide.path).items) == 4


def test_moving_an_outline_is_saved_and_undone(window: Any, panel: MuViTPanel) -> None:
    page = panel.annotate
    canvas = window.window._qt_viewer.canvas.native
    click(panel, "Box")
    drag(canvas, (150, 150), (300, 300))
    before = page.slide.areas()[0].lower
    layer = page.layers.layer
    layer.mode = "select"
    layer.selected_data = {0}
    drag(canvas, (220, 220), (260, 240))
    moved = page.slide.areas()[0].lower
    assert (moved > before + 5).all()
    assert page.slide.autosave.flush()
    np.testing.assert_allclose(read_project(page.slide.path).items[0].lower, moved)
    QTest.keyClick(canvas, "Z", CONTROL)
    np.testing.assert_allclose(page.slide.areas()[0].lower, before)


def test_names_on_the_slide(window: Any, panel: MuViTPanel) -> None:
    page = panel.annotate
    layer = page.new_layer()
    layer.add_polygons([np.array([[0, 0], [0, 90], [90, 90]])])
    assert not layer.text.visible or not len(layer.text.values)
    page.names_shown.click()
    assert list(layer.text.values) == ["class 1"]
    page.classes.tree.topLevelItem(1).setText(1, "tumour")
    assert list(layer.text.values) == ["tumour"]
    page.use_tool("Erase")
    layer.add_polygons([np.array([[0, 0], [0, 90], [90, 90]])])
    assert list(layer.text.values) == ["tumour", "Ignore*"]
    page.names_shown.click()
    assert not layer.text.visible


def test_closing_napari_empties_no_file(
    qtbot: Any, window: Any, panel: MuViTPanel
) -> None:
    # napari takes the layers out one by one before the panel hears of it.
    page = panel.annotate
    canvas = window.window._qt_viewer.canvas.native
    click(panel, "Lasso")
    drag(canvas, (150, 150), (300, 150), (300, 300), (150, 300))
    click(panel, "Brush")
    drag(canvas, (350, 200), (450, 260))
    path, before = page.slide.path, page.annotations()
    window.layers.clear()
    QTest.qWait(400)
    found = read_project(path)
    box = Box((0, 0), (600, 700))
    shown = [a.rasterise(box, (600, 700)) for a in (before, found.annotations())]
    np.testing.assert_array_equal(*shown)
    # The lock is free for the next one.
    assert not path.with_name(path.name + ".lock").exists()
