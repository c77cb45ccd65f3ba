"""What a worker process does: one block of a prediction, its tiles straight to disk.

A job names the model by its folder and hash, and the slide by where it lies; results
stay in the store, and only tile numbers go back. A block may be done twice, with the
same bytes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import PredictionConfig
from ..data.crops import SlideNormalisation
from ..data.pyramid import Pyramid
from ..errors import CheckpointError
from ..lock import holds
from ..model.device import resolve_device
from .checks import PixelBox
from .engine import Engine, Work
from .execution import StopCheck, settled_precision
from .filled import FilledTile
from .identity import hash_model
from .plan import plan_prediction
from .record import LOCK, PRIVATE, STOP
from .schedule import Schedule
from .store import open_finest, writable, write_finest

if TYPE_CHECKING:
    from ..model.segmenter import MuViTSegmenter


@dataclass(frozen=True, eq=False, slots=True)
class BlockJob:
    """A block of a prediction, as it is sent to a worker."""

    pyramid: Pyramid
    """The slide, viewed at the model's pixel size, with the coarse levels it needs."""
    models: tuple[str, ...]
    """Folders of the models."""
    hashes: tuple[str, ...]
    """Of each of them."""
    normalisation: SlideNormalisation
    config: PredictionConfig
    out: str
    """Folder of the output."""
    lock: str
    """What the output's lock holds as long as the run goes on that sent this."""
    tiles: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What became of a block."""

    tiles: tuple[int, ...]
    """Tiles that are written."""
    failed: tuple[PixelBox, ...] = ()
    """Boxes that could not be read."""
    error: str = ""
    """Why, for the first of them."""
    stopped: bool = False


class FinestWriter:
    """Writes the finest levels alone; the coarse ones belong to somebody else.

    Parameters
    ----------
    out
        Folder of the prediction.
    outputs
        What it holds beside labels.
    """

    def __init__(self, out: Path, outputs: Sequence[str]) -> None:
        self._out = out
        self._finest = open_finest(out, outputs)

    def write(self, filled: FilledTile) -> None:
        """Write a tile in output pixels."""
        with writable(self._out):
            write_finest(self._finest, filled)


def run_block(job: BlockJob) -> BlockResult:
    """Do a block in this process.

    Raises
    ------
    MuvitError
        As `predict` does.
    """
    from ..errors import Cancelled

    models = _models(job.models, job.hashes)
    configs = [model.config for model in models]
    device = resolve_device(job.config.device)
    plan = plan_prediction(job.pyramid, configs, job.config)
    wanted = np.zeros(plan.num_tiles, dtype=bool)
    wanted[list(job.tiles)] = True
    private = Path(job.out) / PRIVATE

    def is_over() -> bool:
        # Whoever sent this may be gone; nobody else's output may be written to.
        return (private / STOP).exists() or not holds(private / LOCK, job.lock)

    work = Work(
        job.pyramid, models, configs[0], job.normalisation, plan, job.config, device,
        settled_precision(job.config.precision, device),
    )  # fmt: skip
    engine = Engine(
        work, Schedule(plan, ~wanted), wanted,
        FinestWriter(Path(job.out), job.config.outputs),
        StopCheck(is_over), lambda _text: None,
    )  # fmt: skip
    done: list[int] = []
    stopped = False
    try:
        done.extend(filled.tile.index for filled in engine)
    except Cancelled:
        stopped = True
    error = "" if engine.first_error is None else str(engine.first_error)
    return BlockResult(tuple(done), tuple(engine.failed), error, stopped)


@lru_cache(maxsize=2)
def _models(
    folders: tuple[str, ...], hashes: tuple[str, ...]
) -> tuple[MuViTSegmenter, ...]:
    """Load the models of a prediction once a process."""
    return tuple(map(_model, folders, hashes))


def _model(folder: str, wanted: str) -> MuViTSegmenter:
    from ..model.checkpoint import load_model
    from ..model.segmenter import MuViTSegmenter

    model = load_model(folder, MuViTSegmenter)
    if hash_model(model, model.config) != wanted:
        raise CheckpointError(
            f"{folder} is not the model that this prediction was begun with: another "
            "one lies there on this machine, or it has changed since."
        )
    return model


def begin_worker(device: str, number: Any, count: int) -> None:
    """Set a worker process up: its own GPU, and an end when its parent is gone.

    Parameters
    ----------
    device
        What was asked for.
    number
        Counter that all workers share.
    count
        Number of GPUs.
    """
    # Ctrl-C reaches all processes of a terminal; the parent ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        # Not the process of that number: this one was forked by a server, which lives
        # as long as its children do.
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="muvit-parent-watch").start()
    if device == "cuda" and count:
        import torch

        with number.get_lock():
            mine = number.value % count
            number.value += 1
        torch.cuda.set_device(mine)
