"""How the settings of a run differ from those of a preset."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...config import ModelConfig, TrainingConfig
from ...errors import ConfigError
from ...presets import PRESETS
from .record import RunRecord

OF_THE_DATA = (
    "in_channels", "num_classes", "num_queries", "class_names", "class_colors",
    "background", "zero_is_background", "background_value", "pixel_size",
    "normalisation",
)  # fmt: skip
"""Model settings that follow from slides and labels; no preset has them."""
Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that is not as in the preset."""

    name: str
    value: Any
    usual: Any
    """Of the preset."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Settings of a run against those of a preset."""

    preset: str
    """Its name; empty: there is none to compare with."""
    model: tuple[Change, ...] = ()
    training: tuple[Change, ...] = ()


def compare_settings(record: RunRecord) -> Comparison:
    """Compare with the preset of the record, or with the one that is nearest."""
    names = [record.preset] if record.preset in PRESETS else list(PRESETS)
    found = [c for c in (_against(record, name) for name in names) if c is not None]
    if not found:
        return Comparison("")
    return min(found, key=lambda c: len(c.model) + len(c.training))


def _against(record: RunRecord, name: str) -> Comparison | None:
    of_data = {k: record.model[k] for k in OF_THE_DATA if k in record.model}
    try:
        usual = ModelConfig.from_dict({**PRESETS[name].model, **of_data}).to_dict()
    except (ConfigError, TypeError, ValueError):
        # A record of another version: its settings are shown as they are.
        return None
    preset = PRESETS[name]
    trained = preset.pretraining if record.kind == "pretrain" else preset.training
    defaults = {f.name: f.default for f in dataclasses.fields(TrainingConfig)}
    return Comparison(
        name,
        _changes(record.model, usual),
        _changes(record.training, {**defaults, **trained}),
    )


def _changes(values: Settings, usual: Settings) -> tuple[Change, ...]:
    """Settings that both have and that differ."""
    return tuple(
        Change(name, value, usual[name])
        for name, value in values.items()
        if name in usual and _plain(value) != _plain(usual[name])
    )


def _plain(value: Any) -> Any:
    """Lists and tuples of equal numbers are the same setting."""
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value
