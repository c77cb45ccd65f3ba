"""What a run has seen so far: its validations, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base_module import Metrics, Validation


def score(metrics: Mapping[str, float]) -> tuple[float, float]:
    """Higher is better: the mean Dice where there is one, then the loss."""
    loss = metrics.get("val_loss", math.inf)
    return metrics.get("mDSC", -1.0), -loss if math.isfinite(loss) else -math.inf


@dataclass(slots=True)
class Course:
    """Validations in order, and the best one."""

    history: list[Metrics] = field(default_factory=list)
    """One row a validation."""
    best: Metrics = field(default_factory=dict)
    """Figures of the weights that are kept."""
    confusion: NDArray[np.int64] | None = None
    """Of the best validation."""
    waiting: int = 0
    """Validations since the best one."""

    def add(self, found: Validation, row: Metrics) -> bool:
        """Take in a validation; whether it is the best so far."""
        self.history.append({**row, **found.metrics})
        if self.best and score(found.metrics) <= score(self.best):
            self.waiting += 1
            return False
        self.best = {**found.metrics, "step": row["step"]}
        self.confusion = found.confusion
        self.waiting = 0
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        confusion = None if self.confusion is None else self.confusion.tolist()
        return {
            "history": self.history,
            "best": self.best,
            "confusion": confusion,
            "waiting": self.waiting,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Course:
        """Build from plain JSON types."""
        confusion = values["confusion"]
        return cls(
            history=list(values["history"]),
            best=dict(values["best"]),
            confusion=None if confusion is None else np.array(confusion, np.int64),
            waiting=int(values["waiting"]),
        )
