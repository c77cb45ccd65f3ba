"""Whether a folder for results may lie where it was asked for."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OutputError
from .place import is_zarr


def check_place(folder: Path, purpose: str) -> None:
    """Refuse a place where no folder can be, or where it would be part of an image.

    Parameters
    ----------
    folder
        That was asked for; nothing is made.
    purpose
        What it is for, such as ``the model``.

    Raises
    ------
    OutputError
        If there is a file in its way, a link that leads nowhere, or an image, or it
        may not be written.
    """
    for path in (folder, *folder.absolute().parents):
        if path.is_symlink() and not path.exists():
            raise OutputError(
                f"{path} is a link that leads nowhere; mend it, or choose another "
                f"folder for {purpose}."
            )
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file; a folder for {purpose} is needed.")
        if is_zarr(path):
            raise OutputError(
                f"{path} is an image; choose a folder for {purpose} outside of it."
            )
    above = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(
            f"{above} may not be written; choose another folder for {purpose}."
        )
