"""Outlines from and to GeoJSON files: two buttons, and how classes of a file fit in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari.utils.notifications import show_error, show_info
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from ..core.config import BACKGROUND_COLOR
from ..core.data.geojson import BACKGROUND, GeoJson
from ..core.errors import MuvitError
from .state import PanelState
from .ui import button, row

FILTER = "GeoJSON (*.geojson *.json)"
SUFFIX = ".geojson"
FileAction = Callable[[Path], str]
"""Does something with a file and says what; raises `MuvitError`."""


class OutlineFiles(QWidget):
    """Asks for a file to read or write; a mistake is one notification."""

    def __init__(self, read: FileAction, write: FileAction) -> None:
        super().__init__()
        self._read, self._write = read, write
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(
            row(
                button(
                    "Import…",
                    self.choose_import,
                    "Add the outlines of a GeoJSON file, such as QuPath writes",
                ),
                button(
                    "Export…",
                    self.choose_export,
                    "Write outlined or painted regions as GeoJSON, which QuPath reads",
                ),
            )
        )

    def choose_import(self) -> None:
        """Let the user pick a file and read it."""
        path, _ = QFileDialog.getOpenFileName(self, "Import outlines", "", FILTER)
        if path:
            _report(self._read, Path(path))

    def choose_export(self) -> None:
        """Let the user name a file and write it."""
        path, _ = QFileDialog.getSaveFileName(
            self, "Export outlines", f"annotations{SUFFIX}", FILTER
        )
        if path:
            named = Path(path)
            _report(self._write, named if named.suffix else named.with_suffix(SUFFIX))


def _report(action: FileAction, path: Path) -> None:
    try:
        said = action(path)
    except MuvitError as error:
        show_error(str(error))
    else:
        show_info(said)


def take_classes(state: PanelState, file: GeoJson, *, replace: bool) -> list[str]:
    """Add the classes of a file to the list, and name each outline's class.

    Parameters
    ----------
    state
        Its classes are changed; one that is there keeps its name and colour.
    file
        Names are the same in upper and lower case.
    replace
        Whether the classes that are there may go.

    Returns
    -------
    list of str
        One name an outline; names that end with ``*`` stay as they are.
    """
    current = state.current_name
    if replace and file.class_names:
        state.classes.clear()
    colors = {BACKGROUND: BACKGROUND_COLOR}
    colors |= {name.lower(): color for name, color in file.colors.items()}
    known = {name.lower(): name for name in state.names}
    for name in file.class_names:
        if name.lower() not in known:
            known[name.lower()] = name
            state.add_class(name, colors.get(name.lower()))
    if current in state.names:
        state.current = state.names.index(current)
    return [known.get(o.class_name.lower(), o.class_name) for o in file.outlines]
