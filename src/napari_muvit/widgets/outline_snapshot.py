"""What a Shapes layer holds at one moment, and how it is put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._layer_annotations import shape_classes
from .._layer_items import Drawn
from .state import LabelClass

if TYPE_CHECKING:
    from napari.layers import Shapes


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The shapes of a layer, in their order."""

    drawn: tuple[Drawn, ...] = ()
    names: tuple[str, ...] = ()
    """Class of each; empty where it has none."""

    def __bool__(self) -> bool:
        return bool(self.drawn)

    def __add__(self, other: Snapshot) -> Snapshot:
        return Snapshot(self.drawn + other.drawn, self.names + other.names)

    def without(self, other: Snapshot) -> Snapshot:
        """Return the shapes that another one does not hold."""
        there = {id(drawn) for drawn in other.drawn}
        pairs = zip(self.drawn, self.names, strict=True)
        left = [(d, n) for d, n in pairs if id(d) not in there]
        return Snapshot(tuple(d for d, _ in left), tuple(n for _, n in left))

    def same(self, other: Snapshot) -> bool:
        """Whether nothing has changed between the two."""
        return self.names == other.names and self.same_shapes(other)

    def same_shapes(self, other: Snapshot) -> bool:
        """Whether the shapes are the same, whatever their classes."""
        return len(self.drawn) == len(other.drawn) and all(
            a is b for a, b in zip(self.drawn, other.drawn, strict=True)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """Classes and outlines at one moment; paint has a history of its own."""

    classes: tuple[LabelClass, ...]
    outlines: Snapshot
    values: tuple[tuple[str, int], ...]
    """With which value each class is painted."""

    def same(self, other: Moment) -> bool:
        """Whether nothing has changed between the two."""
        return self.classes == other.classes and self.outlines.same(other.outlines)


class SnapshotReader:
    """Reads a layer again and again; shapes that did not change stay the same object.

    napari moves vertices in place, so they are compared by their bytes.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], Drawn] = {}

    def read(self, layer: Shapes) -> Snapshot:
        """Return what the layer holds now."""
        known: dict[tuple[str, bytes], Drawn] = {}
        found = []
        for kind, vertices in zip(layer.shape_type, layer.data, strict=True):
            key = (str(kind), vertices.tobytes())
            drawn = known.get(key) or self._known.get(key)
            if drawn is None:
                drawn = Drawn(str(kind), np.array(vertices))
            known[key] = drawn
            found.append(drawn)
        self._known = known
        return Snapshot(tuple(found), tuple(shape_classes(layer)))

    def expect(self, drawn: Drawn) -> Drawn:
        """Know a shape before it is in the layer; return the one that is known."""
        return self._known.setdefault((drawn.kind, drawn.vertices.tobytes()), drawn)


def put_back(layer: Shapes, wanted: Snapshot, now: Snapshot) -> None:
    """Make a layer hold what it held, with as few changes of it as possible.

    Adding shapes is what napari needs time for.
    """
    mode = layer.mode
    layer.selected_data = set()
    left = _leftover(wanted, now)
    if left:
        layer.remove(left)
    gone = set(left)
    kept = len([k for k in range(len(now.drawn)) if k not in gone])
    new = wanted.drawn[kept:]
    if new:
        layer.add(
            [d.vertices for d in new],
            shape_type=[d.kind for d in new],
            edge_width=layer.current_edge_width,
        )
    set_classes(layer, wanted.names)
    layer.mode = mode


def _leftover(wanted: Snapshot, now: Snapshot) -> list[int]:
    """Indices of shapes to remove, so that the rest is the beginning of ``wanted``."""
    left, place = [], 0
    for index, drawn in enumerate(now.drawn):
        if place < len(wanted.drawn) and wanted.drawn[place] is drawn:
            place += 1
        else:
            left.append(index)
    return left


def set_classes(layer: Shapes, names: tuple[str, ...]) -> None:
    """Give each shape its class; `apply_classes` gives the colours."""
    if tuple(shape_classes(layer)) == names:
        return
    features = layer.features.copy()
    features["class"] = [name or None for name in names]
    layer.features = features
