"""What the user has set in Preferences > MuViT, where napari keeps it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..core.data.cache_settings import DEFAULT_GB, FOLDER, LIMIT
from .places import cache_folder

PLUGIN = "napari-muvit"
TORCH = "TORCHINDUCTOR_CACHE_DIR"
"""Folder that torch makes as soon as it is imported, else among temporary files."""


@dataclass(frozen=True, slots=True)
class PanelSettings:
    """Settings of the panel; the manifest lists them with the same defaults."""

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    threads: int = 0
    """CPU threads of torch; 0: all cores but one, which is napari's."""
    cache_folder: str = ""
    """Where coarse levels are kept that slides lack; empty: the user's cache folder."""
    cache_gigabytes: float = DEFAULT_GB
    """Largest size of it."""
    own_process: bool = True
    """Whether training and prediction run in a process of their own."""

    @property
    def num_threads(self) -> int:
        """Threads for torch."""
        # With all of them panning would stutter.
        return self.threads or max(1, (os.cpu_count() or 2) - 1)

    def environment(self) -> Mapping[str, str]:
        """Variables for the process that does the work."""
        found = {
            LIMIT: f"{self.cache_gigabytes:g}",
            TORCH: str(cache_folder() / "torch"),
        }
        if self.cache_folder.strip():
            found[FOLDER] = self.cache_folder.strip()
        # What was set outside is meant for this session.
        return {k: v for k, v in found.items() if k not in os.environ}


def read_settings() -> PanelSettings:
    """Return the settings; the defaults where napari has none of this plugin."""
    try:
        from napari.settings import get_plugin_settings

        kept = get_plugin_settings(PLUGIN).work
    except (ImportError, KeyError, AttributeError):
        return PanelSettings()
    defaults = PanelSettings()
    return PanelSettings(
        device=str(kept.device).strip() or defaults.device,
        threads=int(kept.threads),
        cache_folder=str(kept.cache_folder),
        cache_gigabytes=float(kept.cache_gigabytes),
        own_process=bool(kept.own_process),
    )
