"""A walk through the panel by real mouse and key events, with a picture of each step.

Run it under a screen of its own::

    xvfb-run -a -s "-screen 0 1400x900x24" python tools/panel_walkthrough.py OUT

It opens the sample slide from the menu, adds classes, outlines regions, trains for a
moment, pans meanwhile, stops, predicts, and prints what it measured. ``--close`` closes
the window in the middle of a training instead and ends with the process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QApplication, QLineEdit

LEFT = Qt.MouseButton.LeftButton
SIZE = (1360, 860)
STALL_MS = 5


class Walk:
    """A viewer, the panel, and hands."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.measured: dict[str, Any] = {}
        self.viewer = napari.Viewer()
        self.window = self.viewer.window._qt_window
        self.window.resize(*SIZE)
        self.wait(500)
        self.panel: Any = None
        self._number = 0

    @property
    def canvas(self) -> Any:
        """The widget that the slide is drawn on."""
        return self.viewer.window._qt_viewer.canvas.native

    def wait(self, ms: int) -> None:
        """Let the event loop run."""
        QTest.qWait(ms)

    def until(self, met: Callable[[], bool], seconds: float = 60) -> float:
        """Wait until ``met``; return the seconds that took."""
        began = time.monotonic()
        while not met():
            if time.monotonic() - began > seconds:
                self.shot("gave-up")
                raise TimeoutError(f"{seconds} s are over: {self.panel.status.text()}")
            QTest.qWait(10)
        return time.monotonic() - began

    def shot(self, name: str) -> None:
        """Save a picture of the window."""
        self.wait(250)
        self._number += 1
        self.window.grab().save(str(self.out / f"{self._number:02d}-{name}.png"))

    # ---- hands

    def menu(self, *path: str) -> None:
        """Trigger an entry of the menu bar."""
        actions = self.window.menuBar().actions()
        for depth, words in enumerate(path):
            found = [a for a in actions if words in a.text().replace("&", "")]
            if not found:
                texts = [a.text() for a in actions]
                raise LookupError(f"No menu entry {words!r} in {texts}")
            if depth == len(path) - 1:
                found[0].trigger()
                return
            menu = found[0].menu()
            menu.aboutToShow.emit()
            actions = menu.actions()

    def click(self, widget: QAbstractButton) -> None:
        """Click the middle of a widget."""
        assert widget.isVisible(), widget
        assert widget.isEnabled(), widget.text()
        QTest.mouseClick(widget, LEFT)
        self.wait(50)

    def step(self, index: int) -> None:
        """Click a step of the header."""
        self.click(self.panel.step_buttons[index])

    def pixel(self, y: float, x: float) -> QPoint:
        """Canvas position of a slide pixel."""
        image = self.panel.data.image.layer
        world = np.asarray(image.data_to_world((y, x)))
        camera = self.viewer.scene.camera
        size = np.array([self.canvas.height(), self.canvas.width()])
        row, column = (world - camera.center[-2:]) * camera.zoom + size / 2
        return QPoint(round(column), round(row))

    def lasso(self, outline: list[tuple[float, float]]) -> None:
        """Draw with the button held down."""
        points = [self.pixel(*p) for p in outline]
        QTest.mouseMove(self.canvas, points[0])
        QTest.mousePress(self.canvas, LEFT, pos=points[0])
        for start, end in zip(points, [*points[1:], points[0]], strict=True):
            for share in np.linspace(0, 1, 12)[1:]:
                move = start + (end - start) * float(share)
                self._drag(move)
        QTest.mouseRelease(self.canvas, LEFT, pos=points[0])
        self.wait(60)

    def box(self, first: tuple[float, float], last: tuple[float, float]) -> None:
        """Drag from one corner to the other."""
        start, end = self.pixel(*first), self.pixel(*last)
        QTest.mouseMove(self.canvas, start)
        QTest.mousePress(self.canvas, LEFT, pos=start)
        for share in np.linspace(0, 1, 12)[1:]:
            self._drag(start + (end - start) * float(share))
        QTest.mouseRelease(self.canvas, LEFT, pos=end)
        self.wait(60)

    def _drag(self, to: QPoint) -> None:
        # QTest.mouseMove forgets the button that is held down.
        from qtpy.QtCore import QEvent, QPointF
        from qtpy.QtGui import QMouseEvent

        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(to),
            QPointF(self.canvas.mapToGlobal(to)),
            Qt.MouseButton.NoButton,
            LEFT,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(self.canvas, event)
        self.wait(4)

    def polygon(self, outline: list[tuple[float, float]]) -> None:
        """Click each corner, double-click the last one."""
        points = [self.pixel(*p) for p in outline]
        for point in points:
            QTest.mouseMove(self.canvas, point)
            QTest.mouseClick(self.canvas, LEFT, pos=point)
            self.wait(30)
        QTest.mouseDClick(self.canvas, LEFT, pos=points[-1])
        self.wait(60)

    def pan(self, seconds: float) -> dict[str, float]:
        """Drag the slide to and fro; return the stalls of the GUI thread in ms."""
        self.viewer.layers.selection.active = self.panel.data.image.layer
        beats: list[float] = []
        timer = QTimer()
        timer.timeout.connect(lambda: beats.append(time.monotonic()))
        timer.start(STALL_MS)
        before = np.array(self.viewer.scene.camera.center)
        moved = 0.0
        end = time.monotonic() + seconds
        centre = QPoint(self.canvas.width() // 2, self.canvas.height() // 2)
        while time.monotonic() < end:
            QTest.mousePress(self.canvas, LEFT, pos=centre)
            for k in range(1, 12):
                self._drag(centre + QPoint(8 * k, 5 * k))
            QTest.mouseRelease(self.canvas, LEFT, pos=centre)
            now = np.array(self.viewer.scene.camera.center)
            moved = max(moved, float(np.abs(now - before).max()))
            for k in range(11, -1, -1):
                self._drag(centre + QPoint(8 * k, 5 * k))
            self.viewer.scene.camera.center = tuple(before)
        timer.stop()
        gaps = np.diff(beats) * 1000
        return {
            "moved": round(moved, 1),
            "max_ms": round(float(gaps.max()), 1),
            "p99_ms": round(float(np.percentile(gaps, 99)), 1),
            "over_100_ms": int((gaps > 100).sum()),
        }

    # ---- the steps

    def open_sample(self) -> None:
        """File > Open Sample > MuViT > Synthetic slide, then Plugins > MuViT."""
        began = time.monotonic()
        self.menu("File", "Open Sample", "MuViT", "Synthetic slide")
        self.until(lambda: len(self.viewer.layers) == 2)
        self.measured["sample opened in s"] = round(time.monotonic() - began, 1)
        began = time.monotonic()
        self.menu("Plugins", "MuViT")
        docks = self.viewer.window._wrapped_dock_widgets.values()
        (dock,) = [d for d in docks if d.name.startswith("MuViT")]
        self.panel = dock.widget()
        self.wait(300)
        self.viewer.reset_view()
        self.measured["panel opened in s"] = round(time.monotonic() - began, 2)
        self.measured["torch loaded by opening it"] = "torch" in sys.modules
        self.shot("data")

    def annotate(self) -> None:
        """Add classes by typing, outline regions with two tools, undo one."""
        panel = self.panel
        self.step(1)
        page = panel.annotate
        buttons = {b.text(): b for b in page.findChildren(QAbstractButton)}
        self.click(buttons["New"])
        self.click(buttons["Add"])
        self.type_into_editor("artefct")
        self.rename(3, "artefact")
        self.shot("classes")
        self.click(page.tool_buttons["Lasso"])
        QTest.keyClick(self.canvas, "1")
        self.lasso([(150, 150), (150, 420), (420, 420), (420, 150)])
        QTest.keyClick(self.canvas, "2")
        self.lasso([(800, 300), (700, 700), (1100, 800)])
        self.click(page.tool_buttons["Polygon"])
        QTest.keyClick(self.canvas, "3")
        self.polygon([(1200, 1200), (1250, 1700), (1600, 1650), (1500, 1250)])
        self.click(page.tool_buttons["Box"])
        self.box((1650, 250), (1850, 650))
        self.shot("drawn")
        drawn = len(page.layers.layer.data)
        QTest.keyClick(self.canvas, "Z", Qt.KeyboardModifier.ControlModifier)
        self.wait(50)
        left = len(page.layers.layer.data)
        self.measured["regions drawn, after undo"] = [drawn, left]
        self.measured["classes of the regions"] = list(
            page.layers.layer.features["class"]
        )

    def rename(self, index: int, name: str) -> None:
        """Double-click a class and type."""
        tree = self.panel.annotate.classes.tree
        place = tree.visualItemRect(tree.topLevelItem(index)).center()
        QTest.mouseClick(tree.viewport(), LEFT, pos=place)
        QTest.mouseDClick(tree.viewport(), LEFT, pos=place)
        self.wait(50)
        self.type_into_editor(name)

    def type_into_editor(self, words: str) -> None:
        """Type into the editor that has opened in the class list."""
        editor = self.panel.annotate.classes.tree.findChild(QLineEdit)
        editor.selectAll()
        QTest.keyClicks(editor, words)
        QTest.keyClick(editor, Qt.Key.Key_Return)
        self.wait(50)

    def choose_truth(self) -> None:
        """Take the Labels layer of the sample as annotation."""
        page = self.panel.annotate
        truth = self.viewer.layers["synthetic truth"]
        page.layers.choose(truth)
        self.until(lambda: bool(page.values.values()))
        truth.visible = True
        self.shot("labels")
        truth.visible = False
        self.measured["values to classes"] = page.values.values()

    def train(self, minutes: float, stop_after: float) -> None:
        """Train, pan meanwhile, stop."""
        panel = self.panel
        self.step(2)
        panel.train.minutes.setValue(minutes)
        self.shot("train")
        idle = self.pan(2)
        self.click(panel.train.train_button)
        first = self.until(lambda: len(panel.train.plot.train) > 0, 180)
        self.measured["first step after s"] = round(first, 1)
        self.measured["pan idle"] = idle
        self.measured["pan while training"] = self.pan(4)
        began = time.monotonic()
        ended = lambda: not panel.runner.busy  # noqa: E731
        self.until(
            lambda: time.monotonic() - began > stop_after or ended(),
            stop_after + 120,
        )
        self.shot("training")
        if panel.runner.busy:
            self.click(panel.stop_button)
            self.measured["stop took s"] = round(self.until(ended), 2)
        self.measured["after training"] = panel.status.text()
        self.shot("trained")

    def predict(self) -> None:
        """Predict; stop once, go on, look closely."""
        panel = self.panel
        self.step(3)
        self.shot("predict")
        self.click(panel.predict.predict_button)
        self.until(lambda: panel.bar.value() > 0, 120)
        self.measured["pan while predicting"] = self.pan(3)
        self.shot("predicting")
        if panel.runner.busy:
            self.click(panel.stop_button)
            ended = self.until(lambda: not panel.runner.busy)
            self.measured["stop of the prediction took s"] = round(ended, 2)
            self.shot("stopped")
            self.click(panel.predict.predict_button)
        self.measured["prediction s"] = round(
            self.until(lambda: not panel.runner.busy, 600), 1
        )
        self.measured["after prediction"] = panel.status.text()
        self.shot("predicted")
        layer = next(x for x in self.viewer.layers if "muvit" in x.metadata)
        levels = [type(level).__name__ for level in layer.data]
        self.measured["levels"] = levels
        truth = np.asarray(self.viewer.layers["synthetic truth"].data[0])
        found = np.asarray(layer.data[0])
        self.measured["Dice"] = [
            round(
                2 * float(((truth == k) & (found == k)).sum())
                / float((truth == k).sum() + (found == k).sum()),
                3,
            )
            for k in (1, 2, 3)
        ]  # fmt: skip
        self.viewer.scene.camera.zoom *= 4
        QTest.mouseMove(self.canvas, QPoint(300, 300))
        self.shot("close")


def close_while_training(walk: Walk) -> None:
    """Close the window in the middle of a training, as its button does."""
    panel = walk.panel
    walk.step(2)
    panel.train.minutes.setValue(5)
    walk.click(panel.train.train_button)
    walk.until(lambda: len(panel.train.plot.train) > 5, 120)
    closed = time.monotonic()
    QTimer.singleShot(0, walk.window.close)
    napari.run()
    sys.stdout.write(json.dumps({"loop ended s": time.monotonic() - closed}) + "\n")


def main() -> None:
    """Run the walk-through."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--stop-after", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--close", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    walk = Walk(arguments.out)
    walk.open_sample()
    walk.annotate()
    walk.choose_truth()
    if arguments.close:
        close_while_training(walk)
        return
    walk.train(arguments.minutes, arguments.stop_after)
    walk.predict()
    sys.stdout.write(json.dumps(walk.measured, indent=1) + "\n")
    walk.viewer.close()


if __name__ == "__main__":
    main()
