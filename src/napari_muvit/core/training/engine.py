"""One run, from its first step or from where it was left, to its end or a stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..config import ModelConfig, TrainingConfig
from ..data.loading import StoppableDataset, make_loader
from ..errors import Cancelled
from ..lock import OutputLock
from ..model.checkpoint import is_model_folder, save_model
from ..progress import Progress, ProgressFn, StopFn, ignore_progress, never_stop
from ..settings import SETTINGS_FILE, Command, RunSettings, write_settings
from .base_module import TrainingModule
from .budget import Budget, EpochBatches, EpochSampler
from .callbacks import (
    AgreeCallback,
    KeepCallback,
    StepCallback,
    StopCallback,
    ValidationCallback,
)
from .course import Course
from .distributed import is_first_process
from .ema import WeightAverage
from .failures import SignalCallback, plain_failures
from .keeper import Asked, StateKeeper, check_same
from .mae_module import PretrainModule
from .memory import FittedBatch, MemoryPlan, advised
from .run_folder import RunFolder
from .run_log import RunLog
from .samples import RankShare, Remembered, count_validation_crops
from .state import RunState, read_state
from .stoppable import stoppable
from .trainer import make_trainer, quiet

if TYPE_CHECKING:
    import lightning as L


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Job:
    """Everything that a run needs, checked."""

    kind: Command
    module: TrainingModule
    """The network before its first step, and its loss."""
    model: ModelConfig
    """Of the network."""
    training: Dataset[Any]
    """Samples by index, without end."""
    validation: Dataset[Any]
    """Samples by index, without end."""
    folder: RunFolder
    """Where the run keeps its files."""
    device: torch.device
    """Where it runs."""
    memory: MemoryPlan
    """What it needs, and how its batch is split to fit."""
    data: str
    """Fingerprint of slides and annotations."""
    log_columns: tuple[str, ...]
    """What a validation finds."""
    settings: RunSettings
    """What the run was asked for; written beside the model."""

    @property
    def passes(self) -> int:
        """Of a step: how often a part of its crops goes through the network."""
        return self.memory.batch.accumulate

    def asked(self, config: TrainingConfig) -> Asked:
        """What the run was asked for."""
        return Asked(
            kind=self.kind,
            model=self.model.to_dict(),
            training=config.to_dict(),
            data=self.data,
        )


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Outcome:
    """How a run went."""

    course: Course
    steps: int
    seconds: float
    cpu_seconds: float
    stopped: str
    """``steps``, ``minutes``, ``early`` or ``stopped``."""


class Run:
    """One run of a job; to be made and trained while its folder is held (`at_work`).

    Parameters
    ----------
    job
        What to train.
    config
        How.
    on_progress, should_stop
        See `finetune`.
    resume
        Go on with what the folder holds, if it holds something.

    Raises
    ------
    ConfigError
        If it was asked for something else than before.
    """

    def __init__(
        self,
        job: Job,
        config: TrainingConfig,
        on_progress: ProgressFn,
        should_stop: StopFn,
        resume: bool,
    ) -> None:
        self.job, self.config = job, config
        self.first = is_first_process(config)
        self.on_progress = on_progress if self.first else ignore_progress
        self.should_stop = should_stop
        self.state: RunState | None = None
        self.course = Course()
        self._moved_in = False
        if resume and job.folder.unfinished:
            self.state = read_state(job.folder.state)
            check_same(job.asked(config), self.state.facts["asked"], job.folder)
            self.course = Course.from_dict(self.state.facts["course"])
            job = self.job = _with_passes(job, int(self.state.facts["passes"]), config)
        self.budget = Budget(config, epoch_length=self._stored("steps_per_epoch"))
        network = job.module.network
        self.average = WeightAverage(network, config.ema) if config.ema else None
        self.keeper = StateKeeper(
            job.folder, job.asked(config), job.module, self.budget, self.course,
            self.average, job.passes,
        )  # fmt: skip
        if self.state is not None:
            self.keeper.restore_network(self.state)
            self._say(f"Going on after step {job.module.first_step}.")
        elif resume and is_model_folder(job.folder.path):
            self._say("The run here left nothing to go on from; it begins anew.")
        if isinstance(job.module, PretrainModule):
            job.module.passes = job.passes

    def _stored(self, name: str) -> Any:
        return None if self.state is None else self.state.facts[name]

    @property
    def _spent(self) -> float:
        """Seconds of earlier parts of the run."""
        return float(self._stored("seconds") or 0.0)

    def _say(self, message: str) -> None:
        self.on_progress(Progress(stage="prepare", done=1, total=1, message=message))

    def train(self, lock: OutputLock | None) -> Outcome:
        """Train to the end, or until a stop.

        Parameters
        ----------
        lock
            Of `at_work`; None in all processes but the one that writes.
        """
        job, config, module = self.job, self.config, self.job.module
        log = None
        if lock is not None:
            log = RunLog(
                job.folder.log, job.log_columns, module.first_step, self._say
            )  # fmt: skip
            self.keeper.log = log
        steps = StepCallback(
            self.budget,
            self.on_progress,
            job.passes,
            self.average,
            log,
            self._spent,
        )
        judge = ValidationCallback(
            self.budget, self.course, self.on_progress, self._save_best, self.average,
            log, config.early_stop,
        )  # fmt: skip
        keep = KeepCallback(
            self.keeper, lock is not None, 60 * config.checkpoint_minutes, job.passes,
            self.state, self._move_in,
        )  # fmt: skip
        together = module.together
        stop = StopCallback(self.should_stop, together)
        agree = AgreeCallback(job.passes, together)
        with quiet():
            trainer = make_trainer(
                config, job.device,
                # A stop comes behind the end of a step: half of it would be kept else.
                [SignalCallback(), agree, steps, judge, keep, stop],
                job.passes, job.folder.private,
            )  # fmt: skip
        together.attach(trainer)
        stopped = ""
        try:
            with (
                advised(job.memory),
                plain_failures(config.world_size),
                self._stoppable(),
                quiet(),
            ):
                self._fit(trainer)
        except Cancelled:
            stopped = "stopped"
            self._after_stop(trainer, steps, lock)
        finally:
            if log is not None:
                log.flush()
        if not stopped:
            ended = self.budget.stop_reason(module.steps_done)
            stopped = "early" if self._waited_enough else ended
        if lock is not None:
            self._keep_last()
        return Outcome(
            course=self.course,
            steps=module.steps_done,
            seconds=self.budget.elapsed,
            cpu_seconds=self.keeper.cpu_seconds,
            stopped=stopped,
        )

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Listen within a step where this process alone can leave it."""
        if self.config.world_size > 1 or self.config.compile:
            yield
            return
        with stoppable(self.job.module.network, self.should_stop):
            yield

    def _fit(self, trainer: L.Trainer) -> None:
        job, config, keeper = self.job, self.config, self.keeper
        self.budget.start(self._spent)
        size = config.batch_size // (job.passes * config.world_size)
        crops = keeper.validation_crops or count_validation_crops(
            job.module.network, job.validation, self.budget, config, job.device, size
        )
        keeper.validation_crops = crops
        if isinstance(job.module, PretrainModule):
            job.module.validation_crops = crops
        sampler = EpochSampler(
            self.budget, config.batch_size, accumulate=job.passes,
            together=job.module.together, first_step=job.module.first_step,
        )  # fmt: skip
        # A process that left by itself would be waited for by the others.
        alone = config.world_size == 1
        should_stop = self.should_stop if alone else never_stop
        samples = Remembered(StoppableDataset(job.validation, should_stop))
        share = RankShare(samples, crops, job.module.together)
        validation = DataLoader(share, batch_size=size)
        if self._owes_validation:
            trainer.validate(job.module, validation, verbose=False)
        if self.budget.exhausted(job.module.first_step) or self._waited_enough:
            return
        loader = make_loader(
            job.training,
            batch_sampler=sampler,
            num_workers=config.num_workers,
            pin_memory=job.device.type == "cuda",
            should_stop=should_stop,
        )
        trainer.fit(job.module, EpochBatches(loader, sampler), validation)

    @property
    def _waited_enough(self) -> bool:
        """Whether no validation was better for so long that the run is over."""
        patience = self.config.early_stop
        return patience is not None and self.course.waiting >= patience

    @property
    def _owes_validation(self) -> bool:
        """Whether the run was stopped between an epoch and its validation."""
        step, history = self.job.module.first_step, self.course.history
        known = int(history[-1]["step"]) if history else 0
        ends = step % self.budget.steps_per_epoch == 0 or self.budget.exhausted(step)
        return step > known and ends

    def _save_best(self) -> None:
        """Write the weights as they are, with what is known about them."""
        if self.first:
            self._move_in()
            self._save_model(self.course.best)

    def _move_in(self) -> None:
        """Make the folder this run's, before its first file lies there."""
        if self._moved_in:
            return
        self._moved_in = True
        folder = self.job.folder
        settings = dataclasses.replace(
            self.job.settings,
            command=self.job.kind,
            model=self.job.model.to_dict(),
            training=self.config.to_dict(),
        )
        # First: a run that is killed here is told by its settings from the one that it
        # replaces, or begins anew with its own.
        write_settings(folder.path / SETTINGS_FILE, settings)
        if self.state is None:
            # Of a run that this one replaces: it would go with another model.
            folder.forget()

    def _save_model(self, metrics: Any) -> None:
        """Write the run's model, in place of one that was there before."""
        self._save(self.job.folder.path, metrics)
        # With overwrite there are results of a model that is gone now.
        self.job.folder.forget_results(replaced=not self.keeper.has_model)
        self.keeper.has_model = True

    def _save(self, folder: Path, metrics: Any) -> None:
        training = {"config": self.config.to_dict(), "history": self.course.history}
        save_model(self.job.module.network, folder, metrics=metrics, training=training)

    def _after_stop(
        self, trainer: L.Trainer, steps: StepCallback, lock: OutputLock | None
    ) -> None:
        """Put a half step back, and keep what there is."""
        module, folder = self.job.module, self.job.folder
        if self.average is not None:
            self.average.swap_out()
        if steps.in_step:
            module.undo_half_step()
        if lock is None:
            return
        if module.steps_done == 0:
            raise Cancelled("Stopped before the first step; there is no model yet.")
        self._move_in()
        # With overwrite: a validated model is worth more than a few steps.
        others = is_model_folder(folder.path) and not self.keeper.has_model
        if not (self.course.best or others):
            self._save_model({})
        if module.steps_done != self.keeper.saved_step and trainer.optimizers:
            self.keeper.save(trainer)
        if others:
            raise Cancelled(
                "Stopped before the first validation; the model that was at "
                f"{folder.path} is kept. Go on with --resume."
            )

    def _keep_last(self) -> None:
        """Keep the last weights beside the best."""
        last = self.course.history[-1] if self.course.history else {}
        if self.average is not None:
            self.average.swap_in()
        self._save(self.job.folder.last, {k: v for k, v in last.items() if k != "step"})
        if self.average is not None:
            self.average.swap_out()


def _with_passes(job: Job, passes: int, config: TrainingConfig) -> Job:
    """Split a step as before, so that a run goes on to the same weights.

    What the user asks for now comes first.
    """
    share = config.batch_size // config.world_size
    if config.accumulate is not None or share % passes:
        return job
    batch = FittedBatch(micro_batch=share // passes, accumulate=passes)
    return dataclasses.replace(job, memory=dataclasses.replace(job.memory, batch=batch))
