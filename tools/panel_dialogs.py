"""What to do in the dialogs that a session opens. They block until they are closed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QDialogButtonBox,
    QLineEdit,
    QRadioButton,
)

LEFT = Qt.MouseButton.LeftButton
LOOK_MS = 50
PATIENCE = 20.0
"""Seconds until no dialog is expected any more: none need come."""


def in_dialog(act: Callable[[QDialog], None]) -> None:
    """Do something with the dialog that opens next."""
    deadline = time.monotonic() + PATIENCE

    def look() -> None:
        dialog = QApplication.activeModalWidget()
        if dialog is not None:
            act(dialog)
        elif time.monotonic() < deadline:
            QTimer.singleShot(LOOK_MS, look)

    QTimer.singleShot(LOOK_MS, look)


def choose_file(path: Path) -> None:
    """Choose a file or a folder in the file dialog that opens next.

    Typing is not to be relied on: without a window manager that gives the focus, the
    dialog completes and changes folders while the keys arrive.
    """

    def act(dialog: QDialog) -> None:
        if path.is_dir():
            dialog.setDirectory(str(path))
            dialog.findChild(QLineEdit, "fileNameEdit").clear()
        else:
            dialog.selectFile(str(path))
        for _ in range(3):
            QTest.qWait(800)
            if dialog.isVisible():
                press_accept(dialog)

    in_dialog(act)


def choose_reader(words: str) -> None:
    """Choose a reader in the dialog that asks for one, if it comes."""

    def act(dialog: QDialog) -> None:
        found = [b for b in dialog.findChildren(QRadioButton) if words in b.text()]
        QTest.mouseClick(found[0], LEFT, pos=QPoint(8, found[0].height() // 2))
        press_accept(dialog)

    in_dialog(act)


def press_accept(dialog: QDialog) -> None:
    """Click OK, Save, Open or Choose."""
    box = dialog.findChild(QDialogButtonBox)
    accept = QDialogButtonBox.ButtonRole.AcceptRole
    (button,) = [b for b in box.buttons() if box.buttonRole(b) == accept]
    QTest.mouseClick(button, LEFT)
