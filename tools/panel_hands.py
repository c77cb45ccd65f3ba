"""Hands and eyes for sessions with the panel: mouse, keys, pictures, a heartbeat.

Used by ``panel_walkthrough.py`` and ``panel_slides.py``. Everything is an event of the
window system's kind; nothing calls a page's methods.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import (
    QDragEnterEvent,
    QDropEvent,
    QEnterEvent,
    QMouseEvent,
    QWheelEvent,
)
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QApplication,
    QComboBox,
    QLineEdit,
    QWidget,
)

LEFT = Qt.MouseButton.LeftButton
NO_KEY = Qt.KeyboardModifier.NoModifier
CONTROL = Qt.KeyboardModifier.ControlModifier
BEAT_MS = 5
Point = tuple[float, float]
"""(y, x) in pixels of the slide."""


class Hands:
    """A viewer, the panel once it is open, and what was measured.

    Parameters
    ----------
    out
        Folder of the pictures.
    size
        (width, height) of the window.
    """

    def __init__(self, out: Path, size: tuple[int, int]) -> None:
        import napari

        out.mkdir(parents=True, exist_ok=True)
        self.out = out
        self.measured: dict[str, Any] = {}
        self.errors: list[str] = []
        sys.excepthook = self._on_error
        self.viewer = napari.Viewer()
        self.window = self.viewer.window._qt_window
        self.window.resize(*size)
        self.panel: Any = None
        self._number = 0
        self.wait(500)

    def _on_error(self, kind: Any, error: BaseException, trace: Any) -> None:
        self.errors.append(f"{kind.__name__}: {error}")
        sys.__excepthook__(kind, error, trace)

    @property
    def canvas(self) -> Any:
        """The widget that the slide is drawn on."""
        return self.viewer.window._qt_viewer.canvas.native

    # ---- time

    def wait(self, ms: int) -> None:
        """Let the event loop run."""
        QTest.qWait(ms)

    def until(
        self, met: Callable[[], bool], seconds: float = 60, what: str = ""
    ) -> float:
        """Wait until ``met``; return the seconds that took."""
        began = time.monotonic()
        while not met():
            if time.monotonic() - began > seconds:
                self.shot("gave-up")
                said = self.panel.status.text() if self.panel else ""
                raise TimeoutError(f"{seconds} s are over for {what}: {said}")
            self.wait(10)
        return round(time.monotonic() - began, 2)

    def idle(self, seconds: float = 600) -> float:
        """Wait until the panel's work has ended."""
        return self.until(lambda: not self.panel.runner.busy, seconds, "the work")

    @contextmanager
    def heartbeat(self, name: str) -> Iterator[None]:
        """Note the gaps between beats of the GUI thread, in ms."""
        beats: list[float] = []
        timer = QTimer()
        timer.timeout.connect(lambda: beats.append(time.monotonic()))
        timer.start(BEAT_MS)
        yield
        timer.stop()
        gaps = np.diff(beats) * 1000
        self.measured[name] = {
            "max_ms": round(float(gaps.max()), 1),
            "p99_ms": round(float(np.percentile(gaps, 99)), 1),
            "over_100_ms": int((gaps > 100).sum()),
        }

    # ---- eyes

    def shot(self, name: str, crop: QWidget | None = None) -> Path:
        """Save a picture of the window, or of one widget in it."""
        self.wait(300)
        self._number += 1
        path = self.out / f"{self._number:02d}-{name}.png"
        (crop or self.window).grab().save(str(path))
        return path

    def pixel(self, point: Point) -> QPoint:
        """Place on the canvas of a pixel of the slide."""
        from napari_muvit._layers import placement

        image = self.panel.data.image.layer
        world = placement(image).to_world(np.asarray(point, dtype=float)[None])[0]
        camera = self.viewer.scene.camera
        size = np.array([self.canvas.height(), self.canvas.width()])
        row, column = (world - camera.center[-2:]) * camera.zoom + size / 2
        return QPoint(round(column), round(row))

    def look(self, centre: Point, width: float) -> None:
        """Move the camera: ``width`` pixels of the slide fill the canvas."""
        from napari_muvit.widgets.regions import go_to

        y, x = centre
        half = width / 2 / 1.4
        go_to(
            self.viewer,
            self.panel.data.image.layer,
            (y - half, x - half, y + half, x + half),
        )
        self.wait(250)

    # ---- hands

    def drop(self, *paths: Path) -> None:
        """Drop files upon the canvas."""
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(p)) for p in paths])
        target = self.viewer.window._qt_viewer
        middle = target.rect().center()
        copy = Qt.DropAction.CopyAction
        enter = QDragEnterEvent(middle, copy, data, LEFT, NO_KEY)
        QApplication.sendEvent(target, enter)
        if not enter.isAccepted():
            raise RuntimeError("The viewer takes no files that are dropped.")
        QApplication.sendEvent(
            target, QDropEvent(QPointF(middle), copy, data, LEFT, NO_KEY)
        )

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

    def open_panel(self) -> None:
        """Plugins > MuViT."""
        began = time.monotonic()
        self.menu("Plugins", "MuViT")
        docks = self.viewer.window._wrapped_dock_widgets.values()
        (dock,) = [d for d in docks if d.name.startswith("MuViT")]
        self.panel = dock.widget()
        self.measured["panel opened in s"] = round(time.monotonic() - began, 2)
        self.measured["torch loaded by opening it"] = "torch" in sys.modules
        self.wait(500)
        self.viewer.reset_view()
        self.wait(300)

    def click(self, widget: QWidget) -> None:
        """Click the middle of a widget that the user can see and use."""
        self.bring_into_sight(widget)
        self.enter(False)
        if not (widget.isVisible() and widget.isEnabled()):
            words = widget.text() if isinstance(widget, QAbstractButton) else widget
            self.shot("cannot-click")
            raise RuntimeError(f"{words!r} cannot be clicked.")
        QTest.mouseClick(widget, LEFT)
        self.wait(50)

    def enter(self, over: bool) -> None:
        """Move the mouse on or off the canvas, which napari wants to know."""
        view = self.viewer.window._qt_viewer
        if over:
            at = QPointF(view.rect().center())
            QApplication.sendEvent(view, QEnterEvent(at, at, at))
        else:
            QApplication.sendEvent(view, QEvent(QEvent.Type.Leave))

    def bring_into_sight(self, widget: QWidget) -> None:
        """Scroll the page to a widget."""
        area = self.panel.pages.currentWidget()
        if area.widget().isAncestorOf(widget):
            area.ensureWidgetVisible(widget)
            self.wait(30)

    def tick(self, box: Any) -> None:
        """Click a check box where its mark is."""
        self.bring_into_sight(box)
        QTest.mouseClick(box, LEFT, pos=QPoint(8, box.height() // 2))
        self.wait(50)

    def step(self, index: int) -> None:
        """Click a step of the header."""
        self.click(self.panel.step_buttons[index])

    def choose(self, combo: QComboBox, words: str) -> None:
        """Choose an entry of a combo box by its first letters, as keys do."""
        index = next(
            i for i in range(combo.count()) if words in combo.itemText(i)
        )  # fmt: skip
        combo.setFocus()
        while combo.currentIndex() != index:
            down = combo.currentIndex() < index
            QTest.keyClick(combo, Qt.Key.Key_Down if down else Qt.Key.Key_Up)
            self.wait(20)

    def type_number(self, box: Any, number: float) -> None:
        """Type into a box of numbers."""
        self.bring_into_sight(box)
        edit = box.findChild(QLineEdit)
        box.setFocus()
        edit.selectAll()
        QTest.keyClicks(edit, f"{number:g}")
        QTest.keyClick(edit, Qt.Key.Key_Return)
        self.wait(50)

    def key(self, name: str, modifier: Any = NO_KEY) -> None:
        """Press a key over the canvas."""
        QTest.keyClick(self.canvas, name, modifier)
        self.wait(50)

    def named(self, page: Any, words: str) -> QAbstractButton:
        """The button of a page with these words."""
        return next(b for b in page.findChildren(QAbstractButton) if b.text() == words)

    def rename(self, index: int, name: str) -> None:
        """Double-click a class and type."""
        tree = self.panel.annotate.classes.tree
        place = tree.visualItemRect(tree.topLevelItem(index)).center()
        button = LEFT
        QTest.mouseClick(tree.viewport(), button, pos=place)
        QTest.mouseDClick(tree.viewport(), button, pos=place)
        self.wait(50)
        self.type_into_editor(name)

    def type_into_editor(self, words: str) -> None:
        """Type into the editor that has opened in the class list."""
        editor = self.panel.annotate.classes.tree.findChild(QLineEdit)
        editor.selectAll()
        QTest.keyClicks(editor, words)
        QTest.keyClick(editor, Qt.Key.Key_Return)
        self.wait(50)

    def close(self) -> None:
        """Close the window as its button does."""
        QTimer.singleShot(0, self.window.close)
        began = time.monotonic()
        import napari

        napari.run()
        self.measured["closed in s"] = round(time.monotonic() - began, 2)

    # ---- drawing

    def drag(self, points: Sequence[QPoint], pause: int = 4) -> None:
        """Move with the button held down."""
        self.enter(True)
        QTest.mouseMove(self.canvas, points[0])
        QTest.mousePress(self.canvas, LEFT, pos=points[0])
        for start, end in itertools.pairwise(points):
            far = (end - start).manhattanLength()
            for share in np.linspace(0, 1, max(2, far // 12))[1:]:
                self._move(start + (end - start) * float(share), pause)
        QTest.mouseRelease(self.canvas, LEFT, pos=points[-1])
        self.wait(60)

    def _move(self, to: QPoint, pause: int) -> None:
        # QTest.mouseMove forgets the button that is held down.
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(to),
            QPointF(self.canvas.mapToGlobal(to)),
            Qt.MouseButton.NoButton,
            LEFT,
            NO_KEY,
        )
        QApplication.sendEvent(self.canvas, event)
        self.wait(pause)

    def stroke(self, outline: Sequence[Point], *, closed: bool = False) -> None:
        """Draw a line with the tool in hand."""
        points = [self.pixel(p) for p in outline]
        self.drag([*points, points[0]] if closed else points)

    def polygon(self, outline: Sequence[Point]) -> None:
        """Click each corner, double-click the last one."""
        self.enter(True)
        points = [self.pixel(p) for p in outline]
        for point in points:
            QTest.mouseMove(self.canvas, point)
            QTest.mouseClick(self.canvas, LEFT, pos=point)
            self.wait(30)
        QTest.mouseDClick(self.canvas, LEFT, pos=points[-1])
        self.wait(60)

    def hover(self, point: Point) -> None:
        """Put the cursor upon a pixel of the slide."""
        self.enter(True)
        place = self.pixel(point)
        QTest.mouseMove(self.canvas, place)
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(place),
            QPointF(self.canvas.mapToGlobal(place)),
            Qt.MouseButton.NoButton,
            Qt.MouseButton.NoButton,
            NO_KEY,
        )
        QApplication.sendEvent(self.canvas, event)
        self.wait(150)

    def wheel(self, notches: int) -> None:
        """Zoom with the wheel in the middle of the canvas."""
        middle = self.canvas.rect().center()
        for _ in range(abs(notches)):
            event = QWheelEvent(
                QPointF(middle),
                QPointF(self.canvas.mapToGlobal(middle)),
                QPoint(0, 0),
                QPoint(0, 120 if notches > 0 else -120),
                Qt.MouseButton.NoButton,
                NO_KEY,
                Qt.ScrollPhase.NoScrollPhase,
                False,
            )
            QApplication.sendEvent(self.canvas, event)
            self.wait(30)

    def pan(self, name: str, seconds: float) -> None:
        """Drag the slide to and fro and measure how long the window hangs."""
        self.viewer.layers.selection.active = self.panel.data.image.layer
        before = np.array(self.viewer.scene.camera.center)
        middle = self.canvas.rect().center()
        moved = 0.0
        end = time.monotonic() + seconds
        with self.heartbeat(name):
            while time.monotonic() < end:
                self.drag([middle, middle + QPoint(90, 55)])
                now = np.array(self.viewer.scene.camera.center)
                moved = max(moved, float(np.abs(now - before).max()))
                self.drag([middle + QPoint(90, 55), middle])
        self.measured[name]["moved"] = round(moved, 1)
        self.viewer.scene.camera.center = tuple(before)


def must(holds: object, said: object) -> None:
    """Fail with what was found instead."""
    if not holds:
        raise AssertionError(said)
