"""Sending blocks to several processes: here, or on a dask cluster.

Both are executors of `concurrent.futures`. A worker that dies costs its block, which is
sent again.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Protocol

from ..errors import ConfigError, MuvitError, OutputError, PyramidError
from ..prediction_config import PredictionConfig
from .worker import BlockJob, BlockResult, begin_worker, run_block

AHEAD = 2
"""Blocks a worker has at once: one in work, one that waits."""
POLL_SECONDS = 0.2
MAX_BREAKS = 3
"""Times one after the other that workers die with nothing finished in between."""

ANSWER_SECONDS = 10
"""For a scheduler to answer."""

SLIDE_ERRORS = (PyramidError, OutputError, ConfigError)
"""What is wrong with one slide, its output, or how the two go with the model."""

StartFn = Callable[[], Executor]
Outcome = BlockResult | MuvitError


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Crew:
    """Processes that work together."""

    start: StartFn
    """Starts them, or connects to them; again after some have died."""
    size: int
    close: Callable[[], None] = _nothing


def local_workers(count: int, device: str) -> Crew:
    """Return ``count`` processes on this machine.

    Raises
    ------
    ConfigError
        For more processes than GPUs: they would take each other's memory.
    """
    gpus = 0
    if device.startswith("cuda"):
        import torch

        gpus = torch.cuda.device_count()
        if count > gpus:
            raise ConfigError(
                f"{count} workers were asked for on {gpus} GPUs; one a GPU is "
                "possible.",
                "workers",
            )

    def start() -> Executor:
        # Not by fork: tensorstore and CUDA do not survive it.
        context = multiprocessing.get_context("forkserver" if _has_fork() else "spawn")
        number = context.Value("i", 0)
        return ProcessPoolExecutor(
            count, context, initializer=begin_worker, initargs=(device, number, gpus)
        )

    return Crew(start, count)


def find_crew(config: PredictionConfig) -> Crew | None:
    """Return the processes that a configuration asks for; None: this one alone.

    Raises
    ------
    ConfigError
        If they cannot be had.
    """
    if config.scheduler is not None:
        return cluster(config.scheduler)
    if config.workers > 1:
        return local_workers(config.workers, config.device)
    return None


def cluster(address: str) -> Crew:
    """Return the workers of a dask scheduler.

    Raises
    ------
    ConfigError
        If dask.distributed is not installed, nobody answers, or nobody works there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            "A dask cluster was asked for, but dask.distributed is not installed: "
            "pip install 'napari-muvit[distributed]'.",
            "scheduler",
        ) from error
    try:
        client = Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"No dask scheduler answers at {address}: {error}.", "scheduler"
        ) from error
    workers = sum(client.nthreads().values())
    if not workers:
        client.close()
        raise ConfigError(
            f"The dask scheduler at {address} has no workers yet; start some and run "
            "again.",
            "scheduler",
        )

    def start() -> Executor:
        return client.get_executor(pure=False, retries=MAX_BREAKS)  # type: ignore[no-any-return]

    return Crew(start, workers, client.close)


class JobSource(Protocol):
    """Where jobs come from."""

    @property
    def finished(self) -> bool:
        """Whether there will be no more."""

    def next(self) -> BlockJob | None:
        """Return the next job when a process is about to be free; None: none now."""

    def leave(self) -> None:
        """Tell the processes to leave the blocks that they are at."""


def spread(
    crew: Crew, jobs: JobSource, check: Callable[[], None]
) -> Generator[tuple[BlockJob, Outcome], None, None]:
    """Do jobs in several processes; outcomes come as they are ready.

    An image that cannot be read, or an output that cannot be written, is the outcome of
    a job; the others go on.

    Parameters
    ----------
    crew
        The processes.
    jobs
        What they do. At an early end they are told to leave it.
    check
        Called often; raises to stop.

    Raises
    ------
    MuvitError
        What else a job raised, or when workers die again and again.
    """
    going = _Round(crew, jobs)
    breaks = 0
    try:
        while True:
            going.fill()
            if not going.waiting and jobs.finished:
                return
            outcomes = going.wait()
            check()
            for job, outcome in outcomes:
                breaks = 0
                yield job, outcome
            if going.died:
                breaks += 1
                _check_breaks(breaks)
                going.restart()
    except BaseException:
        jobs.leave()
        raise
    finally:
        going.close()


class _Round:
    """Jobs that are with the processes, and those that have to go there again."""

    def __init__(self, crew: Crew, jobs: JobSource) -> None:
        self.waiting: dict[Future[BlockResult], BlockJob] = {}
        self.died: list[BlockJob] = []
        """Jobs whose process has died."""
        self._again: list[BlockJob] = []
        self._crew = crew
        self._jobs = jobs
        self._executor = crew.start()

    def fill(self) -> None:
        """Give each process a job, and one that waits."""
        while len(self.waiting) < AHEAD * self._crew.size:
            job = self._again.pop() if self._again else self._jobs.next()
            if job is None:
                return
            self.waiting[_submitted(self._executor, job)] = job

    def wait(self) -> Iterator[tuple[BlockJob, Outcome]]:
        """Wait a moment; return what has come of jobs meanwhile."""
        if not self.waiting:
            # The next ones are not known yet.
            time.sleep(POLL_SECONDS)
        done, _ = wait(self.waiting, POLL_SECONDS, return_when=FIRST_COMPLETED)
        return self._outcomes(done)

    def _outcomes(
        self, done: Iterable[Future[BlockResult]]
    ) -> Iterator[tuple[BlockJob, Outcome]]:
        for future in done:
            job = self.waiting.pop(future)
            outcome = _outcome(future)
            if outcome is None:
                self.died.append(job)
            else:
                yield job, outcome

    def restart(self) -> None:
        """Start the processes anew, with the jobs that they had."""
        self._again += [*self.died, *self.waiting.values()]
        self.died.clear()
        self.waiting.clear()
        self._executor.shutdown(wait=False)
        self._executor = self._crew.start()

    def close(self) -> None:
        """End the processes that are ours."""
        for future in self.waiting:
            future.cancel()
        self._executor.shutdown(wait=True)


def _submitted(executor: Executor, job: BlockJob) -> Future[BlockResult]:
    try:
        return executor.submit(run_block, job)
    except BrokenProcessPool as error:
        # A worker has died since the last look.
        broken: Future[BlockResult] = Future()
        broken.set_exception(error)
        return broken


def _outcome(future: Future[BlockResult]) -> Outcome | None:
    """What a job came to; None where its process died."""
    try:
        return future.result()
    except BrokenProcessPool:
        return None
    except SLIDE_ERRORS as error:
        return error
    except MuvitError:
        raise
    except CancelledError as error:
        # We cancel nothing that we wait for.
        raise MuvitError(
            "The dask scheduler is lost. What is finished is kept; run again to go on."
        ) from error
    except Exception as error:
        # dask's way to say that workers died too often.
        what = " ".join(str(error).split()) or type(error).__name__
        raise MuvitError(
            f"A worker failed ({type(error).__name__}): {what[:300]} What is finished "
            "is kept; run again to go on."
        ) from error


def _check_breaks(count: int) -> None:
    if count >= MAX_BREAKS:
        raise MuvitError(
            f"The worker processes died {count} times one after the other, most likely "
            "for want of memory; use fewer workers or a smaller batch. What is "
            "finished is kept."
        )


def _has_fork() -> bool:
    return hasattr(os, "fork")
