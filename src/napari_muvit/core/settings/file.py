"""Settings as a file: YAML, JSON or TOML in, YAML out."""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ..checks import meant
from ..errors import ConfigError
from ..files import write_text
from .paths import absolute
from .plain_yaml import read_yaml, to_yaml
from .run import (
    PATHS,
    SETTINGS_VERSION,
    Reading,
    RunSettings,
    belongs,
    check_version,
    checked_paths,
    plain,
    table,
)

SETTINGS_FILE = "config.yaml"
"""Name of the file beside a model."""
WRITTEN_BY_A_RUN = "# Settings of a run of napari-muvit"
"""How a file begins that a run has written."""
MAX_BYTES = 2**21
"""Of a file with settings: tens of thousands of slides."""


def read_settings(path: str | Path) -> RunSettings:
    """Read a file of settings: YAML, JSON or TOML by its suffix.

    Paths in it are relative to its folder.

    Raises
    ------
    ConfigError
        In one line, if it cannot be read or holds what settings do not have.
    """
    file = Path(path)
    content = _content(file)
    folder = os.path.dirname(os.path.abspath(file))
    try:
        # The version first: a newer one may have other keys.
        check_version(content.get("version", SETTINGS_VERSION))
        return _from_content(content, folder)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}", error.field) from error
    except RecursionError as error:
        raise ConfigError(f"{file} is nested too deeply for settings.") from error


def write_settings(path: str | Path, settings: RunSettings) -> Path:
    """Write settings as YAML, paths absolute; the file appears whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    return write_text(Path(path), settings_text(settings))


def settings_text(settings: RunSettings) -> str:
    """Return what `write_settings` writes."""
    command = settings.command or "finetune"
    content: dict[str, Any] = {
        "version": settings.version,
        "command": settings.command,
        "preset": settings.preset,
        "start": settings.start and absolute(settings.start),
        "missing": settings.missing,
        **{
            name: [p and absolute(p) for p in getattr(settings, name)] for name in PATHS
        },
        "reading": {
            k: v for k, v in settings.reading.options().items() if v not in (None, {})
        },
        "tissue": settings.tissue,
        "model": settings.model,
        "training": settings.training,
    }
    parts = [
        f"{WRITTEN_BY_A_RUN} {__version__}. Repeat it with\n"
        f"#   napari-muvit {command} --config THIS_FILE --out NEW_FOLDER\n"
        "# Options of the command win over this file, and this file over the preset.\n"
    ]
    for name, value in content.items():
        if value is not None and value not in ((), [], {}):
            parts.append(_section(name, value))
    return "".join(parts)


def _section(name: str, value: Any) -> str:
    note = ""
    if name in PATHS and None in value:
        note = "# null: given as an object without a path; name all when repeating.\n"
    if name == "missing":
        note = "# Given as objects without a path; name them when repeating.\n"
    blank = "\n" if name in (*PATHS, "reading", "model", "training") else ""
    return blank + note + to_yaml({name: plain(value, name)})


def _content(file: Path) -> dict[str, Any]:
    """Return the table that a file holds."""
    parser = _PARSERS.get(file.suffix.lower())
    if os.path.isdir(file):  # pathlib raises for what may not be entered
        inside = file / SETTINGS_FILE
        hint = f"; give {inside}" if inside.is_file() else ""
        raise ConfigError(f"{file} is a folder, a file with settings is needed{hint}.")
    if parser is None:
        raise ConfigError(
            f"{file} has no suffix of a file with settings; name it "
            f"{', '.join(_PARSERS)} by what it is."
        )
    form, parse = parser
    text = _text(file, form)
    try:
        content = parse(text)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{file} cannot be read as {form}: {reason}.") from error
    if content is None or (form == "TOML" and not content):
        raise ConfigError(f"{file} is empty; settings are needed, such as model: {{}}.")
    if not isinstance(content, dict):
        raise ConfigError(
            f"{file} holds no table of settings; keys are needed, such as "
            f"{', '.join(_KEYS)}."
        )
    return content


def _text(file: Path, form: str) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{file} cannot be read: {reason}.") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"{file} is larger than {MAX_BYTES // 2**20} MiB; that is no file with "
            "settings."
        )
    try:
        # Windows editors put a mark before the text.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} cannot be read as {form}: it is no UTF-8 text."
        ) from error
    if not text.strip():
        raise ConfigError(f"{file} is empty; settings are needed, such as model: {{}}.")
    return text


def _from_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


_PARSERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    ".yaml": ("YAML", read_yaml),
    ".yml": ("YAML", read_yaml),
    ".json": ("JSON", _from_json),
    ".toml": ("TOML", tomllib.loads),
}
_KEYS = tuple(f.name for f in dataclasses.fields(RunSettings))


def _from_content(content: Mapping[str, Any], folder: str) -> RunSettings:
    unknown = sorted(set(content) - set(_KEYS))
    if {"format_version", "kind"} <= set(unknown):
        raise ConfigError(
            f"it describes a model, not a run. Give the {SETTINGS_FILE} beside it to "
            "repeat the run, or its folder with --start to go on from the model."
        )
    if unknown:
        raise ConfigError(
            f"{', '.join(unknown[:5])} is no setting; there are {', '.join(_KEYS)}."
            f"{belongs(unknown[0]) or meant(unknown[0], _KEYS)}",
            unknown[0],
        )
    # A key without a value says nothing, but for the tables, which are tables.
    values = {
        k: v for k, v in content.items() if v is not None or k in ("model", "training")
    }
    for name in PATHS:
        paths = checked_paths(values.get(name, ()), name)
        values[name] = tuple(p and absolute(p, folder) for p in paths)
    if values.get("start") and isinstance(values["start"], str):
        values["start"] = absolute(values["start"], folder)
    if isinstance(values.get("model"), dict) and values["model"].get("boxes") is True:
        # Without quotes it is no text, but nothing else can be meant.
        values["model"] = {**values["model"], "boxes": "true"}
    reading = values.get("reading", {})
    values["reading"] = Reading.from_dict(table(reading, "reading"))
    return RunSettings(**values)
