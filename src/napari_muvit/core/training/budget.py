"""How long a run lasts, and when it validates."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from torch.utils.data import Sampler

from ..config import TrainingConfig
from .distributed import Together

VALIDATIONS = 8
"""Validations that a run has at least."""
VALIDATION_SHARE = 0.10
"""Largest share of a time budget that goes into validation."""
MAX_AUTO_EPOCH = 256
"""Longest epoch, in steps, that is chosen without being asked for."""


class Budget:
    """What is left of a run.

    Parameters
    ----------
    config
        Limits of the run.
    clock
        Seconds; monotonic.
    epoch_length
        Steps of an epoch, of an earlier part of the run; None: as configured.
    """

    def __init__(
        self,
        config: TrainingConfig,
        clock: Callable[[], float] = time.monotonic,
        epoch_length: int | None = None,
    ) -> None:
        self.seconds = math.inf if config.minutes is None else 60 * config.minutes
        if epoch_length == sys.maxsize:
            # The clock ended its epochs; of another limit nothing would.
            epoch_length = None
        self.max_steps = config.steps or 0
        self.steps_per_epoch = (
            epoch_length or config.steps_per_epoch or _epoch_length(config)
        )
        if config.epochs is not None:
            by_epochs = config.epochs * self.steps_per_epoch
            self.max_steps = min(self.max_steps or by_epochs, by_epochs)
        self._clock = clock
        self._start = clock()
        self._reserve = 0.0

    def start(self, spent: float = 0.0) -> None:
        """Count time from now, after ``spent`` seconds of an earlier part."""
        self._start = self._clock() - spent

    def reserve(self, seconds: float) -> None:
        """Keep time back for the last validation."""
        self._reserve = min(seconds, 0.05 * self.seconds)

    @property
    def reserved(self) -> float:
        """Seconds that are kept back."""
        return self._reserve

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def by_time(self) -> bool:
        """Whether the clock has a say."""
        return math.isfinite(self.seconds)

    def fraction(self, step: int) -> float:
        """Finished share, 0 to 1, by the limit that comes first."""
        by_time = self.elapsed / (self.seconds - self._reserve)
        by_steps = step / self.max_steps if self.max_steps else 0.0
        return min(1.0, max(by_time, by_steps))

    def exhausted(self, step: int) -> bool:
        """Whether the run is over after ``step`` steps."""
        return self.fraction(step) >= 1.0

    def stop_reason(self, step: int) -> str:
        """Name the limit that ended the run."""
        return "steps" if self.max_steps and step >= self.max_steps else "minutes"

    def validation_batches(self, seconds_a_batch: float, wanted: int) -> int:
        """Batches of a validation such that all of them fit the time budget's share."""
        if math.isinf(self.seconds):
            return wanted
        each = VALIDATION_SHARE * self.seconds / (VALIDATIONS + 2)
        return max(1, min(wanted, int(each / max(seconds_a_batch, 1e-6))))

    def epoch_deadline(self, number: int) -> float:
        """Latest end of epoch ``number`` (from 0), in seconds since the start.

        The ends are shares of the whole budget: if each epoch had a length of its own,
        late steps and validations would add up and cost a validation.
        """
        return self.seconds / (VALIDATIONS + 1) * (number + 1)

    def epochs_at(self, elapsed: float) -> int:
        """Epochs whose latest end lies before ``elapsed`` seconds."""
        if not self.by_time:
            return 0
        return int(elapsed / self.epoch_deadline(0))


def _epoch_length(config: TrainingConfig) -> int:
    """Steps of an epoch that the user did not set."""
    if config.steps is not None:
        return max(1, min(MAX_AUTO_EPOCH, math.ceil(config.steps / VALIDATIONS)))
    if config.minutes is not None and config.epochs is None:
        # The clock ends the epochs: fast steps would otherwise validate more often
        # than the time budget has validations for.
        return sys.maxsize
    return MAX_AUTO_EPOCH


class EpochSampler(Sampler[list[int]]):
    """Batches of sample indices; an iteration is an epoch by its count of steps.

    Indices count up over the whole run, so that no two steps draw the same places. The
    crops of a step are the same, however they are shared among processes and passes.
    Workers read ahead of the steps: where an epoch really ends says `EpochBatches`.

    Parameters
    ----------
    budget
        How many steps an epoch, and the run, has.
    batch_size
        Crops a step, in all.
    accumulate
        Passes of a step.
    together
        The processes that share each pass.
    first_step
        Steps that were done in an earlier part of the run.
    """

    def __init__(
        self,
        budget: Budget,
        batch_size: int,
        *,
        accumulate: int = 1,
        together: Together | None = None,
        first_step: int = 0,
    ) -> None:
        self.budget = budget
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.together = together or Together()
        self.steps = first_step
        """Steps before the next iteration."""

    def __iter__(self) -> Iterator[list[int]]:
        length, most = self.budget.steps_per_epoch, self.budget.max_steps
        step = self.steps
        end = step + length - step % length
        for number in range(step, min(end, most) if most else end):
            yield from self._shares(number * self.batch_size)

    def _shares(self, first: int) -> Iterator[list[int]]:
        """Return this process's share of each pass of a step."""
        world = self.together.world
        size = self.batch_size // (world * self.accumulate)
        for number in range(self.accumulate):
            start = first + (number * world + self.together.rank) * size
            yield list(range(start, start + size))


class EpochBatches:
    """Batches of a loader; an iteration is an epoch, which the clock may end earlier.

    What was read ahead by then is read again, as the first of the next epoch.

    Parameters
    ----------
    loader
        Reads what the sampler says.
    sampler
        Goes on behind the last step that was handed out.
    """

    def __init__(self, loader: Iterable[Any], sampler: EpochSampler) -> None:
        self.loader = loader
        self.sampler = sampler
        self.epochs: int | None = None

    def __iter__(self) -> Iterator[Any]:
        sampler, budget = self.sampler, self.sampler.budget
        if self.epochs is None:
            self.epochs = budget.epochs_at(budget.elapsed)
        deadline = budget.epoch_deadline(self.epochs)
        self.epochs += 1
        batches = iter(self.loader)
        try:
            for number, batch in enumerate(batches, start=1):
                yield batch
                if number % sampler.accumulate == 0:
                    sampler.steps += 1
                    if self._over(deadline):
                        return
        finally:
            # Ends the thread that reads, where there is one.
            if isinstance(batches, Generator):
                batches.close()

    def _over(self, deadline: float) -> bool:
        """Whether the epoch, or the run, is over by now; all processes have to ask."""
        sampler, budget = self.sampler, self.sampler.budget
        over = budget.elapsed >= deadline or budget.exhausted(sampler.steps)
        # Counted steps are the same everywhere, clocks are not.
        return sampler.together.any(over) if budget.by_time else over
