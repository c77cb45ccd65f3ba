"""What the lines of a project file add up to: items, classes, what can be undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Any
Entry = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Change:
    """One edit, with what it takes to undo and redo it."""

    number: int
    """Of its line."""
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
        elif operation == "classes":
            after = checked_classes(entry["classes"])
            self._do(Change(number, None, self.classes, after))
        else:
            self._edit(operation, number, entry)
        self.next_number = number + 1

    def _edit(self, operation: Json, number: int, entry: Entry) -> None:
        item_id = _whole(entry["id"])
        if operation not in ("item", "add", "replace", "remove"):
            raise ValueError(f"{operation!r} is no operation")
        after = None if operation == "remove" else entry["item"]
        if operation != "remove" and not isinstance(after, dict):
            raise TypeError("an item is missing")
        self.next_id = max(self.next_id, item_id + 1)
        change = Change(number, item_id, self.items.get(item_id), after)
        # A compacted file begins with items that cannot be undone.
        if operation == "item":
            self._set(change, after)
        else:
            self._do(change)

    def _do(self, change: Change) -> None:
        self._set(change, change.after)
        self.done.append(change)
        self.undone.clear()

    def _step(self, operation: str, number: int) -> None:
        """Undo or redo the edit of line ``number``, if it is known."""
        back = operation == "undo"
        source, target = (self.done, self.undone) if back else (self.undone, self.done)
        # It is the last one, unless a line between is damaged.
        for index in reversed(range(len(source))):
            if source[index].number == number:
                change = source.pop(index)
                target.append(change)
                self._set(change, change.before if back else change.after)
                return

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
    for change in [*done, *undone]:
        number += 1
        yield {"n": number, **_operation(change)}
    last = number
    for back in range(len(undone)):
        number += 1
        yield {"n": number, "op": "undo", "of": last - back}


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
