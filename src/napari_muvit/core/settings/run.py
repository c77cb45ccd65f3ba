"""What a training run was asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args

from ..checks import JsonConfig, finite, require
from ..config import ModelConfig, TrainingConfig
from ..errors import ConfigError
from ..presets import preset

SETTINGS_VERSION = 1

Command = Literal["finetune", "pretrain"]
Paths = tuple[str | None, ...]
"""Paths and web addresses; None for what was given as an object and has none."""

PATHS = ("images", "labels", "val_images", "val_labels")
LIMITS = ("epochs", "steps", "minutes")
FIELDS: Mapping[str, frozenset[str]] = {
    name: frozenset(f.name for f in dataclasses.fields(kind))
    for name, kind in (("model", ModelConfig), ("training", TrainingConfig))
}
"""Names in the tables of a file with settings."""


def belongs(name: str) -> str:
    """Say in which table a field belongs: `` It belongs ...``, or nothing."""
    place = next((table for table, names in FIELDS.items() if name in names), None)
    return f" It belongs into the table {place}." if place else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading(JsonConfig):
    """How all slides of a run are read; see `open_pyramid`."""

    image: str | int | None = None
    """Which image of files with several."""
    planes: Mapping[str, int] = field(default_factory=dict)
    """Index along axes that are neither spatial nor channels."""
    channels: tuple[str | int, ...] | None = None
    """Names or indices; None: all."""
    pixel_size: float | None = None
    """Micrometres, whatever the files say."""

    def __post_init__(self) -> None:
        planes: Any = self.planes
        require(
            isinstance(planes, Mapping)
            and all(
                isinstance(axis, str) and _is_whole(index) and index >= 0
                for axis, index in planes.items()
            ),
            f"planes is {planes!r}; a table of axes and numbers is needed, such as "
            "{z: 10}.",
            "planes",
        )
        channels: Any = (self.channels,) if _is_key(self.channels) else self.channels
        require(
            channels is None
            or (isinstance(channels, list | tuple) and all(map(_is_key, channels))),
            f"channels is {channels!r}; a list of names or numbers is needed.",
            "channels",
        )
        require(
            self.image is None or _is_key(self.image),
            f"image is {self.image!r}; a name or a number is needed.",
            "image",
        )
        size = self.pixel_size
        require(
            size is None or (_is_number(size) and finite(size) and size > 0),
            f"pixel_size is {size!r}; a positive number is needed.",
            "pixel_size",
        )
        object.__setattr__(self, "planes", dict(planes))
        object.__setattr__(self, "channels", channels and tuple(channels))

    def options(self) -> dict[str, Any]:
        """Return it as keyword arguments of `open_pyramid`."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """What a run was asked for; what is left out is for presets and data to say.

    Raises
    ------
    ConfigError
        For a value of another type, an unknown preset, or an unknown field.
    """

    command: Command | None = None
    """None: of either."""
    images: Paths = ()
    labels: Paths = ()
    val_images: Paths = ()
    val_labels: Paths = ()
    start: str | None = None
    """Model folder."""
    missing: tuple[str, ...] = ()
    """``start``, where that was a model without a folder."""
    preset: str | None = None
    reading: Reading = field(default_factory=Reading)
    tissue: bool | None = None
    """Whether pretraining keeps to the tissue; None: as it does without a word."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `ModelConfig`, the names of the classes among them."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainingConfig`."""
    version: int = SETTINGS_VERSION
    """Of this format."""

    def __post_init__(self) -> None:
        for name in PATHS:
            object.__setattr__(self, name, checked_paths(getattr(self, name), name))
        for name in ("start", "preset"):
            _require_text(getattr(self, name), name)
        commands = get_args(Command)
        require(
            self.command is None or self.command in commands,
            f"command is {self.command!r}; choose one of {', '.join(commands)}.",
            "command",
        )
        if self.preset is not None:
            preset(self.preset)
        tissue: Any = self.tissue
        require(
            tissue is None or isinstance(tissue, bool),
            f"tissue is {tissue!r}; true or false is needed.",
            "tissue",
        )
        object.__setattr__(self, "missing", _checked_missing(self.missing))
        for name, kind in (("model", ModelConfig), ("training", TrainingConfig)):
            fields = table(getattr(self, name), name)
            for field_name in fields:
                place = belongs(field_name)
                if place and field_name not in FIELDS[name]:
                    raise ConfigError(
                        f"{field_name} is no field of {name}.{place}", field_name
                    )
            kind.check_values(fields)
            object.__setattr__(self, name, fields)
        check_version(self.version)

    def training_fields(self, preset_name: str) -> dict[str, Any]:
        """Fields of `TrainingConfig`: those of the settings upon those of a preset.

        Limits (epochs, steps, minutes) go together: where the settings have one, those
        of the preset do not count.
        """
        chosen = preset(preset_name)
        pretraining = self.command == "pretrain"
        base = dict(chosen.pretraining if pretraining else chosen.training)
        if any(self.training.get(name) is not None for name in LIMITS):
            base = {k: v for k, v in base.items() if k not in LIMITS}
        return {**base, **self.training}

    def check_complete(self) -> None:
        """Raise `ConfigError` naming what was not given as a path and is needed."""
        for name in PATHS:
            paths = getattr(self, name)
            without = [str(k) for k, path in enumerate(paths, start=1) if path is None]
            if without:
                raise ConfigError(
                    f"{name} {', '.join(without[:5])} of {len(paths)} had no path when "
                    "the settings were written, so the run cannot be repeated from "
                    f"them alone; give all with --{name.replace('_', '-')}.",
                    name,
                )
        if self.missing and self.start is None:
            raise ConfigError(
                "The run started from a model that had no folder, so it cannot be "
                "repeated from its settings alone; give one with --start.",
                "start",
            )


def check_version(version: Any) -> None:
    """Raise `ConfigError` for a version of the format that cannot be read."""
    if not _is_whole(version) or version < 1:
        raise ConfigError(f"version is {version!r}; a whole number is needed.")
    if version > SETTINGS_VERSION:
        raise ConfigError(
            f"version is {version}, this package reads settings up to version "
            f"{SETTINGS_VERSION}. Update napari-muvit."
        )


def checked_paths(paths: Any, name: str) -> Paths:
    """Return paths as texts; None where there is none.

    Raises
    ------
    ConfigError
        For anything else.
    """
    several = [paths] if isinstance(paths, str | Path) else paths
    if not isinstance(several, list | tuple):
        raise ConfigError(f"{name} is {paths!r}; a list of paths is needed.", name)
    for path in several:
        require(
            path is None or isinstance(path, Path) or _is_text(path),
            f"{name} holds {path!r}; a path is needed, in quotes if it is a number.",
            name,
        )
    return tuple(None if path is None else str(path) for path in several)


def _checked_missing(names: Any) -> tuple[str, ...]:
    require(
        isinstance(names, list | tuple) and all(name == "start" for name in names),
        f"missing is {names!r}; it may hold start.",
        "missing",
    )
    return tuple(names)


def _require_text(value: Any, name: str) -> None:
    require(
        value is None or _is_text(value),
        f"{name} is {value!r}; a text is needed.",
        name,
    )


def table(values: Any, name: str) -> dict[str, Any]:
    """A table of plain values, lists as tuples."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name} is {values!r}; a table is needed.", name)
    fields: dict[str, Any] = plain(values, name)
    return fields


def plain(value: Any, name: str) -> Any:
    """Values of Python's own types, tuples for lists."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, list | tuple):
        return tuple(plain(v, name) for v in value)
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {str(k): plain(v, f"{name}.{k}") for k, v in value.items()}
    raise ConfigError(
        f"{name} holds {value!r}; texts, numbers, lists and tables are needed.", name
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_key(value: object) -> bool:
    """Whether a value may name or number a channel or an image."""
    return _is_text(value) or _is_whole(value)
