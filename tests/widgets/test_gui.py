"""The panel in a real napari window: docking, mouse and keys, closing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QWidget

from napari_muvit.widgets import MuViTPanel

if TYPE_CHECKING:
    from conftest import FakeCore

pytestmark = pytest.mark.gui
TIMEOUT = 10_000


@pytest.fixture
def window(make_napari_viewer: Callable[..., Any], slide: np.ndarray) -> Any:
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1100, 700)
    viewer.add_image(slide, name="slide", scale=(0.5, 0.5), units="um")
    return viewer


@pytest.fixture
def panel(window: Any) -> MuViTPanel:
    made = MuViTPanel(window)
    window.window.add_dock_widget(made, name="MuViT")
    QTest.qWait(100)
    window.reset_view()
    return made


def delete(qtbot: Any, widget: QWidget) -> None:
    """Delete a widget and wait until it is gone."""
    gone: list[bool] = []
    # Not waitSignal: with PySide6 it fails to disconnect from what is gone.
    widget.destroyed.connect(lambda: gone.append(True))
    widget.deleteLater()
    qtbot.waitUntil(lambda: bool(gone), timeout=TIMEOUT)


def test_docked_the_panel_follows_the_layers(window: Any, panel: MuViTPanel) -> None:
    assert panel.data.image.layer is window.layers["slide"]
    window.add_image(np.zeros((50, 50)), name="another")
    assert panel.data.image.count() == 2
    window.layers["another"].name = "renamed"
    assert "renamed" in [panel.data.image.itemText(i) for i in range(2)]


def test_a_polygon_by_mouse_and_keys(window: Any, panel: MuViTPanel) -> None:
    panel.show_step(1)
    QTest.mouseClick(panel.annotate.tool_buttons["Polygon"], Qt.MouseButton.LeftButton)
    layer = panel.annotate.layers.layer
    canvas = window.window._qt_viewer.canvas.native
    QTest.keyClick(canvas, "2")
    assert panel.state.current_name == "class 1"
    QTest.keyClick(canvas, "1")
    corners = [QPoint(150, 200), QPoint(300, 210), QPoint(250, 350)]
    for corner in corners:
        QTest.mouseMove(canvas, corner)
        QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=corner)
        QTest.qWait(20)
        # A half-drawn outline is neither counted nor called a line.
        assert not panel.annotate.problem.isVisible()
    QTest.mouseDClick(canvas, Qt.MouseButton.LeftButton, pos=corners[-1])
    QTest.qWait(20)
    assert layer.shape_type == ["polygon"]
    assert list(layer.features["class"]) == ["background"]
    assert panel.annotate.classes.tree.topLevelItem(0).text(2) == "1 region"
    assert [p.label for p in panel.annotate.annotations().items] == [1]
    QTest.keyClick(canvas, "Z", Qt.KeyboardModifier.ControlModifier)
    assert len(layer.data) == 0


def test_an_outline_given_up_does_not_hand_its_class_on(
    window: Any, panel: MuViTPanel
) -> None:
    # napari leaves the row of features of such an outline behind.
    panel.annotate.use_tool("Polygon")
    layer = panel.annotate.layers.layer
    canvas = window.window._qt_viewer.canvas.native
    panel.annotate.classes.choose(0)
    QTest.mouseMove(canvas, QPoint(100, 300))
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=QPoint(100, 300))
    QTest.keyClick(canvas, Qt.Key.Key_Escape)
    QTest.qWait(20)
    assert len(layer.data) == 0
    panel.annotate.classes.choose(1)
    layer.add_polygons([np.array([[0, 0], [0, 90], [90, 90]])])
    assert list(layer.features["class"]) == ["class 1"]


def test_outlines_stay_thin_when_the_user_zooms_in(
    window: Any, panel: MuViTPanel
) -> None:
    panel.show_step(1)
    layer = panel.annotate.new_layer()
    assert layer is not None
    layer.add_polygons([np.array([[0, 0], [0, 90], [90, 90]])])
    for zoom in (0.5, 40.0):
        window.scene.camera.zoom = zoom
        QTest.qWait(400)
        on_screen = layer.edge_width[0] * layer.scale[0] * zoom
        assert on_screen == pytest.approx(2)


def test_after_the_dock_is_closed_nothing_of_the_panel_is_called(
    qtbot: Any, window: Any, panel: MuViTPanel, core: FakeCore
) -> None:
    panel.annotate.use_tool("Polygon")
    layer = panel.annotate.layers.layer
    layer.add_polygons([np.array([[0, 0], [0, 90], [90, 90]])])
    panel.annotate.classes.choose(0)
    layer.add_polygons([np.array([[200, 0], [200, 90], [290, 90]])])
    panel.train.train()
    job = panel.runner._job
    window.window.remove_dock_widget(panel)
    delete(qtbot, panel)
    assert job.cancel.is_set()
    layer.add_polygons([np.array([[0, 0], [0, 90], [90, 90]])])
    window.scene.camera.zoom *= 2
    QTest.qWait(300)
    assert not [key for key in layer.keymap if str(key) in "123456789"]


def test_closing_the_dock_by_its_button_stops_the_work(
    qtbot: Any, window: Any, core: FakeCore
) -> None:
    # napari takes the panel out of the dock and leaves it to the garbage collector:
    # the training went on, and the keys 1 to 9 stayed bound.
    dock, panel = window.window.add_plugin_dock_widget("napari-muvit", "MuViT")
    panel.annotate.use_tool("Polygon")
    layer = panel.annotate.layers.layer
    layer.add_polygons([np.array([[0, 0], [0, 90], [90, 90]])])
    panel.train.train()
    job = panel.runner._job
    QTest.mouseClick(dock.title.close_button, Qt.MouseButton.LeftButton)
    assert job.cancel.is_set()
    assert not [key for key in layer.keymap if str(key) in "123456789"]
    window.add_image(np.zeros((50, 50)), name="another")  # it follows no more
    assert not [key for key in layer.keymap if str(key) in "123456789"]
    qtbot.waitUntil(lambda: not panel.runner.busy, timeout=TIMEOUT)
    delete(qtbot, panel)


def test_it_looks_right_in_both_themes(window: Any, panel: MuViTPanel) -> None:
    from napari.settings import get_settings

    brightness = {}
    for theme in ("dark", "light"):
        get_settings().appearance.theme = theme
        QTest.qWait(50)
        image = panel.train.plot.grab().toImage()
        tree = panel.annotate.classes.tree.grab().toImage()
        brightness[theme] = [
            image.pixelColor(3, 3).lightness(), tree.pixelColor(3, 3).lightness()
        ]  # fmt: skip
    get_settings().appearance.theme = "dark"
    assert max(brightness["dark"]) < 100
    assert min(brightness["light"]) > 150


def test_closing_napari_while_training_ends_the_process(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys, time, types
        import napari, numpy as np
        from napari_muvit.core.errors import Cancelled
        from napari_muvit.core.progress import Progress
        from qtpy.QtCore import QTimer

        def finetune(*args, on_progress, should_stop, **kwargs):
            while not should_stop():
                on_progress(Progress(stage="train", done=1, total=9))
                time.sleep(0.01)
            print("stopped", flush=True)
            raise Cancelled("Stopped.")

        module = types.ModuleType("napari_muvit.core.training")
        module.finetune = finetune
        sys.modules[module.__name__] = module
        from napari_muvit.widgets import MuViTPanel, panel as module

        module.make_child = lambda: None
        viewer = napari.Viewer()
        viewer.add_image(np.zeros((500, 500)))
        panel = MuViTPanel(viewer)
        viewer.window.add_dock_widget(panel)
        layer = panel.annotate.new_layer()
        layer.add_polygons([np.array([[0, 0], [0, 90], [90, 90]])])
        panel.train.way.setCurrentIndex(1)  # thorough
        panel.train.train()
        assert panel.runner.busy
        QTimer.singleShot(1000, viewer.window._qt_window.close)
        napari.run()
        print("closed", flush=True)
        """
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True, capture_output=True, text=True, timeout=100, cwd=tmp_path,
    )  # fmt: skip
    assert sorted(done.stdout.split()) == ["closed", "stopped"]
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 60


def test_closing_napari_amid_a_real_training_saves_it_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    # In its process of its own, with torch; nothing of it is made up.
    code = textwrap.dedent(
        f"""
        import sys, time
        import napari, numpy as np
        from qtpy.QtCore import QStandardPaths, QTimer
        from napari_muvit.widgets import MuViTPanel

        QStandardPaths.writableLocation = staticmethod(lambda _w: {str(tmp_path)!r})
        viewer = napari.Viewer()
        viewer.add_image(np.random.default_rng(0).integers(0, 255, (400, 400), "u1"))
        panel = MuViTPanel(viewer)
        viewer.window.add_dock_widget(panel)
        layer = panel.annotate.new_layer()
        layer.add_polygons([np.array([[0, 0], [0, 90], [90, 90]])])
        panel.annotate.classes.choose(0)
        layer.add_polygons([np.array([[200, 0], [200, 90], [290, 90]])])
        panel.train.train()

        def look():
            if not panel.runner.busy:
                print("ended early:", panel.status.text(), panel.train.problem.text())
                viewer.window._qt_window.close()
            elif len(panel.train.plot.train) < 3:
                QTimer.singleShot(100, look)
            else:
                print(panel.runner.child.pid, time.time(), flush=True)
                viewer.window._qt_window.close()

        QTimer.singleShot(100, look)
        napari.run()
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, timeout=150, cwd=tmp_path,
    )  # fmt: skip
    ended = time.time()
    assert "Traceback" not in done.stderr
    pid, closed = done.stdout.split()
    # 5 s on an idle machine; the tests may run on a busy one.
    assert ended - float(closed) < 20
    deadline = time.monotonic() + 20
    while psutil.pid_exists(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(pid))
    (model,) = (tmp_path / "napari-muvit").glob("*muvit-model*")
    assert (model / "model.safetensors").stat().st_size > 0
    assert (tmp_path / "napari-muvit").glob("*.muvit.jsonl")


def test_docked_before_it_is_loaded_the_panel_fills_its_dock(
    qtbot: Any, window: Any
) -> None:
    # napari filled the half above with a stretch, meant for low widgets.
    dock, docked = window.window.add_plugin_dock_widget("napari-muvit", "MuViT")
    qtbot.waitUntil(lambda: docked.panel is not None, timeout=TIMEOUT)
    QTest.qWait(100)
    assert docked.panel.height() > 0.9 * docked.height()
    assert docked.panel.y() < 20
    QTest.mouseClick(dock.title.close_button, Qt.MouseButton.LeftButton)
    delete(qtbot, docked)
