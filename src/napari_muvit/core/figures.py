"""Plots as PNG files, without a screen and without the state of ``pyplot``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 120


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure; sizes in inches.

    A figure of its own, not one of ``pyplot``: that would choose a window system, and
    keep the figure for ever.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """Return the figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def save_png(figure: Figure, path: str | Path) -> Path:
    """Write the figure whole or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from .files import write_bytes

    return write_bytes(Path(path), png_bytes(figure))
