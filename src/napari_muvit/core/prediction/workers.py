"""A prediction by several processes: who they are, and what is sent to them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, MuvitError
from .crew import Crew, find_crew, spread
from .identity import hash_models
from .record import PRIVATE, STOP
from .worker import BlockJob, BlockResult

if TYPE_CHECKING:
    from ..config import PredictionConfig
    from .blocks import BlockSchedule
    from .engine import Work
    from .execution import StopCheck


@dataclass(frozen=True, slots=True)
class Workers:
    """Processes that do the blocks of a prediction."""

    crew: Crew
    models: tuple[Path, ...]
    """Folders of the models, as the workers see it."""
    out: Path
    """Folder of the output, as the workers see it."""
    shared: bool = False
    """Whether they work for other predictions, too; then these others end them."""

    @classmethod
    def of(
        cls,
        config: PredictionConfig,
        models: Sequence[Path | None],
        out: Path | None,
        crew: Crew | None = None,
    ) -> Workers | None:
        """Return the workers that are asked for; None for this process alone.

        Parameters
        ----------
        config
            What the user asked for.
        models, out
            Folders of the models and of the output.
        crew
            Processes that are there already, and work for others, too.

        Raises
        ------
        ConfigError
            If they cannot be had, or lack a model folder or an output.
        """
        if config.workers == 1 and config.scheduler is None:
            return None
        folders = tuple(folder.absolute() for folder in models if folder is not None)
        if not folders or len(folders) < len(models) or out is None:
            lacking = "an output folder" if out is None else "the folder of a model"
            raise ConfigError(
                f"Several processes need {lacking}: that is how they share it.",
                "workers",
            )
        shared = crew is not None
        crew = crew or find_crew(config)
        if crew is None:
            return None
        return cls(crew, folders, out.absolute(), shared)

    def blocks(self, work: Work, schedule: BlockSchedule, lock: str) -> Blocks:
        """Return what is to be done, block by block; see `do`."""
        return Blocks(self, work, schedule, lock)

    def do(
        self, work: Work, schedule: BlockSchedule, stop: StopCheck, lock: str
    ) -> Iterator[BlockResult]:
        """Have all blocks of a schedule done; results come as they are ready.

        Parameters
        ----------
        work, schedule, stop
            As for `Engine`.
        lock
            What the output's lock holds: a worker that finds another text leaves.

        Raises
        ------
        Cancelled
            If it was stopped: the workers stop, too, at the next tile.
        MuvitError
            What a worker raised.
        """
        blocks = self.blocks(work, schedule, lock)
        outcomes = spread(self.crew, blocks, stop.check)
        with contextlib.closing(blocks), contextlib.closing(outcomes):
            for _, outcome in outcomes:
                if isinstance(outcome, MuvitError):
                    raise outcome
                yield outcome

    def close(self) -> None:
        """Let the processes go, unless they work for others."""
        if not self.shared:
            self.crew.close()


class Blocks:
    """The blocks of one prediction, as jobs.

    Parameters
    ----------
    workers
        Who does them.
    work
        What is done.
    schedule
        Which blocks are left.
    lock
        What the output's lock holds: a worker that finds another text leaves.
    """

    def __init__(
        self, workers: Workers, work: Work, schedule: BlockSchedule, lock: str
    ) -> None:
        self.finished = False
        self._workers = workers
        self._work = work
        self._schedule = schedule
        self._lock = lock
        self._folders = tuple(str(folder) for folder in workers.models)
        self._hashes = hash_models(work.models)
        self._flag = workers.out / PRIVATE / STOP
        self._config = dataclasses.replace(
            work.config, workers=1, scheduler=None,
            num_threads=threads_of(work.config, workers.crew.size),
            # A worker is told its tiles.
            region=None, outlines=(), tissue=False,
        )  # fmt: skip

    def next(self) -> BlockJob | None:
        """Return the next job, None after the last one."""
        tiles = self._schedule.next()
        if tiles is None:
            self.finished = True
            return None
        work = self._work
        return BlockJob(
            work.pyramid, self._folders, self._hashes, work.normalisation, self._config,
            str(self._workers.out), self._lock, tiles,
        )  # fmt: skip

    def leave(self) -> None:
        """Have the workers leave the blocks that they are at."""
        with contextlib.suppress(OSError):
            self._flag.touch()

    def close(self) -> None:
        """Forget that the workers were to leave, once they have."""
        with contextlib.suppress(OSError):
            self._flag.unlink(missing_ok=True)


def threads_of(config: PredictionConfig, workers: int) -> int:
    """Return how many threads each of several processes computes with."""
    return config.num_threads or max(1, (os.cpu_count() or 1) // workers)
