"""What is asked of an export."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """What becomes an object, and how exact its outline is."""

    classes: tuple[str, ...] | None = None
    """Names or numbers of the classes; None: all but the background."""
    min_object: float = 0.0
    """Square micrometres (pixels where their size is not known); smaller objects are
    left out."""
    min_hole: float = 0.0
    """The same unit; smaller holes are filled, with all that lies in them."""
    simplify: float = 0.0
    """Micrometres (or pixels) by which outlines may move; 0: along pixel edges."""

    def __post_init__(self) -> None:
        for name in ("min_object", "min_hole", "simplify"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"{name} is {value!r}; a number of 0 or more is needed.", name
                )
        if self.classes is not None and not any(c.strip() for c in self.classes):
            raise ConfigError("No class is named; name one or more.", "classes")

    def pixels(self, pixel_area: float) -> tuple[int, int]:
        """Fewest pixels of an object, and most of a hole that is filled.

        Parameters
        ----------
        pixel_area
            Area of a pixel in the unit of the limits.
        """
        # 5 um2 of pixels of 0.25 um2 are 20, whatever the last digit says.
        least = math.ceil(self.min_object / pixel_area - 1e-9)
        most = math.ceil(self.min_hole / pixel_area - 1e-9) - 1
        return max(1, least), max(0, most)
