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


def type_file(path: Path) -> None:
    """Type a file's name, or choose a folder, in the file dialog that opens next."""

    def act(dialog: QDialog) -> None:
        edit = dialog.findChild(QLineEdit, "fileNameEdit")
        edit.selectAll()
        if path.is_dir():
            # Typed, each key would send the dialog to another folder.
            dialog.setDirectory(str(path))
            edit.clear()
        else:
            QTest.keyClicks(edit, str(path))
        # While the dialog looks at folders, its button opens one of them first. The key
        # Return does nothing where no window manager gives the focus.
        for _ in range(5):
            QTest.qWait(1200)
            if not dialog.isVisible():
                break
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
