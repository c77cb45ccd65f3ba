from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from napari_muvit.core.config import TrainingConfig
from napari_muvit.core.data.datasets import PixelBatch
from napari_muvit.core.training.budget import Budget, EpochBatches, EpochSampler
from napari_muvit.core.training.samples import count_validation_crops


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class ReadsAhead:
    """Takes so many batches more from the sampler than it has handed out."""

    def __init__(self, sampler: EpochSampler, ahead: int) -> None:
        self.sampler, self.ahead = sampler, ahead

    def __iter__(self) -> Iterator[list[int]]:
        batches = iter(self.sampler)
        read = list(islice(batches, self.ahead))
        for batch in batches:
            read.append(batch)
            yield read.pop(0)
        yield from read


def epochs(
    config: TrainingConfig, step_seconds: float, validation_seconds: float = 0.0,
    ahead: int = 0,
) -> list[int]:  # fmt: skip
    """Steps of each epoch of a whole run."""
    clock = Clock()
    budget = Budget(config, clock)
    budget.start()
    sampler = EpochSampler(budget, config.batch_size)
    batches = EpochBatches(ReadsAhead(sampler, ahead), sampler)
    lengths = []
    while not budget.exhausted(sampler.steps):
        count = 0
        for _ in batches:
            clock.now += step_seconds
            count += 1
        lengths.append(count)
        clock.now += validation_seconds
    return lengths


def test_steps_are_exact_and_validated_eight_times() -> None:
    assert epochs(TrainingConfig(steps=100), 1.0) == [13] * 7 + [9]


def test_epochs_times_steps() -> None:
    config = TrainingConfig(epochs=3, steps_per_epoch=5)
    assert epochs(config, 1.0) == [5, 5, 5]
    assert sum(epochs(TrainingConfig(epochs=3, steps_per_epoch=5, steps=12), 1.0)) == 12


def test_minutes_validate_at_least_eight_times_in_time() -> None:
    for step in (0.01, 0.3, 2.0):
        lengths = epochs(TrainingConfig(minutes=1), step)
        assert len(lengths) >= 8
        assert sum(lengths) * step <= 60 + 2 * step


def test_slow_steps_and_validations_do_not_add_up() -> None:
    # Each epoch ended up to a step late, and validations came on top: seven were left.
    for step in (0.3, 2.0, 5.0):
        lengths = epochs(TrainingConfig(minutes=1), step, validation_seconds=0.75)
        assert len(lengths) >= 8


def test_an_epoch_can_be_set_under_minutes() -> None:
    assert set(epochs(TrainingConfig(minutes=1, steps_per_epoch=4), 0.5)) == {4}


def test_validation_takes_at_most_a_tenth_of_the_time() -> None:
    budget = Budget(TrainingConfig(minutes=2))
    batches = budget.validation_batches(0.25, 1000)
    assert 10 * batches * 0.25 <= 0.1 * 120
    assert budget.validation_batches(50.0, 4) == 1
    assert Budget(TrainingConfig(steps=5)).validation_batches(50.0, 4) == 4


def test_no_two_steps_draw_the_same_samples() -> None:
    budget = Budget(TrainingConfig(steps=30, steps_per_epoch=10, batch_size=4))
    batches = EpochBatches(sampler := EpochSampler(budget, 4), sampler)
    drawn = [i for _ in range(3) for batch in batches for i in batch]
    assert drawn == list(range(120))


@pytest.mark.parametrize("passes", [1, 2])
def test_what_was_read_ahead_is_no_step(passes: int) -> None:
    # Workers read ahead: epochs ended late by it, and the places that had been read
    # for nothing counted as steps.
    for config in (TrainingConfig(minutes=1), TrainingConfig(minutes=1, steps=37)):
        assert epochs(config, 1.0, ahead=8) == epochs(config, 1.0)
    clock = Clock()
    budget = Budget(TrainingConfig(minutes=1), clock)
    sampler = EpochSampler(budget, 4, accumulate=passes)
    batches = EpochBatches(ReadsAhead(sampler, 8), sampler)
    drawn: list[int] = []
    while not budget.exhausted(sampler.steps):
        for batch in batches:
            drawn += batch
            clock.now += 1.0 / passes
    assert drawn == list(range(4 * sampler.steps))
    assert 60 <= sampler.steps <= 62


def test_fast_steps_do_not_validate_more_often_than_time_allows() -> None:
    # An epoch of 256 steps made fast steps spend more than a tenth on validation.
    lengths = epochs(TrainingConfig(minutes=1), 0.005)
    assert 8 <= len(lengths) <= 10


def test_a_run_whose_epochs_the_clock_ended_goes_on_by_steps() -> None:
    # With `--epochs` it went on for ever, and with `--steps` without a validation.
    stored = Budget(TrainingConfig(minutes=1)).steps_per_epoch
    by_epochs = Budget(TrainingConfig(epochs=3), epoch_length=stored)
    assert by_epochs.max_steps == 3 * by_epochs.steps_per_epoch < 10_000
    by_steps = Budget(TrainingConfig(steps=80), epoch_length=stored)
    assert by_steps.steps_per_epoch == 10
    again = Budget(TrainingConfig(minutes=2), epoch_length=stored)
    assert again.steps_per_epoch == stored


def test_a_validation_is_timed_on_a_pass_not_on_a_whole_step() -> None:
    # A step that was split to fit into memory did not fit while it was timed.
    class Counts(nn.Module):
        def forward(self, pixels: Tensor, _boxes: Tensor) -> None:
            sizes.append(len(pixels))

    sizes: list[int] = []
    sample = PixelBatch(torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 2))
    config = TrainingConfig(minutes=5, batch_size=16, accumulate=4)
    network: Any = Counts()
    samples: Any = [sample]
    found = count_validation_crops(
        network, samples, Budget(config), config, torch.device("cpu"), 4
    )
    assert set(sizes) == {4}
    assert found == 64
