"""Training on Lightning; the only place that imports it."""

from __future__ import annotations

from .plan import TrainingPlan
from .pretrain import check_pretraining, plan_pretraining, pretrain
from .result import TrainingResult
from .run import check_training, finetune, plan_finetuning

__all__ = [
    "TrainingPlan", "TrainingResult", "check_pretraining", "check_training", "finetune",
    "plan_finetuning", "plan_pretraining", "pretrain",
]  # fmt: skip
