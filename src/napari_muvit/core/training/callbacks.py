"""Progress, stopping, validation and saving, as Lightning callbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L

from ..errors import Cancelled
from ..progress import Progress, ProgressFn, StopFn
from .base_module import Metrics, TrainingModule
from .budget import Budget
from .course import Course
from .distributed import Together
from .ema import WeightAverage
from .keeper import StateKeeper
from .run_log import RunLog
from .state import RunState

RATE_STEPS = 20
"""Steps over which the speed is averaged."""


class StopCallback(L.Callback):
    """Raise `Cancelled` between batches, in all processes at once.

    Lightning's own flag would wait for the end of a validation. It is the last of the
    callbacks: a step that has been taken has to be counted before it stops.
    """

    def __init__(self, should_stop: StopFn, together: Together) -> None:
        self.should_stop = should_stop
        self.together = together

    def _check(self, *_args: Any, **_kwargs: Any) -> None:
        if self.together.any(self.should_stop()):
            raise Cancelled("Stopped on request; what was finished is kept.")

    on_train_batch_start = _check
    on_train_batch_end = _check
    on_validation_start = _check
    on_validation_batch_start = _check
    on_validation_batch_end = _check


class AgreeCallback(L.Callback):
    """Makes sure that all processes split a step alike, or they would wait for ever.

    Each finds out what fits into its own free memory.

    Parameters
    ----------
    passes
        Of a step, in this process.
    together
        The processes.
    """

    def __init__(self, passes: int, together: Together) -> None:
        self.passes = passes
        self.together = together

    def setup(
        self, _trainer: L.Trainer, _module: L.LightningModule, stage: str
    ) -> None:
        """Ask once the processes know each other."""
        self.together.check_equal(
            self.passes,
            "The devices have not the same memory free, so they would split the crops "
            "of a step differently; give the number of passes (--accumulate).",
        )


class StepCallback(L.Callback):
    """Learning rate by the finished share, progress, log and average, a step at a time.

    Parameters
    ----------
    budget
        Says how far the run is.
    on_progress
        Told of each step.
    passes
        Of a step.
    average
        Takes in the weights after each step.
    log
        Takes a row a step; None in all processes but the first.
    spent
        Seconds of an earlier part of the run.
    """

    def __init__(
        self,
        budget: Budget,
        on_progress: ProgressFn,
        passes: int = 1,
        average: WeightAverage | None = None,
        log: RunLog | None = None,
        spent: float = 0.0,
    ) -> None:
        self.budget = budget
        self.spent = spent
        self.on_progress = on_progress
        self.passes = passes
        self.average = average
        self.run_log = log
        self.in_step = False
        """Whether a step has begun and not ended."""
        self._times: list[float] = []

    def on_train_start(self, _trainer: L.Trainer, _module: L.LightningModule) -> None:
        """Count time from here: to start the processes of a run takes a while."""
        self.budget.start(self.spent)

    def on_train_batch_start(
        self, _trainer: L.Trainer, module: L.LightningModule, _batch: Any, index: int
    ) -> None:
        """Set this step's rate."""
        if isinstance(module, TrainingModule) and index % self.passes == 0:
            fraction = self.budget.fraction(module.steps_done)
            if self.budget.by_time:
                # Clocks differ, and with them the weights would.
                fraction = module.together.first(fraction)
            module.set_rate(fraction)
            module.remember_buffers()
            self.in_step = True

    def on_train_batch_end(
        self,
        _trainer: L.Trainer,
        module: L.LightningModule,
        _outputs: Any,
        _batch: Any,
        index: int,
    ) -> None:
        """Report the step after its last pass."""
        if not isinstance(module, TrainingModule) or (index + 1) % self.passes:
            return
        self.in_step = False
        module.end_step()
        if self.average is not None:
            self.average.update()
        self._times = [*self._times, time.monotonic()][-RATE_STEPS - 1 :]
        metrics = {"loss": module.last_loss, "rate": module.last_rate}
        if len(self._times) > 1:
            span = self._times[-1] - self._times[0]
            metrics["steps_per_second"] = (len(self._times) - 1) / max(span, 1e-9)
        event = progress_event(self.budget, module.steps_done, metrics)
        if self.run_log is not None:
            self.run_log.add({**metrics, "step": module.steps_done,
                          "seconds": self.budget.elapsed})  # fmt: skip
        for logger in module.loggers:
            named = {k: v for k, v in metrics.items() if math.isfinite(v)}
            logger.log_metrics(named, step=module.steps_done)
        self.on_progress(event)


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


class ValidationCallback(L.Callback):
    """Scores a validation and keeps the best weights the moment they are found.

    Parameters
    ----------
    budget
        Says whether the run is over.
    course
        Takes in what was found.
    on_progress
        Told of each validation.
    save_best
        Writes the weights as they are.
    average
        Put in place of the weights while they are judged.
    log
        Takes a row a validation; None in all processes but the first.
    early_stop
        End after so many validations without a better one.
    """

    def __init__(
        self,
        budget: Budget,
        course: Course,
        on_progress: ProgressFn,
        save_best: Callable[[], None],
        average: WeightAverage | None = None,
        log: RunLog | None = None,
        early_stop: int | None = None,
    ) -> None:
        self.budget = budget
        self.course = course
        self.on_progress = on_progress
        self.save_best = save_best
        self.average = average
        self.run_log = log
        self.early_stop = early_stop
        self.ended_early = False

    def on_validation_start(self, _trainer: L.Trainer, _: L.LightningModule) -> None:
        """Judge the average."""
        if self.average is not None:
            self.average.swap_in()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Score, report, keep; end the run behind the last step."""
        if not isinstance(module, TrainingModule):
            return
        found = module.take_validation()
        step = module.steps_done
        row: Metrics = {
            "step": float(step),
            "seconds": self.budget.elapsed,
            "loss": module.last_loss,
        }
        if self.course.add(found, row):
            self.save_best()
        if self.average is not None:
            self.average.swap_out()
        if self.run_log is not None:
            self.run_log.add({**found.metrics, "step": step, "seconds": row["seconds"]})
            self.run_log.flush()
        for logger in module.loggers:
            logger.log_metrics(dict(found.metrics), step=step)
        metrics = {"loss": module.last_loss, **found.metrics}
        self.on_progress(progress_event(self.budget, step, metrics, "validate"))
        self.ended_early = (
            self.early_stop is not None and self.course.waiting >= self.early_stop
        )
        over = self.budget.exhausted(step) or self.ended_early
        if module.together.any(over):
            trainer.should_stop = True


class KeepCallback(L.Callback):
    """Writes the state after each validation, and from time to time between them.

    Parameters
    ----------
    keeper
        Writes it; None in all processes but the first.
    writes
        Whether this is the process that writes.
    seconds
        Longest time between two states.
    passes
        Of a step.
    state
        What the run goes on from.
    before
        Called before a state is written.
    """

    def __init__(
        self,
        keeper: StateKeeper,
        writes: bool,
        seconds: float,
        passes: int,
        state: RunState | None,
        before: Callable[[], None],
    ) -> None:
        self.keeper = keeper
        self.before = before
        self.writes = writes
        self.seconds = seconds
        self.passes = passes
        self.state = state

    def on_train_start(self, trainer: L.Trainer, _module: L.LightningModule) -> None:
        """Put the optimiser back."""
        if self.state is not None:
            self.keeper.restore_optimiser(self.state, trainer)
            self.state = None

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        _module: L.LightningModule,
        _outputs: Any,
        _batch: Any,
        index: int,
    ) -> None:
        """Write when it is time, between two steps that no validation parts."""
        due = time.monotonic() - self.keeper.saved_at > self.seconds
        # What the validation behind an epoch's last step finds belongs to its state.
        between = (index + 1) % self.passes == 0 and not trainer.is_last_batch
        if self.writes and due and between:
            self.before()
            self.keeper.save(trainer)

    def on_validation_end(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        """Write what the validation found along with it."""
        # Without an optimiser it is the one that an earlier part of the run still owed.
        if self.writes and trainer.optimizers:
            self.before()
            self.keeper.save(trainer)
