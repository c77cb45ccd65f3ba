"""A prediction by several processes: who they are, and what is sent to them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .crew import Crew, cluster, local_workers, spread
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

    @classmethod
    def of(
        cls,
        config: PredictionConfig,
        models: Sequence[Path | None],
        out: Path | None,
    ) -> Workers | None:
        """Return the workers that are asked for; None for this process alone.

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
        if config.scheduler is not None:
            crew = cluster(config.scheduler)
        else:
            crew = local_workers(config.workers, config.device)
        return cls(crew, folders, out.absolute())

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
        flag = self.out / PRIVATE / STOP

        def abort() -> None:
            with contextlib.suppress(OSError):
                flag.touch()

        jobs = self._jobs(work, schedule, lock)
        try:
            yield from spread(self.crew, jobs, stop.check, abort)
        finally:
            with contextlib.suppress(OSError):
                flag.unlink(missing_ok=True)

    def _jobs(
        self, work: Work, schedule: BlockSchedule, lock: str
    ) -> Iterator[BlockJob]:
        folders = tuple(str(folder) for folder in self.models)
        hashes = hash_models(work.models)
        threads = work.config.num_threads or max(
            1, (os.cpu_count() or 1) // self.crew.size
        )
        config = dataclasses.replace(
            work.config, workers=1, scheduler=None, num_threads=threads,
            # A worker is told its tiles.
            region=None, outlines=(), tissue=False,
        )  # fmt: skip
        while (tiles := schedule.next()) is not None:
            yield BlockJob(
                work.pyramid, folders, hashes, work.normalisation, config,
                str(self.out), lock, tiles,
            )  # fmt: skip
