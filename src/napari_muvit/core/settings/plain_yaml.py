"""YAML of texts, numbers, lists and tables only, read and written alike.

PyYAML reads by the rules of YAML 1.1, in which ``1e-4`` is a text, ``no`` is false and
``12:30`` is a number. Here the rules are those of YAML 1.2's core schema. What is
written means the same under both. No tags, no anchors, no key twice.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

_PREFIX = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _STR, _SEQ, _MAP = (
    _PREFIX + name for name in ("null", "bool", "int", "float", "str", "seq", "map")
)
_FLOAT_12 = re.compile(
    r"""^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_RULES: tuple[tuple[str, re.Pattern[str], str], ...] = (
    (_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), "~nN"),
    (_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    (_INT, re.compile(r"^[-+]?[0-9]+$"), "-+0123456789"),
    (_FLOAT, _FLOAT_12, "-+.0123456789"),
)
"""Tag, what it looks like, and the first characters; the first rule counts."""
LONGEST_LINE = 2**20
"""So that no path is folded."""


class _Loader(yaml.SafeLoader):
    """Reads plain values; anything else is an error."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {}  # noqa: RUF012
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Refuse anchors and aliases, which may stand for any number of copies."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases are not read; write the value out",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Writes plain values, short lists in a line."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write what occurs twice two times."""
        return True


def _number(text: str) -> float:
    """Read a number; infinities and NaN have a dot before them in YAML."""
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _scalar(loader: _Loader, node: Node) -> Any:
    if not isinstance(node, ScalarNode):
        raise _error("a single value is needed here", node)
    text = node.value
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() == "true"
    if node.tag not in (_INT, _FLOAT):
        return text
    try:
        return int(text) if node.tag == _INT else _number(text)
    except ValueError as error:  # tagged by hand, or thousands of digits
        raise _error(f"{text[:20]} is no number that can be read", node) from error


def _sequence(loader: _Loader, node: Node) -> list[Any]:
    if not isinstance(node, SequenceNode):
        raise _error("a list is needed here", node)
    return [loader.construct_object(child, deep=True) for child in node.value]


def _mapping(loader: _Loader, node: Node) -> dict[str, Any]:
    if not isinstance(node, MappingNode):
        raise _error("a table is needed here", node)
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise _error(f"the key {key!r} is no text", key_node)
        if key in found:
            raise _error(f"the key {key!r} is there twice", key_node)
        found[key] = loader.construct_object(value_node, deep=True)
    return found


def _unknown(loader: _Loader, node: Node) -> Any:
    raise _error(f"the tag {node.tag} is not read", node)


def _error(problem: str, node: Node) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _sequence_node(dumper: _Dumper, value: list[Any] | tuple[Any, ...]) -> Node:
    """Numbers and names in a line, paths and tables one below the other."""
    short = not any(
        isinstance(v, dict) or (isinstance(v, str) and re.search(r"[/\\]", v))
        for v in value
    )
    return dumper.represent_sequence(_SEQ, value, flow_style=short)


def _text_node(dumper: _Dumper, value: str) -> Node:
    """Escape line breaks of every kind, which other styles fold."""
    return dumper.represent_scalar(_STR, value, None if value.isprintable() else '"')


for _tag, _pattern, _first in _RULES:
    # Nothing at all is null, and has no first character.
    _first_of = [*_first, ""] if _tag == _NULL else list(_first)
    _Loader.add_implicit_resolver(_tag, _pattern, _first_of)
    # Beside PyYAML's own rules: what either would not read as a text is quoted.
    _Dumper.add_implicit_resolver(_tag, _pattern, _first_of)
for _tag in (_NULL, _BOOL, _INT, _FLOAT, _STR):
    _Loader.add_constructor(_tag, _scalar)
_Loader.add_constructor(_SEQ, _sequence)
_Loader.add_constructor(_MAP, _mapping)
_Loader.add_constructor(None, _unknown)
_Dumper.add_representer(str, _text_node)
_Dumper.add_representer(list, _sequence_node)
_Dumper.add_representer(tuple, _sequence_node)


def read_yaml(text: str) -> Any:
    """Return what a text says: None, bool, int, float, str, list and dict by text.

    Raises
    ------
    ValueError
        In one line, with the line of the text.
    """
    try:
        # Not an unsafe loader: it has constructors for plain values alone.
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise ValueError(f"{place}{problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def to_yaml(value: Any) -> str:
    """Return the text of plain values, tuples as lists, keys in their order."""
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=LONGEST_LINE,
    )
