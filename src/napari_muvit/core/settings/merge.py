"""Options of the command upon the settings of a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..presets import preset
from .run import LIMITS, Command, RunSettings, table

_FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "decoder": ("context_skip", "level_heads"),
    "scale_factors": ("context_skip", "level_heads"),
    "patch_size": ("pyramid_channels",),
    "in_channels": ("background_value", "normalisation"),
    "class_names": ("num_classes", "num_queries", "class_colors", "background"),
    "num_classes": ("class_names", "num_queries", "class_colors", "background"),
}
"""Fields of a model that are chosen anew where another one is changed."""


def merge_settings(
    settings: RunSettings,
    flags: Mapping[str, Any],
    command: Command | None = None,
    assigned: Mapping[str, Mapping[str, Any]] | None = None,
) -> RunSettings:
    """Lay what was asked for on the command upon the settings of a file.

    Parameters
    ----------
    settings
        Of a file, or `RunSettings()`.
    flags
        By field of `RunSettings`; ``reading``, ``model`` and ``training`` are tables
        that are laid upon the file's key by key. What is None or empty was not asked.
    command
        The subcommand; settings of another one are refused.
    assigned
        More of ``model`` and ``training``, field by field: None is a value here.

    Returns
    -------
    RunSettings
        Where a flag changes a field that others follow from (the classes: their number
        and colours; the decoder: its context skip), the file's values of these do not
        count. A limit (epochs, steps, minutes) replaces all limits of the file.

    Raises
    ------
    ConfigError
        If the two cannot go together: other images with the labels of the file.
    """
    if command and settings.command not in (None, command):
        raise ConfigError(
            f"The settings are of {settings.command}; {command} was asked for. Leave "
            "out the key command, or run the other one.",
            "command",
        )
    given = _given(flags)
    for images, labels in (("images", "labels"), ("val_images", "val_labels")):
        alone = images in given and labels not in given
        if alone and getattr(settings, labels):
            raise ConfigError(
                f"Other {images} were given, but the {labels} are those of the file; "
                f"give --{labels.replace('_', '-')} as well.",
                labels,
            )
    if given.get("preset") != settings.preset:
        _check_preset(given.get("preset"), settings.model)
    changes: dict[str, Any] = {"command": command or settings.command, **given}
    if "start" in given:
        changes["missing"] = ()
    reading = _given(given.get("reading"))
    changes["reading"] = dataclasses.replace(settings.reading, **reading)
    more = assigned or {}
    asked = {**_given(given.get("model")), **more.get("model", {})}
    changes["model"] = _merged_model(settings.model, asked)
    training = {**_given(given.get("training")), **more.get("training", {})}
    limited = any(training.get(name) is not None for name in LIMITS)
    kept = {k: v for k, v in settings.training.items() if not (limited and k in LIMITS)}
    changes["training"] = {**kept, **training}
    return dataclasses.replace(settings, **changes)


def _given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """What was asked for: neither None nor empty."""
    empty: tuple[object, ...] = (None, (), [], {})
    return {k: v for k, v in (values or {}).items() if v not in empty}


def _merged_model(file: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    asked = table(asked, "model")
    changed = [k for k, v in asked.items() if k in file and file[k] != v]
    dropped = {other for name in changed for other in _FOLLOWS.get(name, ())}
    return {**{k: v for k, v in file.items() if k not in dropped}, **asked}


def _check_preset(name: str | None, model: Mapping[str, Any]) -> None:
    """Refuse a preset that would change nothing, because the file says it all."""
    if name is not None and set(preset(name).model) <= set(model):
        raise ConfigError(
            f"The preset {name} was asked for, but the settings of the file name every "
            "field of the model, which win. Leave out the preset, or the model in the "
            "file.",
            "preset",
        )
