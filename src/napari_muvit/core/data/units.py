"""Lengths in files to micrometres, and pyramid factors out of shapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MICROMETRES = {
    "angstrom": 1e-4, "å": 1e-4,
    "picometer": 1e-6, "pm": 1e-6,
    "nanometer": 1e-3, "nm": 1e-3,
    "micrometer": 1.0, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0,
    "microns": 1.0,
    "millimeter": 1e3, "mm": 1e3,
    "centimeter": 1e4, "cm": 1e4,
    "decimeter": 1e5, "dm": 1e5,
    "meter": 1e6, "m": 1e6,
    "inch": 25400.0, "in": 25400.0,
    "foot": 304800.0, "ft": 304800.0,
    "yard": 914400.0, "yd": 914400.0,
}  # fmt: skip


SMALLEST_PIXEL, LARGEST_PIXEL = 1e-6, 1e6
"""Micrometres. A pixel of another size is a mistake in the file."""


def is_pixel_size(sizes: Iterable[float]) -> bool:
    """Whether all of these can be edges of a pixel in micrometres."""
    return all(SMALLEST_PIXEL <= s <= LARGEST_PIXEL for s in sizes)


def micrometres(unit: object) -> float | None:
    """Return micrometres in one ``unit``, or None for an unknown unit."""
    if not isinstance(unit, str):
        return None
    # British and plural spellings: micrometres -> micrometer.
    key = unit.strip().lower().replace("metre", "meter")
    if key.endswith("meters"):
        key = key[:-1]
    return MICROMETRES.get(key)


def snap_factors(
    finest: Sequence[int],
    shape: Sequence[int],
    given: Sequence[float] | None = None,
) -> tuple[float, ...]:
    """Find the downsampling factor of a level along each axis.

    Real slides round the shapes of their levels: 4443 pixels become 2221 at factor 2,
    so the quotient 2.0005 is no better than 2.

    Parameters
    ----------
    finest
        Pixels of the finest level along each axis.
    shape
        Pixels of this level.
    given
        Factors by the metadata, used where they agree with the shapes to a pixel.

    Returns
    -------
    tuple of float
        Whole numbers wherever one explains the shape; the same one along all axes if
        possible.
    """
    if given is not None and all(
        _agrees(n, m, g) for n, m, g in zip(finest, shape, given, strict=True)
    ):
        return tuple(
            _whole_near(n, m, g) for n, m, g in zip(finest, shape, given, strict=True)
        )
    quotients = [n / m for n, m in zip(finest, shape, strict=True)]
    candidates = [_candidates(n, m) for n, m in zip(finest, shape, strict=True)]
    sizes = list(zip(finest, shape, strict=True))
    common = [
        f for f in set().union(*candidates) if all(_explains(n, m, f) for n, m in sizes)
    ]
    if common:
        # Along an axis of one pixel any factor will do; the longest axis decides.
        wanted = quotients[max(range(len(shape)), key=lambda i: shape[i])]
        return (_best(common, wanted),) * len(quotients)
    return tuple(
        _best(c, q) if c else q for c, q in zip(candidates, quotients, strict=True)
    )


def level_factors(
    finest: Sequence[int],
    shape: Sequence[int],
    given: Sequence[float] | None = None,
) -> tuple[float, ...]:
    """Find the factors of a level of a 2D or 3D image; see `snap_factors`.

    y and x go together; z often keeps its pixels, so it is looked at on its own.
    """
    plane = snap_factors(finest[-2:], shape[-2:], given and given[-2:])
    if len(shape) == 2:
        return plane
    deep = snap_factors(finest[:-2], shape[:-2], given and given[:-2])
    return (*deep, *plane)


def _best(factors: Iterable[int], wanted: float) -> float:
    """Return a power of two if there is one, else the factor next to ``wanted``."""
    return float(min(factors, key=lambda f: (f & (f - 1) != 0, abs(f - wanted))))


def _explains(finest: int, pixels: int, factor: int) -> bool:
    return pixels in (max(1, finest // factor), -(-finest // factor))


def _agrees(finest: int, pixels: int, factor: float) -> bool:
    return factor > 0 and abs(finest / factor - pixels) <= max(1.01, 0.01 * pixels)


def _whole_near(finest: int, pixels: int, factor: float) -> float:
    """Return the whole number within 1 % that explains the shape, else ``factor``."""
    whole = round(factor)
    near = whole >= 1 and abs(factor - whole) <= 0.01 * whole
    return float(whole) if near and _agrees(finest, pixels, whole) else factor


def _candidates(finest: int, pixels: int) -> set[int]:
    """Whole factors for which the shape is rounded down or up."""
    low = max(1, finest // (pixels + 1))
    high = -(-finest // max(1, pixels - 1))
    # A level of one or two pixels allows many; the quotient then tells enough.
    high = min(high, low + 64)
    return {f for f in range(low, high + 1) if _explains(finest, pixels, f)}
