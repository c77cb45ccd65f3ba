"""Training on Lightning; the only place that imports it."""

from __future__ import annotations

from .pretrain import check_pretraining, pretrain
from .result import TrainingResult
from .run import check_training, finetune

__all__ = [
    "TrainingResult", "check_pretraining", "check_training", "finetune", "pretrain",
]  # fmt: skip
