from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from napari_muvit.core.settings.plain_yaml import read_yaml, to_yaml

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
AMBIGUOUS = (
    "1e-4", "1.e3", "+.inf", "no", "on", "y", "12:30:45", "2024-01-01", "0x1f", "017",
    "1_000", "=", "<<", "null", "~", "", "- a", "a: b", "# x", " x ", "!x", "&a", "*a",
    "---", "a\nb", "\x85", "\u2028", "\udcff", "\0", "C:\\data\\x.tif", "'", '"', "%x",
)  # fmt: skip


@given(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    text = to_yaml(value)
    found = read_yaml(text)
    assert found == value
    assert repr(found) == repr(value)  # 1, 1.0 and True are equal
    for event in yaml.parse(text):
        assert getattr(event, "anchor", None) is None
        assert getattr(event, "tag", None) is None


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_texts_that_look_like_something_else(text: str) -> None:
    written = to_yaml({"key": text, "list": [text, text]})
    assert read_yaml(written) == {"key": text, "list": [text, text]}
    # For readers by the older rules too.
    assert yaml.safe_load(written) == {"key": text, "list": [text, text]}


@given(st.text(max_size=40))
@example("a: [1, 2")
@example("{" * 3000)
@example("%YAML 9.9\n---\na")
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    refused = ""
    try:
        read_yaml(text)
    except ValueError as error:
        refused = str(error)
    assert "\n" not in refused


def test_the_rules_are_those_of_yaml_1_2() -> None:
    text = "a: 1e-4\nb: .5\nc: 3.\nd: +3\ne: no\nf: 12:30\ng: 2024-01-01\nh: ~\ni:\n"
    wanted = {
        "a": 1e-4, "b": 0.5, "c": 3.0, "d": 3, "e": "no", "f": "12:30",
        "g": "2024-01-01", "h": None, "i": None,
    }  # fmt: skip
    assert repr(read_yaml(text)) == repr(wanted)
    assert read_yaml("[-.inf, true, False, 007]") == [float("-inf"), True, False, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "line 1: anchors and aliases"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is there twice"),
        ("a: {b: 1, b: 1}", "the key 'b' is there twice"),
        ("1: 2", "the key 1 is no text"),
        ("? [a]\n: 2", r"the key \['a'\] is no text"),
        ("a: !!python/object:os.system x", "the tag .*os.system is not read"),
        ("a: !!python/tuple [1]", "the tag .*tuple is not read"),
        ("a: !!binary aGk=", "the tag .*binary is not read"),
        ("a: !!int x", "x is no number"),
        ("a: !!map 3", "a table is needed"),
        ("a: !!seq {b: 1}", "a list is needed"),
        ("a: !!str [1]", "a single value is needed"),
        ("a: " + "9" * 5000, "no number that can be read"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a:\n\t- 1", "line 2"),
        ("a: \x07", "not allowed"),
        ("[" * 100_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_yaml(text)
    assert "\n" not in str(caught.value)


def test_it_is_readable() -> None:
    value = {"levels": (1, 8), "paths": ["/a/b", "/c/d"], "model": {"rate": 1e-5}}
    assert to_yaml(value) == (
        "levels: [1, 8]\npaths:\n- /a/b\n- /c/d\nmodel:\n  rate: 1.0e-05\n"
    )
