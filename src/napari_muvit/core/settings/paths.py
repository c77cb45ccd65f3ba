"""Paths as settings hold them: from the root, web addresses as they are."""

from __future__ import annotations

import os
import re
from pathlib import Path


def source_path(source: object) -> str | None:
    """Return the path or web address of a slide, labels or a model; None: an object."""
    return absolute(str(source)) if isinstance(source, str | Path) else None


def absolute(path: str, folder: str | None = None) -> str:
    """Return a path from the root; web addresses are left as they are.

    Parameters
    ----------
    path
        ``~`` is understood.
    folder
        What it is relative to; None: the current folder.
    """
    if re.match(r"[A-Za-z][\w+.-]+://", path):
        return path
    path = os.path.expanduser(path)
    return os.path.abspath(os.path.join(folder or os.curdir, path))
