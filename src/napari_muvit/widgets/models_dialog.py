"""My models: a window with the list, what is known of each, and what can be done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from qtpy.QtCore import QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QHBoxLayout,
    QInputDialog,
    QListWidget,
    QMessageBox,
    QVBoxLayout,
    QWidget,
)

from ..core.errors import MuvitError
from .model_card import card
from .model_library import KnownModel, ModelLibrary
from .ui import Warning_, button, row, text

SIZE = (640, 420)


class ModelsDialog(QDialog):
    """Choose, rename, delete and import models.

    Parameters
    ----------
    library
        Where they are remembered.
    parent
        The window that it stands upon.
    """

    used = Signal(object)
    """`Path` of the model that is wanted."""
    edited = Signal()
    """A model was renamed, deleted or imported."""
    _copied = Signal(object, str)

    def __init__(self, library: ModelLibrary, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.library = library
        self.models: list[KnownModel] = []
        self.setWindowTitle("My models")
        self.resize(*SIZE)
        self.list = QListWidget()
        self.list.setToolTip("The newest model comes first.")
        self.card = text()
        self.problem = Warning_()
        self.list.currentRowChanged.connect(self._on_row)
        self.list.itemDoubleClicked.connect(lambda _item: self.use())
        self._copied.connect(self._on_copied)
        self._lay_out()
        self.show_models()

    def _lay_out(self) -> None:
        self.use_button = button("Use", self.use, "Start from and predict with it")
        self.rename_button = button("Rename…", self.rename, "Give it another name")
        self.delete_button = button("Delete…", self.delete, "Delete its folder")
        self.open_button = button("Open folder", self.open_folder, "Show its files")
        self.import_button = button(
            "Import…", self.choose_import, "Copy a model folder into your own folder"
        )
        side = QWidget()
        right = QVBoxLayout(side)
        right.setContentsMargins(0, 0, 0, 0)
        right.addWidget(self.card)
        right.addStretch(1)
        right.addWidget(self.problem)
        right.addWidget(row(self.use_button, self.rename_button))
        right.addWidget(row(self.open_button, self.delete_button))
        line = QHBoxLayout()
        left = QVBoxLayout()
        left.addWidget(self.list)
        left.addWidget(self.import_button)
        line.addLayout(left, 1)
        line.addWidget(side, 1)
        closing = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        closing.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addLayout(line)
        layout.addWidget(closing)

    @property
    def chosen(self) -> KnownModel | None:
        """The model in the list that is looked at."""
        index = self.list.currentRow()
        return self.models[index] if 0 <= index < len(self.models) else None

    def show_models(self, choose: Path | None = None) -> None:
        """Show the models that are there now."""
        before = self.chosen
        wanted = choose or (None if before is None else before.path)
        self.models = self.library.models()
        self.list.blockSignals(True)
        self.list.clear()
        self.list.addItems([model.title for model in self.models])
        self.list.blockSignals(False)
        paths = [model.path for model in self.models]
        at = paths.index(wanted) if wanted in paths else 0
        self.list.setCurrentRow(at if paths else -1)
        self._on_row(self.list.currentRow())

    def _on_row(self, _row: int) -> None:
        model = self.chosen
        for made in (self.rename_button, self.delete_button, self.open_button):
            made.setEnabled(model is not None)
        self.use_button.setEnabled(model is not None and model.segments)
        self.problem.say("")
        if model is None:
            self.card.setText(
                "No model yet. Train one on page 3, or import a model folder."
            )
            return
        self.card.setText(f"{card(model)}<br><br>{model.path}")

    # ---- what can be done

    def use(self) -> None:
        """Choose the model in the panel."""
        model = self.chosen
        if model is not None and model.segments:
            self.used.emit(model.path)
            self.accept()

    def rename(self) -> None:
        """Ask for another name."""
        model = self.chosen
        if model is None:
            return
        name, wanted = QInputDialog.getText(
            self, "Rename the model", "Name in the list:", text=model.title
        )
        if wanted and name.strip():
            self._try(lambda: self.library.rename(model.path, name))

    def delete(self) -> None:
        """Ask, then delete the model's folder."""
        model = self.chosen
        if model is None:
            return
        answer = QMessageBox.question(
            self,
            "Delete the model",
            f"Delete {model.title}?\n\nIts folder {model.path} is removed from the "
            "disk. This cannot be undone.",
        )
        if answer == QMessageBox.StandardButton.Yes:
            self._try(lambda: self.library.delete(model.path))

    def open_folder(self) -> None:
        """Show the model's files in the system's file manager."""
        model = self.chosen
        if model is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(model.path)))

    def choose_import(self) -> None:
        """Let the user pick a model folder, and copy it."""
        folder = QFileDialog.getExistingDirectory(self, "Folder of a saved model")
        if folder:
            self.import_model(Path(folder))

    def import_model(self, folder: Path) -> None:
        """Copy a model folder in the background; weights may be large."""
        self.import_button.setEnabled(False)
        self.problem.say("Copying …")
        threading.Thread(target=self._copy, args=(folder,), daemon=True).start()

    def _copy(self, folder: Path) -> None:
        made, said = None, ""
        try:
            made = self.library.import_copy(folder)
        except MuvitError as error:
            said = str(error)
        with suppress(RuntimeError):  # the window was closed meanwhile
            self._copied.emit(made, said)

    def _on_copied(self, made: Path | None, said: str) -> None:
        self.import_button.setEnabled(True)
        if made is not None:
            self.show_models(made)
            self.edited.emit()
        self.problem.say(said)

    def _try(self, action: Callable[[], object]) -> None:
        """Do something with the library; a mistake is one sentence."""
        try:
            action()
        except MuvitError as error:
            self.problem.say(str(error))
            return
        self.show_models()
        self.edited.emit()
