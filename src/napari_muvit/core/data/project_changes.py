"""The fewest changes that make a project file hold what is on screen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .items import Area
from .project import Project

Corners = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do to the items of a project."""

    remove: tuple[int, ...]
    """Ids."""
    replace: Mapping[int, Area]
    """By id; their places in the order stay."""
    add: tuple[Area, ...]
    """Above all others."""


def plan_changes(held: Mapping[int, Area], wanted: Sequence[Area]) -> Changes:
    """Compare what a file holds with what it should hold.

    An item is the same when it is the same object. The order is kept where it matters:
    of two items that overlap, the later one lies above.

    Parameters
    ----------
    held
        Items by id, in the order of the ids.
    wanted
        Items, later ones above earlier ones.
    """
    ids = _matched(held, wanted)
    stay: dict[int, Area] = {}
    moved: list[Area] = []
    over = _Above()
    for item, item_id in zip(wanted, ids, strict=True):
        if item_id is None or over.covers(item, item_id):
            moved.append(item)
            over.add(item, None)
        else:
            stay[item_id] = item
            over.add(item, item_id)
    return Changes(
        tuple(k for k in held if k not in stay),
        {k: v for k, v in stay.items() if held[k] is not v},
        tuple(moved),
    )


def _matched(held: Mapping[int, Area], wanted: Sequence[Area]) -> list[int | None]:
    """Return the id that each wanted item has, or takes over in its place."""
    free: dict[int, list[int]] = defaultdict(list)
    for item_id in reversed(list(held)):
        free[id(held[item_id])].append(item_id)
    found: list[int | None] = []
    for item in wanted:
        same = free.get(id(item))
        found.append(same.pop() if same else None)
    # Where some vanished between the same neighbours, others have taken their place.
    kept = set(found)
    vanished: dict[int, list[int]] = defaultdict(list)
    before = 0
    for item_id in held:
        if item_id in kept:
            before = item_id
        else:
            vanished[before].append(item_id)
    before = 0
    for index, match in enumerate(found):
        if match is not None:
            before = match
        elif vanished[before]:
            found[index] = vanished[before].pop(0)
    return found


class _Above:
    """The items so far, of which some lie above where an older id is."""

    def __init__(self) -> None:
        self._stay: list[tuple[int, Area]] = []
        self._end: list[Area] = []
        self._highest = 0

    def add(self, item: Area, item_id: int | None) -> None:
        """Take the next item in; None: it is put at the end."""
        if item_id is None:
            self._end.append(item)
        else:
            self._stay.append((item_id, item))
            self._highest = max(self._highest, item_id)

    def covers(self, item: Area, item_id: int) -> bool:
        """Whether one that should lie below would lie above."""
        lower, upper = item.lower, item.upper
        rivals: Iterable[Area] = self._end
        if item_id < self._highest:
            rivals = [*self._end, *(v for k, v in self._stay if k > item_id)]
        return any(
            bool((other.lower < upper).all() and (lower < other.upper).all())
            for other in rivals
        )


class MirroredProject:
    """A project file that follows what is on screen.

    Parameters
    ----------
    project
        The open file.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.items: dict[int, Area] = dict(project.items)

    def write(
        self, wanted: Sequence[Area], names: Sequence[str], colors: Sequence[str]
    ) -> bool:
        """Make the file hold these items and classes; whether it was changed.

        All at once, so that a crash never leaves half of it.

        Raises
        ------
        AnnotationError, OutputError
            If it cannot be written; the file is then as it was.
        """
        project, changes = self.project, plan_changes(self.items, wanted)
        named = (tuple(names), tuple(colors))
        same = (project.class_names, project.class_colors) == named
        if same and not (changes.remove or changes.replace or changes.add):
            return False
        ids = project.edit(
            add=changes.add,
            replace=changes.replace,
            remove=changes.remove,
            classes=None if same else named,
        )
        gone = set(changes.remove)
        stay = {k: v for k, v in self.items.items() if k not in gone}
        self.items = {
            **stay, **changes.replace, **dict(zip(ids, changes.add, strict=True))
        }  # fmt: skip
        return True
