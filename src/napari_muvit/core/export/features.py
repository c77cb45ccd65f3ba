"""Objects as GeoJSON for QuPath, feature by feature.

Coordinates are (x, y) in pixels of the finest level from the outer corner of the first
one. A polygon's first ring runs around it, the others around its holes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .rings import Corners, Objects
from .runs import Ints
from .simplify import simplify

BATCH_CORNERS = 2**16
"""Stored corners of the objects that are simplified together."""
MOST_CORNERS = 2**20
"""Stored corners of an object that is simplified; memory grows with them."""
Styles = Callable[[int], tuple[str, str]]
"""Name and colour ``#rrggbb`` of a label."""


@dataclass(frozen=True, eq=False)
class FeatureWriter:
    """Text of a FeatureCollection."""

    objects: Objects
    style: Styles
    tolerance: float = 0.0
    """Pixels by which outlines may move."""
    pixel_area: float | None = None
    """Square micrometres of a pixel; None: not known."""

    @property
    def exact(self) -> Ints:
        """Objects with too many corners to be simplified."""
        large = self.objects.corners > MOST_CORNERS
        return np.flatnonzero(large & (self.tolerance > 0))

    def text(self, on_object: Callable[[int], None]) -> Iterator[bytes]:
        """Yield the file.

        Parameters
        ----------
        on_object
            Told how many objects are written.
        """
        yield b'{"type": "FeatureCollection", "features": [\n'
        for batch in self._batches():
            for index, rings in self._outlines(batch):
                if index:
                    yield b",\n"
                yield from self._feature(index, rings)
                on_object(index + 1)
        yield b"\n]}\n"

    def _batches(self) -> Iterator[range]:
        """Objects that are outlined together."""
        total = np.cumsum(self.objects.corners)
        start = 0
        while start < len(total):
            held = int(total[start - 1]) if start else 0
            stop = int(np.searchsorted(total, held + BATCH_CORNERS, side="right"))
            stop = max(stop, start + 1)
            yield range(start, stop)
            start = stop

    def _outlines(self, batch: range) -> Iterator[tuple[int, Iterable[Iterable[Ints]]]]:
        """Rings of each object, each in parts of (n, 2) corners (x, y)."""
        rings = self.objects.rings
        large = self.objects.corners[batch.start] > MOST_CORNERS
        if self.tolerance <= 0 or large:
            for index in batch:
                yield index, map(self._ring, rings(index))
            return
        owner, exact = [], []
        for index in batch:
            for piece in rings(index):
                owner.append(index)
                exact.append(np.concatenate(list(self._ring(piece)))[:, ::-1])
        lines = simplify(exact, np.array(owner), self.tolerance)
        bounds = np.searchsorted(owner, np.arange(batch.start, batch.stop + 1))
        for place, index in enumerate(batch):
            mine = lines[bounds[place] : bounds[place + 1]]
            yield index, ((line[:, ::-1],) for line in mine)

    def _ring(self, piece: int) -> Iterator[Ints]:
        return corners_of(self.objects.ring(piece))

    def _feature(self, index: int, rings: Iterable[Iterable[Ints]]) -> Iterator[bytes]:
        objects = self.objects
        label, area = int(objects.value[index]), int(objects.area[index])
        name, color = self.style(label)
        # The same object keeps its id, so that QuPath knows it again.
        key = f"{label} {area} {objects.box[index].tolist()}"
        head: dict[str, Any] = {
            "type": "Feature",
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{index} {key}")),
        }
        measurements: dict[str, float] = {"Object": index + 1, "Area px^2": area}
        if self.pixel_area is not None:
            measurements["Area µm^2"] = round(area * self.pixel_area, 4)
        properties = {
            "objectType": "annotation",
            "name": f"{name} {index + 1}",
            "classification": {"name": name, "color": list(bytes.fromhex(color[1:]))},
            "isLocked": True,
            "measurements": measurements,
        }
        yield json.dumps(head)[:-1].encode()
        yield b', "geometry": {"type": "Polygon", "coordinates": ['
        for number, ring in enumerate(rings):
            yield b"," if number else b""
            yield from _ring_text(ring)
        yield b']}, "properties": ' + json.dumps(properties).encode() + b"}"


def corners_of(parts: Iterable[Corners]) -> Iterator[Ints]:
    """All corners (x, y) of a ring from those that are stored.

    Parameters
    ----------
    parts
        (n, 2) stored corners: (x, y) where the outline leaves an upright edge.
    """
    held: Corners | None = None
    start = 0
    for part in parts:
        if held is None:
            start = int(part[0, 0])
        else:
            yield _both_ends(held, int(part[0, 0]))
        held = part
    if held is not None:
        yield _both_ends(held, start)


def _both_ends(corners: Corners, beyond: int) -> Ints:
    """Both ends of each way along a row; ``beyond`` is the column after the last."""
    x, y = corners.T.astype(np.int64)
    ends = np.append(x[1:], beyond)
    both = np.stack([x, y, ends, y], axis=1)
    return both.reshape(-1, 2)


def _ring_text(parts: Iterable[Ints]) -> Iterator[bytes]:
    """Return a closed ring: its first corner comes again at its end."""
    first: Sequence[int] | None = None
    for part in parts:
        points = part.tolist()
        yield b"[" if first is None else b","
        first = first or points[0]
        yield json.dumps(points, separators=(",", ":"))[1:-1].encode()
    yield b"," + json.dumps(first, separators=(",", ":")).encode() + b"]"
