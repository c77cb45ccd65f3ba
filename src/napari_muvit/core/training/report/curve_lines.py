"""Lines of a plot: smoothed, and in colours that can be told apart on white."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STYLES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.5, 1.5)))
"""Dashes of lines whose colours are too much alike."""
ALIKE = 0.12
"""Distance of two colours, in parts of the cube's edge, below which they are alike."""
LIGHTEST = 0.62
"""Luminance of the lightest line that is seen well on white."""
PALETTE = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2",
    "#7f7f7f", "#a3a41d", "#17becf",
)  # fmt: skip
"""Where the classes have hardly any colours of their own."""

LineStyle = tuple[str, object]
"""Colour ``#rrggbb``, and dashes as matplotlib takes them."""


def line_styles(colors: Sequence[str]) -> list[LineStyle]:
    """Colour and dashes of each class, so that any two lines differ.

    The colours are those of the classes, darker where they are too light. Lines whose
    colours are alike get other dashes; where that does not suffice, colours of our own
    are taken for all.
    """
    styles = _with_dashes([_darkened(color) for color in colors])
    if len(set(styles)) < len(styles) or _too_many_alike(styles):
        count = len(PALETTE)
        return [
            (PALETTE[k % count], STYLES[k // count % len(STYLES)])
            for k in range(len(colors))
        ]
    return styles


def _with_dashes(colors: Sequence[str]) -> list[LineStyle]:
    styles: list[LineStyle] = []
    for color in colors:
        taken = sum(_distance(color, other) < ALIKE for other, _ in styles)
        styles.append((color, STYLES[taken % len(STYLES)]))
    return styles


def _too_many_alike(styles: Sequence[LineStyle]) -> bool:
    """Whether two lines are alike in colour and dashes."""
    return any(
        dashes == other_dashes and _distance(color, other) < ALIKE
        for index, (color, dashes) in enumerate(styles)
        for other, other_dashes in styles[:index]
    )


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of ``#rrggbb`` or ``#rgb``; grey for others."""
    digits = color.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(2 * d for d in digits)
    try:
        value = int(digits[:6], 16) if len(digits) >= 6 else -1
    except ValueError:
        value = -1
    if value < 0:
        return (128, 128, 128)
    return (value >> 16, value >> 8 & 255, value & 255)


def _distance(first: str, second: str) -> float:
    a, b = (np.array(rgb(color)) / 255 for color in (first, second))
    return float(np.abs(a - b).max())


def _darkened(color: str) -> str:
    red, green, blue = (v / 255 for v in rgb(color))
    luminance = 0.3 * red + 0.59 * green + 0.11 * blue
    if luminance <= LIGHTEST:
        return color if len(color) == 7 else _hex(red, green, blue)
    share = LIGHTEST / luminance
    return _hex(red * share, green * share, blue * share)


def _hex(*channels: float) -> str:
    return "#" + "".join(f"{round(255 * c):02x}" for c in channels)


def smoothed(values: Sequence[float] | Floats, window: float) -> Floats:
    """Mean of the values around each one, the nearer the weightier.

    Parameters
    ----------
    values
        In the order of the steps; those that are not finite are left out.
    window
        About how many values a mean is of; 1 or less: none.

    Returns
    -------
    ndarray
        As many, float64; NaN where a value was not finite.
    """
    given = np.asarray(values, dtype=np.float64)
    known = np.isfinite(given)
    share = min(1.0, 2.0 / (window + 1.0)) if window > 1 else 1.0
    # Forwards and backwards, so that the curve does not lag behind.
    found = given[known]
    means = (_running(found, share) + _running(found[::-1], share)[::-1]) / 2
    out = np.full(len(given), np.nan)
    out[known] = means
    return out


def _running(values: Floats, share: float) -> Floats:
    """Mean of each value and those before it, each weighing less than the next."""
    total = weight = 0.0
    out = np.empty(len(values))
    for index, value in enumerate(values):
        total += share * (float(value) - total)
        weight += share * (1.0 - weight)
        out[index] = total / weight
    return out


def wants_log(values: Sequence[float], ratio: float = 5.0) -> bool:
    """Whether a log axis shows more: all above zero and far from each other."""
    found = np.asarray(values, dtype=np.float64)
    found = found[np.isfinite(found)]
    if len(found) < 2 or found.min() <= 0:
        return False
    return bool(found.max() / found.min() > ratio)


@functools.cache
def _drawable() -> frozenset[int]:
    """Code points that the font of the plots has."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    path = font_manager.findfont(font_manager.FontProperties())
    return frozenset(FT2Font(path).get_charmap())


def drawable(name: str, instead: str, most: int = 24) -> str:
    """Return a name as the plot can show it, cut to length.

    The font lacks, for example, Chinese: a row of empty boxes would tell nothing.
    """
    plain = " ".join(name.split())
    if not plain or any(ord(letter) not in _drawable() for letter in plain):
        return instead
    return plain if len(plain) <= most else plain[: most - 1] + "…"
