"""What a project file holds, fitted to the panel's list of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.data.brush_mask import BrushMask
from ..core.data.items import Area, Region, relabelled
from .autosave import Content
from .state import PanelState


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Items by where they are shown."""

    outlines: list[Area]
    """In the Shapes layer."""
    masks: list[BrushMask]
    """In painted layers."""
    others: list[Area]
    """Nowhere, such as a mask that takes away; they are kept as they are."""


def class_names(content: Content) -> tuple[str, ...]:
    """Return a name for each label of a file; some number their classes only."""
    largest = max((item.label for item in content.items), default=0)
    missing = range(len(content.names) + 1, largest + 1)
    return (*content.names, *(f"class {k}" for k in missing))


def take_classes(state: PanelState, content: Content) -> bool:
    """Add the classes of a file to the list, which they replace if it is untouched.

    Names are the same in upper and lower case, and keep the colour that they have.

    Returns
    -------
    bool
        Whether the list counts as made by the user now.
    """
    names = class_names(content)
    colors = dict(zip(content.names, content.colors, strict=False))
    current = state.current
    if not state.touched and len(names) > 1:
        state.classes.clear()
    known = {name.lower() for name in state.names}
    for name in names:
        if name.lower() not in known:
            state.add_class(name, colors.get(name))
    state.current = max(0, min(current, len(state.classes) - 1))
    return True


def split_items(content: Content, names: Sequence[str]) -> Parts:
    """Give items the labels of the panel's classes, and sort them by where they go.

    Parameters
    ----------
    content
        Of the file.
    names
        The panel's classes, in label order; all of the file's are among them.
    """
    known = {name.lower(): label for label, name in enumerate(names, start=1)}
    labels = [known[name.lower()] for name in class_names(content)]

    def label(old: int) -> int:
        return labels[old - 1]

    parts = Parts([], [], [])
    for given in content.items:
        # One that keeps its label stays the same object, so it is not written again.
        keeps = not given.label or label(given.label) == given.label
        item = given if keeps else relabelled(given, label)
        area = item.area if isinstance(item, Region) else item
        if not isinstance(area, BrushMask):
            parts.outlines.append(item)
        elif isinstance(item, BrushMask) and item.label:
            parts.masks.append(item)
        else:
            parts.others.append(item)
    return parts
