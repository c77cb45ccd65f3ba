"""Checks of what a user gave, and frozen dataclasses in and out of JSON.

Torch-free, like everything that a command line or a form needs.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, Literal, Self

from .errors import ConfigError


def require(condition: bool, message: str, field_name: str) -> None:
    """Raise `ConfigError` about a field unless the condition holds."""
    if not condition:
        raise ConfigError(message, field_name)


def meant(name: str, known: Iterable[str]) -> str:
    """Say which known names an unknown one is like: `` Is ... meant?``, or nothing."""
    plain = {other.replace("_", ""): other for other in known}
    wanted = name.lower().replace("_", "").replace("-", "")
    near = difflib.get_close_matches(wanted, plain, n=2, cutoff=0.7)
    found = [wanted] if wanted in plain else near
    return f" Is {' or '.join(plain[key] for key in found)} meant?" if found else ""


def whole(value: object, minimum: int, field_name: str) -> None:
    """Require a whole number of at least ``minimum``."""
    require(
        isinstance(value, int) and not isinstance(value, bool) and value >= minimum,
        f"{field_name} is {value!r}; a whole number of at least {minimum} is needed.",
        field_name,
    )


def finite(value: float) -> bool:
    """Whether a number is finite; whole numbers beyond every float are not."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


_KINDS: Mapping[Any, tuple[type, str]] = {
    float: (Real, "a number"),
    int: (int, "a whole number"),
    bool: (bool, "true or false"),
    str: (str, "text"),
}
"""What a field's type accepts, and what to call it."""


def _fits(value: object, kind: Any) -> bool:
    """Whether a value has a field's type; lists pass for tuples."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in typing.get_args(kind))
    if kind is type(None):
        return value is None
    if origin is Literal:
        return isinstance(value, str) and value in typing.get_args(kind)
    if origin is tuple:
        parts = typing.get_args(kind)
        if not isinstance(value, (tuple, list)):
            return False
        if Ellipsis not in parts and len(value) != len(parts):
            return False
        return all(_fits(v, parts[0]) for v in value)
    if isinstance(value, bool) and kind is not bool:
        return False
    return isinstance(value, _KINDS[kind][0])


def _check_type(name: str, value: object, kind: Any) -> None:
    if typing.get_origin(kind) is Literal:
        needed = f"choose one of {', '.join(typing.get_args(kind))}"
    else:
        needed = f"{_wording(kind)} is needed"
    require(_fits(value, kind), f"{name} is {value!r}; {needed}.", name)


def _wording(kind: Any) -> str:
    """What to call a field's type in a message."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join(_wording(part) for part in parts)
    if kind is type(None):
        return "null"
    if typing.get_origin(kind) is tuple:
        if typing.get_origin(parts[0]) is Literal:
            return f"a list of {' or '.join(typing.get_args(parts[0]))}"
        nested = typing.get_origin(parts[0]) is tuple
        inner = "texts" if parts[0] is str else "lists" if nested else "numbers"
        return f"a list of {inner}"
    return _KINDS[kind][1]


@functools.cache
def _field_types(cls: type) -> Mapping[str, Any]:
    return typing.get_type_hints(cls)


class JsonConfig:
    """To and from plain JSON types; unknown keys are an error with a hint."""

    __slots__ = ()

    def check_types(self) -> None:
        """Raise `ConfigError` for a field of another type, as a file may hold it."""
        for name, kind in _field_types(type(self)).items():  # type: ignore[arg-type]
            _check_type(name, getattr(self, name), kind)

    @classmethod
    def check_values(cls, values: Mapping[str, Any]) -> None:
        """Raise `ConfigError` for unknown fields and values of another type.

        For some of the fields, as a file may hold them; how they go together is
        another matter.
        """
        kinds = _field_types(cls)  # type: ignore[arg-type]
        cls._check_known(values)
        for name, value in values.items():
            _check_type(name, value, kinds[name])

    @classmethod
    def means_null(cls, name: str, value: object) -> bool:
        """Whether a value of a field is a word for nothing, such as ``None``."""
        kind = _field_types(cls)[name]  # type: ignore[arg-type]
        word = isinstance(value, str) and value.strip().lower() in ("none", "null")
        return word and _fits(None, kind) and not _fits(value, kind)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain JSON types; lists become tuples."""
        cls._check_known(values)
        return cls(**{k: _as_tuple(v) for k, v in values.items()})

    @classmethod
    def _check_known(cls, values: Mapping[str, Any]) -> None:
        names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - names)
        if unknown:
            like = meant(unknown[0], names)
            raise ConfigError(
                f"{cls.__name__} does not know {', '.join(unknown)}"
                + (
                    f".{like}"
                    if like
                    else "; it may have been written by a newer napari-muvit. Update "
                    "the package or remove it."
                ),
                unknown[0],
            )


def finite_json(value: Any) -> Any:
    """Replace numbers that JSON does not know (NaN, infinities) by None."""
    if isinstance(value, Mapping):
        return {k: finite_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_json(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list) else value
