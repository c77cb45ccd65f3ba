"""Annotations go to their project file by themselves, in one thread of their own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Signal

from ..core.data.items import Area
from ..core.data.named_labels import read_project
from ..core.data.project import Project
from ..core.data.project_changes import MirroredProject
from ..core.errors import AnnotationError, MuvitError, OutputBusyError, OutputError

logger = logging.getLogger(__name__)
CLOSE_SECONDS = 5.0
"""A disk that does not answer holds napari up no longer."""


@dataclass(frozen=True, slots=True, eq=False)
class SlideIdentity:
    """What is written into a new file about its slide."""

    name: str
    shape: tuple[int, int]
    """Pixels (height, width)."""
    pixel_size: tuple[float, float] | None = None
    """Micrometres (y, x)."""


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What is, or should be, in the file."""

    items: tuple[Area, ...] = ()
    names: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()
    note: str = ""
    """What was left out on reading."""


class Autosave(QObject):
    """Keeps one project file equal to what was given last.

    All reading and writing is done in order by one thread, which Python waits for
    before it ends.

    Parameters
    ----------
    path
        The file; it is made when there is something to keep.
    slide
        What the annotations are of.
    shared
        A file that is read where there is none at ``path`` yet, and never written.
    """

    opened = Signal(object)
    """`Content` of the file."""
    failed = Signal(str)
    """In a sentence, why nothing is kept; empty when all is well again."""
    saved = Signal(int)
    """Items that the file holds now."""

    def __init__(
        self, path: Path, slide: SlideIdentity, shared: Path | None = None
    ) -> None:
        super().__init__()
        self.path = path
        self._shared = shared
        self._slide = slide
        self._worker = ThreadPoolExecutor(1, "muvit-autosave")
        self._mirror: MirroredProject | None = None
        self._next: Content | None = None
        self._blocked = self._failed = False

    @property
    def blocked(self) -> bool:
        """Whether the file may not be touched: opening it again may help."""
        return self._blocked

    def open(self) -> None:
        """Read the file; `opened` or `failed` tells what came of it."""
        self._submit(self._open)

    def save(self, content: Content) -> None:
        """Write what differs, in the background; only the last of many is written."""
        self._next = content
        self._submit(self._save)

    def flush(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Wait until all is on the disk; whether it is."""
        return self._wait(self._submit(lambda: None), seconds)

    def close(self) -> None:
        """Write what is left and let others have the file."""
        done = self._submit(self._close)
        self._worker.shutdown(wait=False)
        self._wait(done, CLOSE_SECONDS)

    def _submit(self, task: Callable[[], None]) -> Future[None] | None:
        with contextlib.suppress(RuntimeError):  # it is closed
            return self._worker.submit(self._guarded, task)
        return None

    @staticmethod
    def _wait(done: Future[None] | None, seconds: float) -> bool:
        try:
            if done is not None:
                done.result(seconds)
        except FutureTimeoutError:
            return False
        return True

    def _guarded(self, task: Callable[[], None]) -> None:
        """Run a task; what goes wrong is said once, and drawing goes on."""
        try:
            task()
        except (MuvitError, OSError) as error:
            self._failed = True
            self._emit(self.failed, self._words(error))
        except Exception:
            logger.exception("%s could not be kept.", self.path)
            self._failed = True
            self._emit(
                self.failed,
                f"{self.path.name} could not be written, by a mistake of this program. "
                "What you draw is not saved; export it as GeoJSON.",
            )

    def _words(self, error: Exception) -> str:
        if isinstance(error, OutputBusyError):
            return (
                f"{self.path.name} is open in another napari. What you draw here is "
                "not saved; close it there, then press Open again."
            )
        ending = " Press Open again then." if self._blocked else ""
        return f"What you draw is not saved. {error}{ending}"

    @staticmethod
    def _emit(signal: Any, *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the panel is gone
            signal.emit(*values)

    # ---- in the thread

    def _open(self) -> None:
        self._let_go()
        self._blocked = True
        if not self.path.exists():
            content = Content() if self._shared is None else _read(self._shared)
            self._blocked = False
            self._emit(self.opened, content)
            return
        project = Project.open(self.path)
        try:
            self._check_slide(project)
            mirror = MirroredProject(project)
        except BaseException:
            project.close()
            raise
        self._mirror, self._blocked = mirror, False
        self._emit(
            self.opened,
            Content(
                tuple(mirror.items.values()),
                project.class_names,
                project.class_colors or (),
                project.note,
            ),
        )

    def _check_slide(self, project: Project) -> None:
        own = self._slide.shape
        if project.shape is None or project.shape == own:
            return
        height, width = project.shape
        raise AnnotationError(
            f"{self.path.name} belongs to another image: it was drawn on {width} x "
            f"{height} pixels, this one has {own[1]} x {own[0]}. Move the file away."
        )

    def _save(self) -> None:
        content, self._next = self._next, None
        if content is None or self._blocked:
            return
        try:
            if self._mirror is None:
                if not content.items:
                    return
                self._mirror = self._create(content)
            written = self._mirror.write(content.items, content.names, content.colors)
        except BaseException:
            if self._next is None:
                self._next = content  # with the next stroke, or on closing
            raise
        if self._failed:
            self._failed = False
            self._emit(self.failed, "")
        if written:
            self._emit(self.saved, len(content.items))

    def _create(self, content: Content) -> MirroredProject:
        if self.path.exists():
            self._blocked = True
            raise OutputError(f"{self.path.name} was made by another napari meanwhile.")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        project = Project.create(
            self.path,
            slide=self._slide.name,
            pixel_size=self._slide.pixel_size,
            shape=self._slide.shape,
            class_names=content.names,
            class_colors=content.colors,
        )
        return MirroredProject(project)

    def _close(self) -> None:
        try:
            self._save()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._mirror is not None:
            self._mirror.project.close()
        self._mirror = None


def _read(path: Path) -> Content:
    """Return what a file holds that others may be writing."""
    found = read_project(path)
    colors = tuple(found.colors.get(name, "") for name in found.class_names)
    note = "It cannot be written, so it is kept in your own folder from now on."
    return Content(
        found.items,
        found.class_names,
        colors if all(colors) else (),
        " ".join(filter(None, [found.note, note])),
    )
