"""Training on Lightning; the only place that imports it.

Names are imported when they are used: Lightning takes seconds to load.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .plan import TrainingPlan
    from .pretrain import check_pretraining, plan_pretraining, pretrain
    from .result import TrainingResult
    from .run import check_training, finetune, plan_finetuning

_HOMES = {
    "TrainingPlan": "plan",
    "TrainingResult": "result",
    "check_pretraining": "pretrain",
    "check_training": "run",
    "finetune": "run",
    "plan_finetuning": "run",
    "plan_pretraining": "pretrain",
    "pretrain": "pretrain",
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
