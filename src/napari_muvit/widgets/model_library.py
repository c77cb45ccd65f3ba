"""The models of this user: where they lie, what they are called, what they know.

Models that are imported lie in the user's folder; others stay where they are, beside
their slides, and a small file remembers them. No Qt, no torch.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..core.config import ModelConfig
from ..core.errors import MuvitError, OutputError
from ..core.files import write_json
from ..core.model.checkpoint import CONFIG, is_model_folder, read_header
from ..core.model.kinds import SEGMENTER, plain_kind

FOLDER, INDEX = "models", "models.json"
RECORD = Path("training") / "record.json"
"""What training leaves in a model's folder."""
MARK = "_muvit-model_"
"""In the name of a folder that the panel made: slide before it, time behind it."""
MAX_RECORD = 2**26
"""Bytes; a larger record is none of ours."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model of the list."""

    path: Path
    title: str
    kind: str
    """Class name, such as ``MuViTSegmenter``."""
    config: ModelConfig
    made: datetime
    """When it was trained, or its folder written."""
    seconds: float | None = None
    """How long it was trained."""
    quality: float | None = None
    """mDSC on what training held back."""
    notes: tuple[str, ...] = ()
    """What training had to say."""
    slides: tuple[str, ...] = field(default=())
    """Names of the slides that it learned from."""

    @property
    def segments(self) -> bool:
        """Whether it can be predicted with; a pretrained encoder cannot."""
        return self.kind == SEGMENTER

    @property
    def what(self) -> str:
        """What kind of model it is, in words."""
        return plain_kind(self.kind)


class ModelLibrary:
    """The list of models.

    Parameters
    ----------
    folder
        This user's; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.index = folder / INDEX

    def models(self) -> list[KnownModel]:
        """Return the models that are there, newest first; broken ones are left out."""
        titles = self._titles()
        found = []
        for path in {*titles, *self._own()}:
            with suppress(MuvitError, OSError):
                found.append(read_model(path, titles.get(path, "")))
        return sorted(found, key=lambda m: (m.made, str(m.path)), reverse=True)

    def add(self, path: Path, title: str = "") -> None:
        """Remember a model where it lies; it keeps a name that the user gave it.

        Raises
        ------
        OutputError
            If the list cannot be written.
        """
        titles = self._titles()
        path = _absolute(path)
        if path not in titles or not titles[path]:
            self._write({**titles, path: title})

    def rename(self, path: Path, title: str) -> None:
        """Give a model another name in the list; its folder keeps its own."""
        self._write({**self._titles(), _absolute(path): title.strip()})

    def forget(self, path: Path) -> None:
        """Leave a model out of the list; its folder stays."""
        titles = self._titles()
        titles.pop(_absolute(path), None)
        self._write(titles)

    def delete(self, path: Path) -> None:
        """Delete the folder of a model.

        Raises
        ------
        OutputError
            If it is no model, or cannot be deleted.
        """
        if not is_model_folder(path):
            raise OutputError(f"{path} is no model folder, so it was not deleted.")
        try:
            # Aside first: it is gone as a whole, or still there as a whole.
            doomed = path.with_name(f".{path.name}.deleted")
            shutil.rmtree(doomed, ignore_errors=True)
            path.rename(doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            raise OutputError(
                f"{path} cannot be deleted: {error.strerror or error}. Close what has "
                "it open, or give yourself the right to."
            ) from error
        self.forget(path)

    def import_copy(self, source: Path) -> Path:
        """Copy a model folder into the user's folder, and return the copy.

        Raises
        ------
        CheckpointError
            If it is no model.
        OutputError
            If it cannot be copied.
        """
        read_header(source)
        number, to = 1, self.folder / source.name
        while to.exists():
            number += 1
            to = self.folder / f"{source.name}_{number}"
        part = to.with_name(f".{to.name}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(source, part)
            part.rename(to)
        except (OSError, shutil.Error) as error:
            shutil.rmtree(part, ignore_errors=True)
            raise OutputError(
                f"{source} cannot be copied to {self.folder}: "
                f"{' '.join(str(error).split())[:200]}. Make room there."
            ) from error
        return to

    def _own(self) -> list[Path]:
        """Models in the user's folder: imported ones, and of slides in memory."""
        inside = [*self.folder.glob("*"), *self.index.parent.glob(f"*{MARK}*")]
        return [
            _absolute(p)
            for p in inside
            if not p.name.startswith(".") and is_model_folder(p)
        ]

    def _titles(self) -> dict[Path, str]:
        """Title of each remembered folder that is still there; empty: its own name."""
        try:
            content = json.loads(self.index.read_text(encoding="utf-8"))
            listed = content["models"]
            said = {Path(e["path"]): str(e.get("title", "")) for e in listed}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            # The list is a convenience: what is damaged is made anew.
            return {}
        return {path: title for path, title in said.items() if is_model_folder(path)}

    def _write(self, titles: Mapping[Path, str]) -> None:
        models = [{"path": str(p), "title": title} for p, title in titles.items()]
        write_json(self.index, {"version": 1, "models": models})


def read_model(path: Path, title: str = "") -> KnownModel:
    """Read what is known of a model, from its configuration and its training.

    Raises
    ------
    CheckpointError
        If the folder is no model.
    """
    header = read_header(path)
    record = _record(path)
    made = datetime.fromtimestamp((path / CONFIG).stat().st_mtime).astimezone()
    best = record.get("best")
    seconds = record.get("seconds")
    quality = _number(best.get("mDSC")) if isinstance(best, dict) else None
    return KnownModel(
        path=_absolute(path),
        title=title or _plain_title(path.name, made, quality),
        kind=header.kind,
        config=header.config,
        made=made,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        quality=quality,
        notes=_texts(record.get("notes")),
        slides=_texts(
            [s.get("name") for s in record.get("slides", ()) if isinstance(s, dict)]
        ),
    )


def _plain_title(name: str, made: datetime, quality: float | None) -> str:
    """Return what a model is called before the user names it."""
    stem, trained_here, _ = name.partition(MARK)
    if not trained_here:
        return name
    known = "" if quality is None else f" · mDSC {quality:.2f}"
    return f"{stem} · {made:%d %b %H:%M}{known}"


def _record(path: Path) -> dict[str, Any]:
    file = path / RECORD
    try:
        if file.stat().st_size > MAX_RECORD:
            return {}
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _texts(values: object) -> tuple[str, ...]:
    return tuple(map(str, values)) if isinstance(values, list) else ()


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))
