"""The list of known models, with a button that adds a saved one."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QWidget

from ..core.errors import MuvitError
from ..core.model.checkpoint import read_config
from .state import PanelState, SavedModel
from .ui import Combo, button

BROWSE_WIDTH = 32


class ModelChooser(QWidget):
    """Chooses one of the models that the panel knows, or none.

    Parameters
    ----------
    state
        Holds the models; a folder that the user chooses is added there.
    none
        What the list shows for no model.
    optional
        Whether no model is a choice; else it stands there only while none is known.
    tooltip
        Of the list.
    """

    changed = Signal()
    """A model was chosen, or none; it may be the same one, read anew."""
    refused = Signal(str)
    """A folder holds no model that can be read; why not."""

    def __init__(
        self, state: PanelState, none: str, *, optional: bool, tooltip: str
    ) -> None:
        super().__init__()
        self.state = state
        self._none = none
        self._optional = optional
        # What was chosen when it was told last; it may be deleted meanwhile.
        self._before: SavedModel | None = None
        self.combo = Combo(tooltip)
        browse = button("…", self.browse, "Choose the folder of a saved model")
        browse.setMaximumWidth(BROWSE_WIDTH)
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.combo)
        line.addWidget(browse)
        self.show_models()
        self.combo.currentIndexChanged.connect(lambda _index: self._tell())

    @property
    def chosen(self) -> SavedModel | None:
        """The chosen model."""
        path = self.combo.currentData()
        return next((m for m in self.state.models if str(m.path) == path), None)

    def show_models(self, choose: Path | None = None) -> None:
        """Offer the known models; ``choose`` makes one the current one."""
        before = self._before
        wanted = str(choose) if choose else self.combo.currentData()
        self.combo.blockSignals(True)
        self.combo.clear()
        if self._optional or not self.state.models:
            self.combo.addItem(self._none, None)
        for model in self.state.models:
            self.combo.addItem(model.title, str(model.path))
        self.combo.setCurrentIndex(max(0, self.combo.findData(wanted)))
        self.combo.blockSignals(False)
        if choose is not None or self.chosen != before:
            self._tell()

    def _tell(self) -> None:
        self._before = self.chosen
        self.changed.emit()

    def choose(self, model: SavedModel | None) -> None:
        """Show the known models, and choose one of them, or none."""
        self.show_models()
        found = self.combo.findData(None if model is None else str(model.path))
        if found >= 0:
            self.combo.setCurrentIndex(found)

    def browse(self) -> None:
        """Let the user pick the folder of a saved model."""
        folder = QFileDialog.getExistingDirectory(self, "Folder of a saved model")
        if folder:
            self.use(Path(folder))

    def use(self, folder: Path) -> None:
        """Add the model in ``folder`` and choose it."""
        try:
            config = read_config(folder)
        except MuvitError as error:
            self.refused.emit(str(error))
            return
        known = {m.path: m.title for m in self.state.models}
        title = known.get(folder, folder.name)
        self.state.remember(SavedModel(folder, config, title))
        self.show_models(folder)
