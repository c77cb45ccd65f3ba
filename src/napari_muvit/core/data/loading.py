"""Batches of samples, read in this process or by others beside it."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from ..errors import MuvitError
from ..progress import StopFn, check_stop, never_stop

POLL_SECONDS = 0.1
"""Between two questions whether to stop while a batch is waited for."""


def make_loader(
    dataset: Dataset[Any],
    *,
    batch_sampler: Iterable[list[int]],
    num_workers: int = 0,
    pin_memory: bool = False,
    should_stop: StopFn = never_stop,
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
    should_stop
        Asked before each sample, and while workers are waited for: to start one takes
        seconds. When it says so `Cancelled` is raised.
    """
    if num_workers == 0:
        return DataLoader(
            StoppableDataset(dataset, should_stop),
            batch_sampler=batch_sampler,
            pin_memory=pin_memory,
        )
    loader = _Loader(
        _Guarded(dataset),
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        collate_fn=_collated,
        multiprocessing_context=_context(),
        worker_init_fn=_start_worker,
        persistent_workers=True,
        pin_memory=pin_memory,
    )
    loader.should_stop = should_stop
    return loader


class StoppableDataset(Dataset[Any]):
    """The same samples; asks whether to stop before it reads one."""

    def __init__(self, dataset: Dataset[Any], should_stop: StopFn) -> None:
        self.dataset = dataset
        self.should_stop = should_stop

    def __getitem__(self, sample: int) -> Any:
        check_stop(self.should_stop)
        return self.dataset[sample]


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

    should_stop: StopFn = staticmethod(never_stop)
    _pump: _Pump | None = None

    def __iter__(self) -> Any:
        batches: Callable[[], Iterator[Any]] = super().__iter__
        if self.should_stop is not never_stop:
            if self._pump is not None:
                # The workers are the same; what was left of the last epoch comes first.
                self._pump.wait()
            self._pump = _Pump(batches, self.should_stop)
            batches = self._pump.__iter__
        try:
            for batch in batches():
                if isinstance(batch, MuvitError):
                    raise batch
                yield batch
        except (BrokenPipeError, EOFError) as error:
            raise MuvitError(
                "The processes that read crops could not start. In a script, train "
                'below `if __name__ == "__main__":`, as each of them runs what '
                "stands outside of it; or do without (num_workers 0)."
            ) from error


class _Pump:
    """Iterates in a thread of its own, so that waiting can be left at any time.

    To start workers, and to wait for one, are calls that do not come back before it
    is done.
    """

    def __init__(self, start: Callable[[], Iterator[Any]], should_stop: StopFn) -> None:
        self._start = start
        self._should_stop = should_stop
        self._left = threading.Event()
        self._found: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._run, daemon=True, name="batches")

    def __iter__(self) -> Iterator[Any]:
        self._thread.start()
        try:
            while True:
                check_stop(self._should_stop)
                try:
                    kind, value = self._found.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                if kind == "end":
                    return
                if kind == "error":
                    raise value
                yield value
        finally:
            self._left.set()

    def wait(self) -> None:
        """Leave the iteration, and wait until nothing is read for it any more."""
        self._left.set()
        while self._thread.is_alive():
            check_stop(self._should_stop)
            self._thread.join(POLL_SECONDS)

    def _run(self) -> None:
        try:
            for batch in self._start():
                if not self._put("batch", batch):
                    return
            self._put("end", None)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self._put("error", error)

    def _put(self, kind: str, value: Any) -> bool:
        """Hand over; whether anybody still takes it."""
        while not self._left.is_set():
            try:
                self._found.put((kind, value), timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


def _context() -> Any:
    """Forkserver, which starts faster than spawn where there is one."""
    methods = multiprocessing.get_all_start_methods()
    if "forkserver" not in methods:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Loaded once, in place of once a worker.
    context.set_forkserver_preload(["torch"])
    return context


def _start_worker(_number: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the parent stops in good order, for
    # which it may still need its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Several workers with all cores each would wait for one another.
    torch.set_num_threads(1)
