"""Which model was used last, for one click later, in this session or another."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from qtpy.QtCore import QStandardPaths

from ..core.errors import MuvitError
from ..core.files import write_json

KEY = "last_model"


def memory_file() -> Path:
    """Return the file in which the panel remembers what was used last."""
    base = QStandardPaths.writableLocation(
        QStandardPaths.StandardLocation.GenericConfigLocation
    )
    return Path(base) / "napari-muvit-last.json"


def remember_model(folder: Path) -> None:
    """Note that a model is in use; where that cannot be written, it is forgotten."""
    path = memory_file()
    with contextlib.suppress(OSError, MuvitError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {KEY: str(folder.absolute())})


def last_model() -> Path | None:
    """Return the folder of the model that was used last, if it is still there."""
    try:
        folder = Path(json.loads(memory_file().read_text())[KEY])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if (folder / "config.json").is_file() else None
