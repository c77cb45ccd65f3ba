"""Sending blocks to several processes: here, or on a dask cluster.

Both are executors of `concurrent.futures`. A worker that dies costs its block, which is
sent again.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
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

from ..errors import ConfigError, MuvitError
from .worker import BlockJob, BlockResult, begin_worker, run_block

AHEAD = 2
"""Blocks a worker has at once: one in work, one that waits."""
POLL_SECONDS = 0.2
MAX_BREAKS = 3
"""Times one after the other that workers die with nothing finished in between."""

ANSWER_SECONDS = 10
"""For a scheduler to answer."""

StartFn = Callable[[], Executor]


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


def spread(
    crew: Crew,
    jobs: Iterator[BlockJob],
    check: Callable[[], None],
    abort: Callable[[], None],
) -> Iterator[BlockResult]:
    """Do jobs in several processes; results come as they are ready.

    Parameters
    ----------
    crew
        The processes.
    jobs
        Asked for the next one when a process is about to be free.
    check
        Called often; raises to stop.
    abort
        Called before an early end: tells the processes to leave their blocks.

    Raises
    ------
    MuvitError
        What a job raised, or when workers die again and again.
    """
    waiting: dict[Future[BlockResult], BlockJob] = {}
    again: list[BlockJob] = []
    breaks = 0
    executor = crew.start()
    try:
        while True:
            while len(waiting) < AHEAD * crew.size:
                job = again.pop() if again else next(jobs, None)
                if job is None:
                    break
                waiting[executor.submit(run_block, job)] = job
            if not waiting:
                return
            done, _ = wait(waiting, POLL_SECONDS, return_when=FIRST_COMPLETED)
            check()
            died = []
            for future in done:
                job = waiting.pop(future)
                result = _result(future)
                if result is None:
                    died.append(job)
                else:
                    breaks = 0
                    yield result
            if died:
                breaks += 1
                _check_breaks(breaks)
                again += [*died, *waiting.values()]
                waiting.clear()
                executor.shutdown(wait=False)
                executor = crew.start()
    except BaseException:
        abort()
        raise
    finally:
        for future in waiting:
            future.cancel()
        executor.shutdown(wait=True)
        crew.close()


def _result(future: Future[BlockResult]) -> BlockResult | None:
    """What a job returned; None where its process died."""
    try:
        return future.result()
    except BrokenProcessPool:
        return None
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
