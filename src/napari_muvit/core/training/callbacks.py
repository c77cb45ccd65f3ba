"""Progress, stopping and the best model, as one Lightning callback each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
from torch import Tensor, nn

from ..evaluation import dice_from_confusion
from ..model.layers import ConvBlock
from ..model.transformer import Block
from ..progress import Progress, ProgressFn, StopFn, check_stop
from .budget import Budget
from .modules import FineTuneModule

Metrics = dict[str, float]


@contextmanager
def stoppable(model: nn.Module, should_stop: StopFn) -> Iterator[None]:
    """Ask ``should_stop`` inside forward and backward passes.

    A step of a large model on a CPU takes minutes; a stop may not.
    """

    def before(_module: nn.Module, _inputs: Any) -> None:
        check_stop(should_stop)

    def on_gradient(_gradient: Tensor) -> None:
        check_stop(should_stop)

    def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(on_gradient)

    handles = [m.register_forward_pre_hook(before) for m in model.modules()]
    handles += [
        m.register_forward_hook(after)
        for m in model.modules()
        if isinstance(m, (Block, ConvBlock))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class StopCallback(L.Callback):
    """Raise `Cancelled` between batches.

    Lightning's own flag would wait for the end of a validation.
    """

    def __init__(self, should_stop: StopFn) -> None:
        self.should_stop = should_stop

    def _check(self, *_args: Any, **_kwargs: Any) -> None:
        check_stop(self.should_stop)

    on_train_batch_start = _check
    on_train_batch_end = _check
    on_validation_start = _check
    on_validation_batch_start = _check
    on_validation_batch_end = _check


class ScheduleCallback(L.Callback):
    """Learning rate by the finished share; progress; the end of the run."""

    def __init__(self, budget: Budget, on_progress: ProgressFn) -> None:
        self.budget = budget
        self.on_progress = on_progress

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_args: Any
    ) -> None:
        """Set this step's rate."""
        if isinstance(pl_module, FineTuneModule):
            pl_module.set_rate(self.budget.fraction(trainer.global_step))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_args: Any
    ) -> None:
        """Report the step."""
        loss = getattr(pl_module, "last_loss", math.nan)
        self.on_progress(
            progress_event(self.budget, trainer.global_step, {"loss": loss})
        )

    def on_validation_end(
        self, trainer: L.Trainer, _pl_module: L.LightningModule
    ) -> None:
        """End the run behind the validation that follows the last step."""
        if self.budget.exhausted(trainer.global_step):
            trainer.should_stop = True


def progress_event(
    budget: Budget, step: int, metrics: Mapping[str, float], stage: str = "train"
) -> Progress:
    """Return an event in the unit of the limit that comes first."""
    fraction = budget.fraction(step)
    extra = {"step": float(step), "elapsed": budget.elapsed, "fraction": fraction}
    if fraction > 0:
        extra["remaining"] = budget.elapsed * (1 - fraction) / fraction
    by_steps = bool(budget.max_steps) and step / budget.max_steps >= fraction
    done = float(step) if by_steps else min(budget.elapsed, budget.seconds)
    return Progress(
        stage="validate" if stage == "validate" else "train",
        done=done,
        total=float(budget.max_steps) if by_steps else budget.seconds,
        unit="step" if by_steps else "s",
        metrics={**metrics, **extra},
    )


class BestModelCallback(L.Callback):
    """Validation Dice; the best weights are saved the moment they are found."""

    def __init__(
        self,
        budget: Budget,
        on_progress: ProgressFn,
        save: Callable[[Mapping[str, float], list[Metrics]], None],
    ) -> None:
        self.budget = budget
        self.on_progress = on_progress
        self.save = save
        self.best: Metrics = {}
        self.history: list[Metrics] = []

    def on_validation_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> None:
        """Score, report, keep."""
        if not isinstance(pl_module, FineTuneModule):
            return
        loss, confusion = pl_module.take_validation()
        config = pl_module.segmenter.config
        dice = dice_from_confusion(confusion)
        metrics: Metrics = {"val_loss": loss}
        foreground = [float(dice[k - 1]) for k in config.foreground]
        known = [d for d in foreground if math.isfinite(d)]
        if known:
            metrics["mDSC"] = sum(known) / len(known)
        for k, name in enumerate(config.names, start=1):
            if math.isfinite(float(dice[k - 1])):
                metrics[f"Dice {name}"] = float(dice[k - 1])
        step = trainer.global_step
        row = {
            "step": float(step),
            "seconds": self.budget.elapsed,
            "loss": pl_module.last_loss,
            **metrics,
        }
        self.history.append(row)
        if not self.best or _score(metrics) > _score(self.best):
            self.best = {**metrics, "step": float(step)}
            self.save(self.best, self.history)
        self.on_progress(
            progress_event(
                self.budget, step, {"loss": pl_module.last_loss, **metrics}, "validate"
            )
        )


def _score(metrics: Mapping[str, float]) -> tuple[float, float]:
    """Higher is better: the mean Dice, then the loss."""
    loss = metrics.get("val_loss", math.inf)
    return metrics.get("mDSC", -1.0), -loss if math.isfinite(loss) else -math.inf
