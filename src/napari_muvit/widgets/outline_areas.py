"""Outlines of a Shapes layer as areas of the slide; what stays the same is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .._layer_annotations import plane_filter
from .._layer_items import (
    Drawn,
    Frame,
    area_drawn,
    area_name,
    drawn_area,
    is_region,
    label_of,
)
from ..core.data.items import Area
from ..core.errors import PyramidError
from .outline_snapshot import Snapshot, SnapshotReader

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

Key = tuple[int, int, bool]
"""Which shape, its label, and whether it is a region of background."""


class OutlineAreas:
    """Reads a layer after each stroke; what did not change is the same object.

    Parameters
    ----------
    image
        The slide.
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        self.now = Snapshot()
        """What was read last; it stays when the layer is gone."""
        self._reader = SnapshotReader()
        self._frame: Frame | None = None
        # With the shape itself: the ids of what is gone are given again.
        self._areas: dict[Key, tuple[Drawn, Area | None]] = {}

    def read(self, layer: Shapes) -> Snapshot:
        """Return what the layer holds now."""
        self.now = self._reader.read(layer)
        return self.now

    def place(self, layer: Shapes) -> Frame | None:
        """Return where the layer lies on the slide, or where it was last."""
        try:
            frame = Frame(layer, self.image)
        except PyramidError:
            # Turned in the midst, which the Data page says: what is there stays where
            # it was on the slide.
            return self._frame
        if self._frame is None or not frame.same(self._frame):
            self._frame, self._areas = frame, {}
        return self._frame

    def areas(
        self,
        layer: Shapes | None,
        names: Sequence[str],
        point: Sequence[float] | None = None,
    ) -> list[Area]:
        """Return the outlines that have a class, in their order.

        Parameters
        ----------
        layer
            Where they are; None: they were taken out of the viewer.
        names
            Class names in label order.
        point
            ``viewer.dims.point``: in a stack only shapes on the plane on screen count.
        """
        frame = self._frame if layer is None else self.place(layer)
        if frame is None:
            return []
        known: dict[Key, tuple[Drawn, Area | None]] = {}
        found: list[Area] = []
        shown = None if layer is None else plane_filter(layer, point)
        labels = {name: label_of(name, names) for name in set(self.now.names)}
        for drawn, name in zip(self.now.drawn, self.now.names, strict=True):
            label = labels[name]
            if label is None or (shown is not None and not shown(drawn.vertices)):
                continue
            key = (id(drawn), label, is_region(name))
            if key not in self._areas:
                area = drawn_area(drawn, label, frame, region=key[2])
                self._areas[key] = (drawn, area)
            known[key] = self._areas[key]
            kept = known[key][1]
            if kept is not None:
                found.append(kept)
        self._areas = known
        return found

    def expect(
        self, layer: Shapes, items: Iterable[Area], names: Sequence[str]
    ) -> Snapshot:
        """Return areas as shapes; read from the layer they are the same areas again."""
        frame = self.place(layer) or Frame(layer, self.image)
        drawn, named = [], []
        for item in items:
            shape, name = area_drawn(item, frame), area_name(item, names)
            shape = self._reader.expect(shape)
            self._areas[id(shape), item.label, is_region(name)] = (shape, item)
            drawn.append(shape)
            named.append(name)
        return Snapshot(tuple(drawn), tuple(named))
