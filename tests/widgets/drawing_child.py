"""Draws outline after outline, and paints between, until it is killed.

Run with the image and the user's folder; prints how many are finished, and with
``mouse`` draws in a real window by mouse events.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import QStandardPaths, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_muvit.widgets import MuViTPanel

SQUARE = np.array([[0, 0], [0, 9], [9, 9], [9, 0]], dtype=float)


def wait_for(met: Any) -> None:
    while not met():
        QTest.qWait(5)


def offscreen() -> tuple[ViewerModel, MuViTPanel]:
    viewer = ViewerModel()
    panel = MuViTPanel(viewer)
    for name in ("inserted", "removed", "reordered"):
        getattr(viewer.layers.events, name).connect(panel.reset_choices)
    return viewer, panel


def in_a_window() -> tuple[Any, MuViTPanel]:
    import napari

    viewer = napari.Viewer()
    panel = MuViTPanel(viewer)
    viewer.window.add_dock_widget(panel)
    return viewer, panel


def by_mouse(viewer: Any, number: int) -> None:
    """A polygon of three clicks, the last one twice."""
    from qtpy.QtCore import QPoint

    canvas = viewer.window._qt_viewer.canvas.native
    x, y = 60 + 40 * (number % 8), 60 + 40 * (number // 8)
    corners = [QPoint(x, y), QPoint(x + 30, y), QPoint(x, y + 30)]
    for corner in corners:
        QTest.mouseMove(canvas, corner)
        QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=corner)
    QTest.mouseDClick(canvas, Qt.MouseButton.LeftButton, pos=corners[-1])


def main(folder: str, hand: str) -> None:
    QStandardPaths.writableLocation = staticmethod(lambda _where: folder)
    application = QApplication.instance() or QApplication([])
    mouse = hand == "mouse"
    viewer, panel = in_a_window() if mouse else offscreen()
    viewer.add_image(np.zeros((600, 700), np.uint8), name="slide")
    if mouse:
        panel.show_step(1)
        viewer.reset_view()
    page = panel.annotate
    wait_for(lambda: page.slide is not None and page.slide._ready)
    layer = page.new_layer()
    page.use_tool("Polygon" if mouse else "Brush")
    for number in range(10_000):
        if mouse:
            by_mouse(viewer, number)
        elif number % 5:
            layer.add_polygons([SQUARE + 10 * (number % 50)])
        else:
            brush = page.slide.brush.layers[0]
            brush.data_setitem((np.arange(9) + number % 90, np.arange(9)), 2)
        QTest.qWait(1)
        done = len(layer.data)
        page.slide.autosave.flush()
        sys.stdout.write(f"{done}\n")
        sys.stdout.flush()
    application.quit()


if __name__ == "__main__":
    main(str(Path(sys.argv[1])), sys.argv[2])
