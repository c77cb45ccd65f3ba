"""What a run left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..config import ModelConfig
from .report.record import RunRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """What a run left."""

    model_path: Path
    """Model folder with the best weights; those of the last step are in ``last``."""
    config: ModelConfig
    """Of the model."""
    best: Mapping[str, float]
    """Validation figures of the kept weights: ``val_loss``, and ``mDSC`` with
    ``Dice NAME`` or ``error LEVEL``; empty when it was stopped before the first
    validation."""
    history: tuple[Mapping[str, float], ...]
    """One row a validation: ``step``, ``seconds``, ``loss``, ``val_loss``, ``mDSC``."""
    stopped: str
    """``steps``, ``minutes``, ``early`` (no better validation for long) or
    ``stopped``."""
    steps: int
    """Optimiser steps done, those before a resume included."""
    seconds: float
    """Wall time of training, validation included."""
    cpu_seconds: float
    """Process CPU time of the same span."""
    notes: tuple[str, ...] = field(default=())
    """What the user should know about the data."""
    report: Path | None = None
    """The readable report; None where the run did not end."""


def result_of(
    path: Path, record: RunRecord, config: ModelConfig, report: Path | None
) -> TrainingResult:
    """What a run's record says, for who called it."""
    return TrainingResult(
        model_path=path,
        config=config,
        best=record.best,
        history=record.history,
        stopped=record.stopped,
        steps=record.steps,
        seconds=record.seconds,
        cpu_seconds=record.cpu_seconds,
        notes=record.notes,
        report=report,
    )
