"""Annotations of one slide as one file on disk that is always up to date.

Each call that changes something adds a line to the file and returns when the line is
on the disk. A line that a kill has cut off is left out, a damaged one too; everything
else stays. What was done can be undone, also after the file was closed.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from ..errors import AnnotationError, OutputError
from ..lock import OutputLock
from .annotations import Annotations
from .areas import checked_pair
from .item_json import Json, decode_items, encode_item
from .items import Area
from .project_checks import checked_path, locked, named_classes
from .project_file import AppendedFile, keep_copy, write_whole
from .project_log import (
    Header,
    ProjectLog,
    check_there,
    read_log,
    whole_lines,
    write_line,
)
from .project_state import Change, ProjectState

KEPT_EDITS = 500
"""Edits that can be undone after the file was compacted."""


class Project:
    """The one writer of a project file; `create` or `open` gives it.

    Use it in a ``with`` block, or `close` it, so that others can write the file.
    """

    def __init__(self, path: Path, lock: OutputLock, log: ProjectLog) -> None:
        self.path = path
        self._lock = lock
        self._release = weakref.finalize(self, lock.release)
        self._decoded: dict[int, tuple[Json, Area]] = {}
        self._take(log)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        slide: str = "",
        pixel_size: Sequence[float] | None = None,
        unit: str = "micrometer",
        shape: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        class_colors: Sequence[str] | None = None,
    ) -> Self:
        """Make a new file.

        Parameters
        ----------
        path
            Its name ends with ``.muvit.jsonl``; nothing may be there yet.
        slide
            Name of the slide.
        pixel_size, unit
            Physical edge (y, x) of its finest pixel; None: unknown.
        shape
            Its pixels (height, width), in which the items lie; None: unknown.
        class_names, class_colors
            Of the labels 1..K; colours as ``#rrggbb``.

        Raises
        ------
        OutputError
            If something is there, another writer is at work, or it cannot be written.
        AnnotationError
            If names, colours or sizes are wrong.
        """
        path = checked_path(path)
        size = (
            None if pixel_size is None else checked_pair(pixel_size, "The pixel size")
        )
        classes = named_classes(class_names, class_colors, ())
        with locked(path) as lock:
            if path.exists():
                raise OutputError(f"{path} exists already; open it, or choose another.")
            extent = None if shape is None else (int(shape[0]), int(shape[1]))
            header = Header(str(slide), size, unit, extent).entry(classes)
            write_whole(path, [write_line(header)])
            return cls(path, lock, read_log(path))

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a file for writing. It is not changed before something is written.

        Raises
        ------
        ImageNotFoundError
            If there is no file.
        AnnotationError
            If it is no project file.
        OutputError
            If another writer has it open.
        """
        path = checked_path(path)
        check_there(path)
        with locked(path) as lock:
            project = cls(path, lock, read_log(path))
            # What cannot be decoded is refused now.
            project.annotations()
            return project

    def _take(self, log: ProjectLog) -> None:
        self._log = log
        self._state: ProjectState = log.state
        self._file = AppendedFile(self.path, log.end, log.size)

    def close(self) -> None:
        """Let others write the file; calling it again does nothing."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def note(self) -> str:
        """What was left out on opening; empty when the file was whole."""
        return self._log.note

    @property
    def slide(self) -> str:
        """Name of the slide."""
        return self._log.header.slide

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """Physical edge (y, x) of the slide's finest pixel; None: unknown."""
        return self._log.header.pixel_size

    @property
    def shape(self) -> tuple[int, int] | None:
        """Pixels of the slide (height, width); None: unknown."""
        return self._log.header.shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels 1..K."""
        return tuple(self._state.classes["names"])

    @property
    def class_colors(self) -> tuple[str, ...] | None:
        """Colours of the labels 1..K as ``#rrggbb``."""
        colors = self._state.classes["colors"]
        return None if colors is None else tuple(colors)

    @property
    def items(self) -> Mapping[int, Area]:
        """Items by id, in the order in which they were added."""
        entries = self._state.ordered()
        missing = [
            k for k, v in entries.items() if self._decoded.get(k, (None,))[0] is not v
        ]
        kept = {k: v for k, v in self._decoded.items() if k in entries}
        try:
            found = decode_items([entries[k] for k in missing])
        except AnnotationError as error:
            raise AnnotationError(f"{self.path}: {error}") from error
        new = {k: (entries[k], v) for k, v in zip(missing, found, strict=True)}
        self._decoded = {**kept, **new}
        return {k: self._decoded[k][1] for k in entries}

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to undo."""
        return bool(self._state.done)

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone edit to do again."""
        return bool(self._state.undone)

    def annotations(self) -> Annotations:
        """Everything that is marked: regions below, later items over earlier ones."""
        return Annotations(
            tuple(self.items.values()),
            self.class_names or None,
            self.class_colors,
            note=f"{self.path.name}: {self.note}" if self.note else "",
        )

    def add(self, item: Area) -> int:
        """Add an item above all others and return its id.

        Raises
        ------
        AnnotationError
            If it is a label image, or its class is not in the list of classes.
        OutputError
            If it cannot be written; nothing has changed then.
        """
        return self.extend([item])[0]

    def extend(self, items: Iterable[Area]) -> list[int]:
        """Add many items at once, each to be undone by itself; see `add`."""
        entries = [self._encoded(item) for item in items]
        ids = list(range(self._state.next_id, self._state.next_id + len(entries)))
        self._write(
            {"op": "add", "id": k, "item": v} for k, v in zip(ids, entries, strict=True)
        )
        return ids

    def replace(self, item_id: int, item: Area) -> None:
        """Put another item in the place of one; see `add`."""
        self._check_there(item_id)
        self._write([{"op": "replace", "id": item_id, "item": self._encoded(item)}])

    def remove(self, item_id: int) -> None:
        """Remove an item; see `add`."""
        self._check_there(item_id)
        self._write([{"op": "remove", "id": item_id}])

    def set_classes(
        self, names: Sequence[str], colors: Sequence[str] | None = None
    ) -> None:
        """Name the labels 1..K anew. Items keep their labels.

        Raises
        ------
        AnnotationError
            If an item has a label that the list would not name.
        OutputError
            If it cannot be written; nothing has changed then.
        """
        labels = [item.label for item in self.items.values()]
        classes = named_classes(names, colors, labels)
        self._write([{"op": "classes", "classes": classes}])

    def edit(
        self,
        *,
        add: Sequence[Area] = (),
        replace: Mapping[int, Area] | None = None,
        remove: Iterable[int] = (),
        classes: tuple[Sequence[str], Sequence[str] | None] | None = None,
    ) -> list[int]:
        """Change many things at once: all or nothing, and one edit to undo.

        Parameters
        ----------
        add
            Items to add above all others.
        replace, remove
            Items by id; no id in both.
        classes
            New names and colours of the labels 1..K; None: they stay.

        Returns
        -------
        list of int
            The ids of the added items.

        Raises
        ------
        AnnotationError, OutputError
            As `add`, `remove` and `set_classes` do; nothing has changed then.
        """
        replace, remove = dict(replace or {}), list(dict.fromkeys(remove))
        for item_id in (*replace, *remove):
            self._check_there(item_id)
        if not replace.keys().isdisjoint(remove):
            raise AnnotationError("An item cannot be replaced and removed at once.")
        names = self.class_names if classes is None else classes[0]
        edits: list[dict[str, Json]] = [{"op": "remove", "id": k} for k in remove]
        for k, item in replace.items():
            entry = self._encoded(item, len(names))
            edits.append({"op": "replace", "id": k, "item": entry})
        ids = list(range(self._state.next_id, self._state.next_id + len(add)))
        for k, item in zip(ids, add, strict=True):
            entry = self._encoded(item, len(names))
            edits.append({"op": "add", "id": k, "item": entry})
        if classes is not None:
            gone = {*replace, *remove}
            kept = [v["label"] for k, v in self._state.items.items() if k not in gone]
            new = named_classes(names, classes[1], kept)
            edits.append({"op": "classes", "classes": new})
        if edits:
            self._write(edits if len(edits) == 1 else [{"op": "batch", "edits": edits}])
        return ids

    def undo(self) -> bool:
        """Take the last edit back; whether there was one."""
        return self._step("undo", self._state.done)

    def redo(self) -> bool:
        """Do the edit again that was undone last; whether there was one."""
        return self._step("redo", self._state.undone)

    def compact(self, keep: int = KEPT_EDITS) -> None:
        """Write the file anew without its old history.

        It happens by itself when the history is twice as long.

        Parameters
        ----------
        keep
            Edits that can still be undone afterwards.

        Raises
        ------
        OutputError
            If it cannot be written; the file is then as it was.
        """
        self._check_open()
        self._file.check()
        if self._log.damaged:
            keep_copy(self.path)
        next_id = self._state.next_id
        classes, entries = self._state.compacted(keep)
        header = self._log.header.entry(classes)
        write_whole(self.path, (write_line(entry) for entry in (header, *entries)))
        self._take(read_log(self.path))
        # An id that was removed is not given again while the file is open.
        self._state.next_id = next_id

    def _step(self, operation: str, changes: list[Change]) -> bool:
        if not changes:
            return False
        self._write([{"op": operation, "of": changes[-1].number}])
        return True

    def _encoded(self, item: object, count: int | None = None) -> Json:
        if not isinstance(item, Area):
            raise AnnotationError(
                f"A project file cannot hold {type(item).__name__}; an area is needed. "
                "A label image is a file of its own."
            )
        count = len(self.class_names) if count is None else count
        if count and item.label > count:
            raise AnnotationError(
                f"The item has the class {item.label}, but the project has only "
                f"{count} classes. Add the class first."
            )
        return encode_item(item)

    def _check_there(self, item_id: int) -> None:
        if item_id not in self._state.items:
            raise AnnotationError(f"{self.path} has no item of the id {item_id!r}.")

    def _check_open(self) -> None:
        if not self._release.alive:
            raise OutputError(f"{self.path} was closed; open it again to change it.")

    def _write(self, operations: Iterable[Mapping[str, Json]]) -> None:
        """Write lines to the disk, then take them in."""
        self._check_open()
        self._repair()
        start = self._state.next_number
        entries = [{"n": n, **op} for n, op in enumerate(operations, start)]
        self._file.append(b"".join(write_line(entry) for entry in entries))
        for entry in entries:
            self._state.apply(entry)
        if len(self._state.done) + len(self._state.undone) >= 2 * KEPT_EDITS:
            # The edits are safe already: that it can wait is no failure.
            with contextlib.suppress(OutputError):
                self.compact(KEPT_EDITS)

    def _repair(self) -> None:
        """Before the first write: keep a copy of a damaged file, drop its bad lines."""
        log = self._log
        if log.has_header and not log.damaged:
            return
        self._file.check()
        if log.damaged:
            keep_copy(self.path)
        lines = [
            line
            for number, (line, _) in enumerate(whole_lines(self.path), start=1)
            if number not in log.damaged
        ]
        if not log.has_header:
            lines.insert(0, write_line(log.header.entry(ProjectState().classes)))
        write_whole(self.path, lines)
        self._take(read_log(self.path))
