"""Tables as plain text and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

Rows = Sequence[Sequence[str]]
"""The first one is the head; all of the same length."""
ABSENT = "-"
"""In place of a number that is not defined."""
MAX_NAME = 28
"""Longest name in a text table."""


def number(value: float, digits: int = 4) -> str:
    """Return a number with so many decimals, `ABSENT` for NaN."""
    return f"{value:.{digits}f}" if math.isfinite(value) else ABSENT


def finite(value: float) -> float | None:
    """Return a number for JSON, None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def short(name: str, longest: int = MAX_NAME) -> str:
    """Cut a long name in its middle: what tells files apart is often at the end."""
    if len(name) <= longest:
        return name
    tail = (longest - 1) // 2
    return f"{name[: longest - 1 - tail]}…{name[len(name) - tail :]}"


def factors_text(factors: Sequence[float]) -> str:
    """``[1, 8]`` of scale factors."""
    return f"[{', '.join(f'{f:g}' for f in factors)}]"


def text_table(rows: Rows, left: Collection[int] = (0,)) -> str:
    """Return aligned columns.

    Parameters
    ----------
    rows
        The cells.
    left
        Columns that are flush left; the others are flush right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            f"{cell:<{width}}" if place in left else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def folded_table(rows: Rows, width: int = 100) -> str:
    """Return a text table whose columns go on below where they are too many.

    The first column is repeated.

    Parameters
    ----------
    rows
        The cells.
    width
        Characters of a line that should not be exceeded.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    parts: list[list[int]] = [[0]]
    used = widths[0]
    for place, size in enumerate(widths[1:], start=1):
        if used + 2 + size > width and len(parts[-1]) > 1:
            parts.append([0])
            used = widths[0]
        parts[-1].append(place)
        used += 2 + size
    return "\n\n".join(
        text_table([[row[place] for place in part] for row in rows]) for part in parts
    )


def markdown_table(rows: Rows, left: Collection[int] = (0,)) -> str:
    """Return a Markdown table; see `text_table`."""
    head, *body = [[_escaped(cell) for cell in row] for row in rows]
    rule = ["---" if place in left else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def markdown_list(facts: Sequence[str]) -> str:
    """Return one point a fact; empty ones are left out."""
    return "\n".join(f"- {_one_line(fact)}" for fact in facts if fact)


def _escaped(cell: str) -> str:
    return _one_line(cell).replace("|", "\\|")


def _one_line(text: str) -> str:
    return " ".join(text.split())
