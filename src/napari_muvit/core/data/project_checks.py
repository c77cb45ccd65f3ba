"""What a project file is opened with: its lock, a path and a list of classes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import AnnotationError, OutputError
from ..lock import OutputLock
from .project_log import SUFFIX, is_project
from .project_state import Json


@contextlib.contextmanager
def locked(path: Path) -> Iterator[OutputLock]:
    """Take the lock of a project; free it again if what follows fails."""
    try:
        lock = OutputLock(path.with_name(path.name + ".lock"), path)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}."
        ) from error
    try:
        yield lock
    except BaseException:
        lock.release()
        raise


def checked_path(path: str | Path) -> Path:
    """Return a full path that is named like a project, else raise."""
    if not is_project(path):
        raise AnnotationError(
            f"{path} is no name of an annotation project; it must end with {SUFFIX}."
        )
    try:
        # A link stays one when the file is replaced.
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        # A ring of links, or a name that no file can have.
        raise AnnotationError(f"{path} cannot be opened: {error}.") from error


def named_classes(
    names: Sequence[str], colors: Sequence[str] | None, labels: Iterable[int]
) -> Json:
    """Return a list of classes that names all labels, else raise."""
    names = [str(name) for name in names]
    if len({name.strip().lower() for name in names} - {""}) < len(names):
        raise AnnotationError(
            f"The classes {', '.join(names)} cannot be told apart; each needs a name "
            "of its own, upper and lower case being the same."
        )
    if colors is not None and len(colors) != len(names):
        raise AnnotationError(
            f"{len(names)} classes and {len(colors)} colours were given; one colour a "
            "class is needed."
        )
    largest = max(labels, default=0)
    if names and largest > len(names):
        raise AnnotationError(
            f"{len(names)} classes were given, but an item has the class {largest}. "
            "Remove it or give it another class first."
        )
    return {"names": names, "colors": None if colors is None else list(colors)}
