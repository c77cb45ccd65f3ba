"""What napari docks: there at once, with the panel inside as soon as it is loaded.

The panel's modules take a second to import, in which the window would stand still.
They are imported in a thread while this widget says so.
"""

from __future__ import annotations

import importlib
import logging
import threading
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

if TYPE_CHECKING:
    import napari.viewer

    from .panel import MuViTPanel

logger = logging.getLogger(__name__)

MINIMUM_WIDTH = 288
_OF_THE_PANEL = frozenset(
    {
        "state", "runner", "data", "annotate", "train", "predict", "pages",
        "step_buttons", "status", "bar", "stop_button", "script_button", "show_step",
        "stop",
    }
)  # fmt: skip


class LoadingPanel(QWidget):
    """Plugins > MuViT.

    Parts of the panel are parts of this widget too; who asks for one waits until the
    panel is there.

    Parameters
    ----------
    napari_viewer
        The viewer; napari passes it by the name of this parameter.
    """

    loaded = Signal()
    _imported = Signal(str)  # why not, or nothing

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.panel: MuViTPanel | None = None
        self._failed = ""
        self.setMinimumWidth(MINIMUM_WIDTH)
        # Otherwise napari adds an empty half below what is here when it is docked.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._said = QLabel("Loading MuViT …")
        self._said.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._said.setWordWrap(True)
        self._layout.addWidget(self._said)
        self._imported.connect(self._on_imported)
        threading.Thread(target=self._import, name="load MuViT", daemon=True).start()

    def _import(self) -> None:
        try:
            importlib.import_module("napari_muvit.widgets.panel")
            # napari reads the manifests of all plugins when it is asked first.
            importlib.import_module("napari_muvit.widgets.settings").read_settings()
        except Exception as error:
            logger.exception("The MuViT panel cannot be loaded.")
            said = f"{type(error).__name__}: {error}"
        else:
            said = ""
        try:
            self._imported.emit(said)
        except RuntimeError:
            logger.debug("Closed before it was loaded.")

    def _on_imported(self, failed: str) -> None:
        self._failed = failed
        if failed:
            self._said.setText(
                f"The panel cannot be loaded ({failed}). Install napari-muvit again "
                "with all it needs, and restart napari."
            )
            return
        self.load()

    def load(self) -> MuViTPanel:
        """Put the panel in, unless it is there; waits for the import."""
        if self.panel is None:
            from .panel import MuViTPanel

            self.panel = MuViTPanel(self.viewer)
            self._layout.removeWidget(self._said)
            self._said.hide()
            self._layout.addWidget(self.panel)
            self.loaded.emit()
        return self.panel

    def __getattr__(self, name: str) -> Any:
        # Only for names that Qt does not know; napari looks for many.
        if name in _OF_THE_PANEL:
            return getattr(self.load(), name)
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def reset_choices(self, event: Any = None) -> None:
        """Follow the viewer's layers; napari calls it when they change."""
        if self.panel is not None:
            self.panel.reset_choices(event)

    def event(self, event: QEvent | None) -> bool:
        """Notice that the dock is closed: napari takes the widget out of it."""
        if (
            event is not None
            and event.type() == QEvent.Type.ParentChange
            and self.panel is not None
        ):
            if self.parentWidget() is None:
                self.panel.let_go()
            else:
                self.panel.come_back()
        return bool(super().event(event))
