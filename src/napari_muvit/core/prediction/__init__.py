"""Whole-slide prediction: plan, run and write. The plan needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .plan import Crop, PredictionPlan, Tile, plan_prediction

if TYPE_CHECKING:
    from .run import PredictedTile, PredictionRun, predict

__all__ = [
    "Crop",
    "PredictedTile",
    "PredictionPlan",
    "PredictionRun",
    "Tile",
    "plan_prediction",
    "predict",
]


def __getattr__(name: str) -> Any:
    # A form that previews a plan must not wait for torch.
    if name in __all__:
        from . import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
