"""What the lines of a project file add up to: items, classes, what can be undone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Any
Entry = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Change:
    """An edit or a part of one, with what it takes to undo and redo it."""

    number: int
    """Of its line; the parts of one edit have the same."""
    item_id: int | None
    """Which item; None: the list of classes."""
    before: Json
    """Entry before the edit; None: there was none."""
    after: Json
    """Entry after the edit; None: it was removed."""


@dataclass(eq=False)
class ProjectState:
    """Items and classes at one moment, and the way there.

    Items are kept as they stand in the file, so that old versions of masks take as
    little memory as they take on the disk.
    """

    items: dict[int, Json] = field(default_factory=dict)
    """Entry of each item; items lie over each other in the order of their ids."""
    classes: Json = field(default_factory=lambda: {"names": [], "colors": None})
    """``names`` and ``colors`` of the labels 1..K."""
    done: list[Change] = field(default_factory=list)
    """Edits that can be undone, the last one first to go."""
    undone: list[Change] = field(default_factory=list)
    """Edits that can be redone, the last one first to come back."""
    next_number: int = 0
    """Of the next line."""
    next_id: int = 1

    def apply(self, entry: Entry) -> None:
        """Take one line in.

        Lines that refer to what is not there (because another line is damaged) do as
        much as they can.

        Raises
        ------
        LookupError, TypeError, ValueError
            If it is no line of a project; nothing has changed then.
        """
        number = _whole(entry["n"])
        if number < self.next_number:
            raise ValueError("the lines are out of order")
        operation = entry["op"]
        if operation in ("undo", "redo"):
            self._step(operation, _whole(entry["of"]))
        else:
            edits = entry["edits"] if operation == "batch" else [entry]
            changes = [self._change(number, edit) for edit in edits]
            if len({change.item_id for change in changes}) < len(changes):
                raise ValueError("an item is changed twice at once")
            for change in changes:
                self.next_id = max(self.next_id, (change.item_id or 0) + 1)
                self._set(change, change.after)
            # A compacted file begins with items that cannot be undone.
            if operation != "item":
                self.done += changes
                self.undone.clear()
        self.next_number = number + 1

    def _change(self, number: int, edit: Entry) -> Change:
        operation = edit["op"]
        if operation == "classes":
            after = checked_classes(edit["classes"])
            return Change(number, None, self.classes, after)
        item_id = _whole(edit["id"])
        if operation not in ("item", "add", "replace", "remove"):
            raise ValueError(f"{operation!r} is no operation")
        item = None if operation == "remove" else edit["item"]
        if operation != "remove" and not isinstance(item, dict):
            raise TypeError("an item is missing")
        return Change(number, item_id, self.items.get(item_id), item)

    def _step(self, operation: str, number: int) -> None:
        """Undo or redo the edit of line ``number``, if it is known."""
        back = operation == "undo"
        source, target = (self.done, self.undone) if back else (self.undone, self.done)
        # One edit may have changed many things.
        for change in [c for c in reversed(source) if c.number == number]:
            target.append(change)
            self._set(change, change.before if back else change.after)
        source[:] = [c for c in source if c.number != number]

    def _set(self, change: Change, value: Json) -> None:
        if change.item_id is None:
            self.classes = value
        elif value is None:
            self.items.pop(change.item_id, None)
        else:
            self.items[change.item_id] = value

    def ordered(self) -> dict[int, Json]:
        """Entries of the items in their order."""
        return {k: self.items[k] for k in sorted(self.items)}

    def compacted(self, keep: int) -> tuple[Json, list[Entry]]:
        """Classes, and the fewest lines with which the last ``keep`` edits stay known.

        What can be redone is kept too.
        """
        kept = self.done[-keep:] if keep else []
        base = ProjectState(dict(self.items), self.classes)
        for change in reversed(kept):
            base._set(change, change.before)
        classes, lines = base.classes, list(_lines(base, kept, self.undone[::-1]))
        again = ProjectState(classes=classes)
        for line in lines:
            again.apply(line)
        if (again.items, again.classes) != (self.items, self.classes):
            # Edits with a damaged line between them do not add up.
            bare = ProjectState(self.items, self.classes)
            return self.classes, list(_lines(bare, [], []))
        return classes, lines


def _lines(
    base: ProjectState, done: list[Change], undone: list[Change]
) -> Iterator[Entry]:
    """Lines from a state on: items, edits, and the undoing of the last ones."""
    number = 0
    for item_id, item in base.ordered().items():
        number += 1
        yield {"n": number, "op": "item", "id": item_id, "item": item}
    for group in (*_edits(done), *_edits(undone)):
        number += 1
        parts = [_operation(change) for change in group]
        whole = parts[0] if len(parts) == 1 else {"op": "batch", "edits": parts}
        yield {"n": number, **whole}
    last = number
    for back in range(len(_edits(undone))):
        number += 1
        yield {"n": number, "op": "undo", "of": last - back}


def _edits(changes: list[Change]) -> list[list[Change]]:
    """Changes that are undone together."""
    return [list(g) for _, g in itertools.groupby(changes, key=lambda c: c.number)]


def _operation(change: Change) -> Entry:
    if change.item_id is None:
        return {"op": "classes", "classes": change.after}
    if change.after is None:
        return {"op": "remove", "id": change.item_id}
    operation = "add" if change.before is None else "replace"
    return {"op": operation, "id": change.item_id, "item": change.after}


def checked_classes(classes: Json) -> Json:
    """Return the class list of a line, else raise `TypeError` or `ValueError`."""
    names, colors = classes["names"], classes["colors"]
    for texts in (names, [] if colors is None else colors):
        if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            raise TypeError("class names and colours are texts")
    if colors is not None and len(colors) != len(names):
        raise ValueError("as many colours as names are needed")
    return {"names": names, "colors": colors}


def _whole(value: Json) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no number of a line or an item")
    return value
