"""The slides of the project, with a box each, and buttons to add and keep them."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ..core.data.open import open_pyramid
from ..core.errors import MuvitError
from .places import project_path, result_folder, user_folder
from .slides import SUFFIX, count_regions, file_entry, open_list, put
from .slides import save_list as save_entries
from .state import PanelState
from .ui import button, fit_list, row, text

MAX_ROWS = 6
LISTS = f"Lists of slides (*{SUFFIX});;All files (*)"


class SlideList(QWidget):
    """One row a slide: its name, how much of it is annotated, and whether it counts."""

    said = Signal(str)
    """What went wrong; empty: all is well."""

    def __init__(self, state: PanelState) -> None:
        super().__init__()
        self.state = state
        self._counts: dict[Path, tuple[float, int | None]] = {}
        self.list = QListWidget()
        self.list.setToolTip(
            "Ticked slides are trained on together, each with its own annotations, and "
            "predicted together. Press Delete to take a slide out of the list."
        )
        self.empty = text("None yet: open a slide, or add files.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.empty)
        layout.addWidget(self.list)
        layout.addWidget(
            row(
                button("Add files…", self.add_files, "Add slides that are not open"),
                button("Open list…", self.open_list, "Open a list of slides"),
                button("Save list…", self.save_list, "Keep this list of slides"),
            )
        )
        self.list.itemChanged.connect(self._on_ticked)
        self.show_slides()

    def show_slides(self) -> None:
        """Show the slides of the state, and count their annotations anew."""
        self.list.blockSignals(True)
        self.list.clear()
        for entry in self.state.slides:
            item = QListWidgetItem(f"{entry.name}  ·  {self._regions(entry.project)}")
            item.setFlags(
                Qt.ItemFlag.ItemIsEnabled
                | Qt.ItemFlag.ItemIsUserCheckable
                | Qt.ItemFlag.ItemIsSelectable
            )
            ticked = entry.ticked
            on = Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked
            item.setCheckState(on)
            item.setToolTip(
                f"{entry.path or 'in the viewer only'}\nannotations: {entry.project}"
            )
            self.list.addItem(item)
        self.list.blockSignals(False)
        self.list.setVisible(bool(self.state.slides))
        self.empty.setVisible(not self.state.slides)
        fit_list(self.list, MAX_ROWS)

    def _regions(self, project: Path) -> str:
        """Return how many regions are annotated; read again when the file changes."""
        try:
            stamp = project.stat().st_mtime
        except OSError:
            return "no regions"
        if self._counts.get(project, (0.0, 0))[0] != stamp:
            self._counts[project] = (stamp, count_regions(project))
        count = self._counts[project][1]
        if count is None:
            return "unreadable annotations"
        return "no regions" if not count else f"{count} region{'s'[: count != 1]}"

    def keyPressEvent(self, event: object) -> None:
        """Take the selected slides out of the list; their files stay."""
        if event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):  # type: ignore[attr-defined]
            gone = {self.list.row(item) for item in self.list.selectedItems()}
            slides = enumerate(self.state.slides)
            self.state.slides = [e for k, e in slides if k not in gone]
            self.show_slides()
            return
        super().keyPressEvent(event)  # type: ignore[arg-type]

    def _on_ticked(self, item: QListWidgetItem) -> None:
        index = self.list.row(item)
        ticked = item.checkState() == Qt.CheckState.Checked
        entry = self.state.slides[index]
        self.state.slides[index] = dataclasses.replace(entry, ticked=ticked)

    # ---- files

    def add_files(self) -> None:
        """Let the user pick slides."""
        paths, _ = QFileDialog.getOpenFileNames(self, "Add slides")
        self.add([Path(path) for path in paths])

    def add(self, paths: list[Path]) -> None:
        """Add slides by their files; none is opened before it is its turn."""
        for path in paths:
            # The one file of metadata stands for a folder.
            place = path.parent if path.name in ("zarr.json", ".zattrs") else path
            entry = file_entry(place, _project_of(place))
            self.state.slides = put(self.state.slides, entry)
        self.show_slides()

    def open_list(self) -> None:
        """Let the user pick a list of slides."""
        path, _ = QFileDialog.getOpenFileName(self, "Open a list of slides", "", LISTS)
        if path:
            self.load(Path(path))

    def load(self, path: Path) -> None:
        """Add the slides of a list."""
        try:
            found = open_list(path)
        except MuvitError as error:
            self.said.emit(str(error))
            return
        for entry in found:
            known = [e for e in self.state.slides if e.project == entry.project]
            opened = known[0].opened if known else None
            new = dataclasses.replace(entry, opened=opened)
            self.state.slides = [
                e for e in self.state.slides if e.project != entry.project
            ]
            self.state.slides.append(new)
        missing = [e.name for e in found if e.path is not None and not e.path.exists()]
        self.said.emit(
            f"{', '.join(missing[:5])} cannot be found where the list says; untick "
            "what is gone, or add its file."
            if missing
            else ""
        )
        self.show_slides()

    def save_list(self) -> None:
        """Let the user name a file for the list."""
        path, _ = QFileDialog.getSaveFileName(
            self, "Save the list of slides", f"slides{SUFFIX}", LISTS
        )
        if path:
            self.save(Path(path))

    def save(self, path: Path) -> None:
        """Write the list of slides."""
        if not path.name.endswith(SUFFIX):
            path = path.with_name(path.name.split(".")[0] + SUFFIX)
        try:
            kept = save_entries(self.state.slides, path)
        except MuvitError as error:
            self.said.emit(str(error))
            return
        left = len(self.state.slides) - kept
        self.said.emit(
            "" if not left else f"{left} slide(s) lie in no file and were left out."
        )


def _project_of(path: Path) -> Path:
    """Return where the annotations of a file live."""
    shape: tuple[int, ...] = ()
    if result_folder(path) == user_folder():
        # There the size is part of the name; it costs opening the file.
        with suppress(MuvitError):
            shape = open_pyramid(path).shape
    return project_path(path.name, path, shape)
