"""Where the cache of coarse levels lies, how large it may grow, whether it is used."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError

FOLDER, LIMIT = "NAPARI_MUVIT_CACHE", "NAPARI_MUVIT_CACHE_LIMIT_GB"
"""Names of the environment variables."""
DEFAULT_GB = 20.0


def _user_folder() -> Path:
    import platformdirs

    # Without an author's folder above it, which Windows would get.
    return Path(platformdirs.user_cache_dir("napari-muvit", appauthor=False))


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSettings:
    """The cache of coarse levels on disk."""

    folder: Path = field(default_factory=_user_folder)
    """Where; by default in the user's cache folder."""
    limit_bytes: int = int(DEFAULT_GB * 1e9)
    """Entries that were not used for longest go when all together are larger."""
    enabled: bool = True
    """False: nothing is read from it or written to it."""

    @classmethod
    def from_environment(cls) -> CacheSettings:
        """Read ``NAPARI_MUVIT_CACHE`` and ``NAPARI_MUVIT_CACHE_LIMIT_GB``.

        The first is a folder, or ``off``; without it the user's cache folder is used.

        Raises
        ------
        ConfigError
            If the limit is no number of gigabytes.
        """
        where = os.environ.get(FOLDER, "").strip()
        said = os.environ.get(LIMIT, "").strip() or str(DEFAULT_GB)
        try:
            limit = int(float(said) * 1e9)
        except (ValueError, OverflowError):
            limit = -1
        if limit < 0:
            raise ConfigError(
                f"{LIMIT} is {said!r}; a number of gigabytes is needed, such as 20."
            )
        if where.lower() == "off":
            return cls(limit_bytes=limit, enabled=False)
        folder = Path(where).expanduser().absolute() if where else _user_folder()
        return cls(folder=folder, limit_bytes=limit)
