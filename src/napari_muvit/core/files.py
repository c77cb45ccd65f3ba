"""Small files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .checks import finite_json
from .errors import OutputError


def write_bytes(path: Path, content: bytes) -> Path:
    """Write beside the place, then rename; the folder is made if needed.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there before is left as it is.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            # Half a file on a full disk is of no use, and takes the room.
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}."
        ) from error
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text as UTF-8; see `write_bytes`."""
    return write_bytes(path, text.encode("utf-8", "replace"))


def write_json(path: Path, content: Any) -> Path:
    """Write plain JSON types; numbers that JSON does not know become null."""
    return write_text(path, json.dumps(finite_json(content), indent=2) + "\n")
