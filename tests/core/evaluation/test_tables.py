from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from napari_muvit.core.evaluation.tables import (
    finite,
    folded_table,
    markdown_list,
    markdown_table,
    number,
    short,
    text_table,
)

WORDS = st.text("abcdefgh0123.", min_size=1, max_size=12)


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    columns = draw(st.integers(1, 9))
    row = st.lists(WORDS, min_size=columns, max_size=columns)
    return draw(st.lists(row, min_size=1, max_size=5))


@given(tables(), st.integers(5, 60))
def test_a_folded_table_keeps_every_cell(rows: list[list[str]], width: int) -> None:
    parts = folded_table(rows, width).split("\n\n")
    cells = [[line.split() for line in part.splitlines()] for part in parts]
    together = [
        [row[0], *(c for part in cells for c in part[i][1:])]
        for i, row in enumerate(rows)
    ]
    assert together == rows
    for part, lines in zip(cells, parts, strict=True):
        # Only where one column does not fit beside the first is a line too long.
        longest = max(map(len, lines.splitlines()))
        assert longest <= width or len(part[0]) <= 2


@given(tables())
def test_columns_are_aligned(rows: list[list[str]]) -> None:
    lines = text_table(rows, left=()).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split() for line in lines] == rows


def test_markdown() -> None:
    table = markdown_table([("a", "b"), ("x|y", "1\n2")])
    assert table == "| a | b |\n| --- | ---: |\n| x\\|y | 1 2 |"
    assert markdown_list(["one", "", "two\nlines"]) == "- one\n- two lines"


def test_numbers() -> None:
    assert [number(v, 2) for v in (0.126, math.nan, math.inf)] == ["0.13", "-", "-"]
    assert [finite(v) for v in (0.5, math.nan, -math.inf)] == [0.5, None, None]


@given(WORDS.map(lambda word: word * 5), st.integers(3, 30))
def test_a_short_name_has_both_ends(name: str, longest: int) -> None:
    cut = short(name, longest)
    assert len(cut) == min(len(name), longest)
    if len(name) > longest:
        head, tail = cut.split("…")
        assert name.startswith(head)
        assert name.endswith(tail)
        assert len(head) >= len(tail) > 0
