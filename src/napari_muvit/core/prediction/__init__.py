"""Whole-slide prediction: plan, run and write. The plan needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .plan import PredictionPlan, plan_prediction
from .tiles import Crop, Tile

if TYPE_CHECKING:
    from .entry import predict
    from .predicted import PredictedTile
    from .run import PredictionRun

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
        from . import entry, predicted, run

        homes = {"predict": entry, "PredictedTile": predicted, "PredictionRun": run}
        return getattr(homes[name], name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
