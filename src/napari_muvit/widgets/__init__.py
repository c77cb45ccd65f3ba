"""The panel for napari: thin pages over `napari_muvit.core`."""

from __future__ import annotations

from .panel import MuViTPanel

__all__ = ["MuViTPanel"]
