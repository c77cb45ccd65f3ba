"""The panel for napari: thin pages over `napari_muvit.core`.

The panel is imported when it is used: `loading` shows something meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .panel import MuViTPanel

__all__ = ["MuViTPanel"]


def __getattr__(name: str) -> Any:
    if name != "MuViTPanel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .panel import MuViTPanel

    return MuViTPanel
