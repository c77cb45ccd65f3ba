"""The model on the Data page: a new one or a saved one, and what is known of it."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QObject, Signal

from ..core.errors import MuvitError
from .model_card import card
from .model_chooser import ModelChooser
from .model_library import read_model
from .models_dialog import ModelsDialog
from .state import PanelState, SavedModel
from .ui import button, text

NEW_MODEL = "a new model"


class ModelPart(QObject):
    """A chooser, its card, and a button for the window of all models.

    The page places them.
    """

    chosen = Signal(object)
    """`SavedModel`, or None for a new one."""
    edited = Signal()
    """The list of models has changed."""
    refused = Signal(str)
    """A folder holds no model; why not."""

    def __init__(self, state: PanelState) -> None:
        super().__init__()
        self.state = state
        self.chooser = ModelChooser(
            state,
            NEW_MODEL,
            optional=True,
            tooltip="The model to start from and to predict with. A folder may also be "
            "dropped upon this page.",
        )
        self.card = text()
        self._carded: SavedModel | None = None
        self.all_button = button(
            "My models…", self.open_all, "Rename, delete, import and look at models"
        )
        self.chooser.changed.connect(self._on_changed)
        self.chooser.refused.connect(self.refused)
        self._show_card()

    @property
    def model(self) -> SavedModel | None:
        """The chosen model; None: a new one."""
        return self.chooser.chosen

    def show_models(self) -> None:
        """Show the list, and what the other pages have chosen, without telling them."""
        self.chooser.blockSignals(True)
        self.chooser.choose(self.state.start)
        self.chooser.blockSignals(False)
        self._show_card()

    def use(self, folder: Path) -> None:
        """Add a model by its folder, and choose it."""
        self.chooser.use(folder)

    def _on_changed(self) -> None:
        self._show_card()
        self.chosen.emit(self.model)

    def _show_card(self) -> None:
        model = self.model
        self.card.setVisible(model is not None)
        if model is None or model == self._carded:
            return  # nothing is read from the disk again
        self._carded = model
        try:
            self.card.setText(card(read_model(model.path), short=True))
        except MuvitError as error:
            self.card.setText(str(error))

    def open_all(self) -> None:
        """Open the window of all models."""
        if self.state.library is None:
            return
        dialog = ModelsDialog(self.state.library, self.all_button)
        dialog.used.connect(self.use)
        dialog.edited.connect(self._on_edited)
        dialog.exec()
        dialog.deleteLater()

    def _on_edited(self) -> None:
        self.state.load_models()
        self.chooser.show_models()  # tells the others where the chosen one is gone
        self.edited.emit()
