"""Training on Lightning; the only place that imports it.

Names are imported when they are used: Lightning takes seconds to load.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .finetuning import finetune, plan_finetuning
    from .plan import TrainingPlan
    from .pretraining import check_pretraining, plan_pretraining, pretrain
    from .ready import check_training
    from .result import TrainingResult

_HOMES = {
    "TrainingPlan": "plan",
    "TrainingResult": "result",
    "check_pretraining": "pretraining",
    "check_training": "ready",
    "finetune": "finetuning",
    "plan_finetuning": "finetuning",
    "plan_pretraining": "pretraining",
    "pretrain": "pretraining",
}

__all__ = [
    "TrainingPlan", "TrainingResult", "check_pretraining", "check_training", "finetune",
    "plan_finetuning", "plan_pretraining", "pretrain",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, name)
