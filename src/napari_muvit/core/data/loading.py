"""Batches of samples, read in this process or by others beside it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


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
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        multiprocessing_context=_context(),
        worker_init_fn=_start_worker,
        persistent_workers=True,
        pin_memory=pin_memory,
    )


def _context() -> Any:
    """Forkserver, which starts faster than spawn where there is one."""
    methods = multiprocessing.get_all_start_methods()
    method = "forkserver" if "forkserver" in methods else "spawn"
    return multiprocessing.get_context(method)


def _start_worker(_number: int) -> None:
    # Several workers with all cores each would wait for one another.
    torch.set_num_threads(1)
