"""Batches of samples, read in this process or by others beside it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from ..errors import MuvitError


def make_loader(
    dataset: Dataset[Any],
    *,
    batch_sampler: Iterable[list[int]],
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Return batches in the order of the sampler, whoever reads them.

    Workers are fresh processes, not forks of this one: a fork would inherit open files
    and the locks of other threads, and tensorstore aborts in it. Each opens the slides
    by their paths and has a cache of its own. They live as long as the loader.

    Parameters
    ----------
    dataset
        Samples by index; has to be picklable where there are workers.
    batch_sampler
        Lists of sample indices.
    num_workers
        Processes that read; 0: this one.
    pin_memory
        Hand out batches in memory that a GPU copies from at once.
    """
    if num_workers == 0:
        return DataLoader(dataset, batch_sampler=batch_sampler, pin_memory=pin_memory)
    return _Loader(
        _Guarded(dataset),
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        collate_fn=_collated,
        multiprocessing_context=_context(),
        worker_init_fn=_start_worker,
        persistent_workers=True,
        pin_memory=pin_memory,
    )


class _Guarded(Dataset[Any]):
    """Samples, or the error that the user should read in place of one.

    What a worker raises would arrive with the worker's traceback for its message.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, sample: int) -> Any:
        try:
            return self.dataset[sample]
        except MuvitError as error:
            return error


def _collated(samples: list[Any]) -> Any:
    errors = [sample for sample in samples if isinstance(sample, MuvitError)]
    return errors[0] if errors else default_collate(samples)


class _Loader(DataLoader[Any]):
    """Raises here what went wrong in a worker."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, MuvitError):
                raise batch
            yield batch


def _context() -> Any:
    """Forkserver, which starts faster than spawn where there is one."""
    methods = multiprocessing.get_all_start_methods()
    method = "forkserver" if "forkserver" in methods else "spawn"
    return multiprocessing.get_context(method)


def _start_worker(_number: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the parent stops in good order, for
    # which it may still need its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Several workers with all cores each would wait for one another.
    torch.set_num_threads(1)
