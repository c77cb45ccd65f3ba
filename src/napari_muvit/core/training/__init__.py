"""Training on Lightning; the only place that imports it."""

from __future__ import annotations

from .run import TrainingResult, check_training, finetune

__all__ = ["TrainingResult", "check_training", "finetune"]
