"""What an export found: figures of classes, tables, a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassFigures:
    """One class of a slide."""

    label: int
    name: str
    color: str
    """``#rrggbb``."""
    exported: bool
    """Whether its objects were looked for."""
    predicted_px: int
    """Pixels with this label."""
    share: float
    """Of all pixels with a label."""
    objects: int
    """Objects that are left."""
    objects_px: int
    """Their pixels, filled holes included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """What was exported."""

    folder: Path
    """Where the files are."""
    prediction: str
    """What they were made of."""
    shape: tuple[int, int]
    """Pixels (y, x)."""
    pixel_size: tuple[float, float] | None
    """Micrometres (y, x) of a pixel; None: not known."""
    classes: tuple[ClassFigures, ...]
    min_object_px: int
    """Smaller objects were left out."""
    max_hole_px: int
    """Holes up to this size were filled."""
    tolerance_px: float
    """By which outlines may have moved."""
    dropped: int
    """Objects that were too small."""
    filled: int
    """Holes that were filled."""
    files: tuple[str, ...]
    """Names of the files in the folder."""
    notes: tuple[str, ...] = ()
    """What the user should know."""
    package_version: str = ""

    @property
    def pixel_area(self) -> float | None:
        """Square micrometres of a pixel; None: not known."""
        if self.pixel_size is None:
            return None
        return self.pixel_size[0] * self.pixel_size[1]

    @property
    def objects(self) -> int:
        """Objects of all classes."""
        return sum(c.objects for c in self.classes)

    def area(self, pixels: int) -> float | None:
        """Square micrometres of so many pixels; None: not known."""
        return None if self.pixel_area is None else pixels * self.pixel_area

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "prediction": self.prediction,
            "folder": str(self.folder),
            "files": list(self.files),
            "shape": list(self.shape),
            "pixel_size_um": self.pixel_size and list(self.pixel_size),
            "min_object_px": self.min_object_px,
            "max_hole_px": self.max_hole_px,
            "tolerance_px": self.tolerance_px,
            "objects": self.objects,
            "dropped": self.dropped,
            "filled_holes": self.filled,
            "classes": [self._class_dict(c) for c in self.classes],
            "notes": list(self.notes),
            "package_version": self.package_version,
        }

    def _class_dict(self, figures: ClassFigures) -> dict[str, Any]:
        return {
            "label": figures.label,
            "class": figures.name,
            "color": figures.color,
            "exported": figures.exported,
            "predicted_px": figures.predicted_px,
            "predicted_um2": self.area(figures.predicted_px),
            "share": figures.share,
            "objects": figures.objects if figures.exported else None,
            "objects_px": figures.objects_px if figures.exported else None,
            "objects_um2": self.area(figures.objects_px) if figures.exported else None,
        }

    def class_rows(self) -> Iterator[list[Any]]:
        """Rows of ``classes.csv``, the head first; empty cells where nothing is known.

        Areas in square micrometres and in pixels; the share is that of all pixels with
        a label.
        """
        head: list[Any] | None = None
        for figures in self.classes:
            cells = self._class_dict(figures)
            if head is None:
                head = list(cells)
                yield head
            yield ["" if value is None else value for value in cells.values()]

    def _cells(self) -> list[list[str]]:
        unit = self._unit[0]
        rows = [
            ["class", f"predicted {unit}", "share", "objects", f"in objects {unit}"]
        ]
        for c in self.classes:
            counts = ["-", "-"]
            if c.exported:
                counts = [f"{c.objects:,}", self._size(c.objects_px)]
            rows.append([c.name, self._size(c.predicted_px), f"{c.share:.2%}", *counts])
        return rows

    def _size(self, pixels: int) -> str:
        area = self.area(pixels)
        if area is None:
            return f"{pixels:,}"
        return f"{area / self._unit[1]:,.{4 if self._unit[1] > 1 else 1}f}"

    @property
    def _unit(self) -> tuple[str, float]:
        """Unit of areas for people, and its square micrometres."""
        total = self.area(sum(c.predicted_px for c in self.classes))
        if total is None:
            return "px", 1.0
        return ("mm²", 1e6) if total >= 1e6 else ("µm²", 1.0)

    def table(self) -> str:
        """Return the figures of the classes as aligned text."""
        rows = self._cells()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                f"{cell:{'>' if place else '<'}{width}}"
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )

    def markdown(self) -> str:
        """Return a page."""
        head, *rows = ([cell.replace("|", "\\|") for cell in r] for r in self._cells())
        height, width = self.shape
        size = "pixels of unknown size"
        if self.pixel_size is not None:
            y, x = self.pixel_size
            size = f"{x:.4g} x {y:.4g} µm a pixel"
        lines = [
            f"# {Path(self.prediction).name}",
            "",
            f"Made of {self.prediction}.",
            "",
            f"{width:,} x {height:,} pixels (x, y), {size}. {self.objects:,} objects.",
            "",
            f"| {' | '.join(head)} |",
            f"|---|{'---:|' * (len(head) - 1)}",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            *(f"- {line}" for line in [*self._rules(), *self.notes]),
        ]
        if "thumbnail.png" in self.files:
            lines += ["", "![classes](thumbnail.png)"]
        return "\n".join(lines) + "\n"

    def _rules(self) -> Iterator[str]:
        """How objects were made."""
        yield (
            "An object is a part of one class whose pixels meet at edges; shares are "
            "of all pixels with a label."
        )
        if self.min_object_px > 1:
            yield (
                f"Objects of fewer than {self.min_object_px:,} pixels are left out "
                f"({self.dropped:,})."
            )
        if self.max_hole_px > 0:
            yield (
                f"Holes of up to {self.max_hole_px:,} pixels are filled, with what lay "
                f"in them ({self.filled:,})."
            )
        if self.tolerance_px > 0:
            yield f"Outlines are within {self.tolerance_px:.3g} pixels of pixel edges."
        else:
            yield "Outlines run along pixel edges."
