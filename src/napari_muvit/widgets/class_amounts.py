"""How much of each class there is, and what is still too little, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.data.amounts import LEAST_PIXELS, PLACES, Amount

MAX_NAMED = 3
SQUARE_MM = 1e6
"""Square micrometres; larger areas are said in square millimetres."""


def area_words(pixels: float, pixel_area: float | None) -> str:
    """Say an area in the unit that fits."""
    if pixel_area is None:
        return f"{_short(pixels)} px"
    area = pixels * pixel_area
    if area >= SQUARE_MM / 100:
        return f"{_short(area / SQUARE_MM)} mm²"
    return f"{_short(area)} µm²"


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    if value >= 100:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.2g}"


def regions(count: int) -> str:
    """Say how many regions there are."""
    return (
        f"{count} region" if count == 1 else f"{count:,} regions".replace(",", "\u202f")
    )


def too_little(names: Sequence[str], amounts: Sequence[Amount]) -> str:
    """Say which classes have too little, and how much would do; empty if none has.

    Parameters
    ----------
    names
        Of the labels 1..K.
    amounts
        Of the labels 1..K. A region wider than a crop counts as more places when
        training begins; here it is one.
    """
    least, advised = next(pair[1:] for pair in PLACES if len(names) <= pair[0])
    missing = [n for n, a in zip(names, amounts, strict=True) if not a.regions]
    few = {
        n: a
        for n, a in zip(names, amounts, strict=True)
        if a.regions and (a.regions < least or a.pixels < LEAST_PIXELS)
    }
    said = []
    if missing:
        said.append(f"Nothing is drawn yet of {_listed(missing)}.")
    if few:
        said.append(
            f"Still little: {_listed([_few(n, a) for n, a in few.items()])}; "
            f"{least} or more regions of a class are needed, {advised} are better."
        )
    return " ".join(said)


def _few(name: str, amount: Amount) -> str:
    if amount.pixels < LEAST_PIXELS:
        return f"{name} {regions(amount.regions)} of {amount.pixels:,.0f} px"
    return f"{name} {regions(amount.regions)}"


def _listed(words: Sequence[str]) -> str:
    if len(words) > MAX_NAMED:
        return f"{', '.join(words[:MAX_NAMED])} and {len(words) - MAX_NAMED} more"
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def special_words(counts: Mapping[str, int]) -> str:
    """Say how many background boxes and erased places there are."""
    boxes, erased = counts.get("boxes", 0), counts.get("erased", 0)
    said = []
    if boxes:
        said.append("1 background box" if boxes == 1 else f"{boxes} background boxes")
    if erased:
        said.append("1 erased place" if erased == 1 else f"{erased} erased places")
    return f"Also {' and '.join(said)}." if said else ""
