"""What a worker process does: one block of a prediction, its tiles straight to disk.

A job names the model by its folder and hash, and the slide by where it lies; results
stay in the store, and only tile numbers go back. A block may be done twice, with the
same bytes.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ..config import PredictionConfig
from ..data.crops import SlideNormalisation
from ..data.pyramid import Pyramid
from ..errors import CheckpointError, OutputError
from ..model.device import resolve_device
from .checks import PixelBox
from .engine import Engine, Work
from .execution import StopCheck, settled_precision
from .identity import hash_model
from .plan import plan_prediction
from .record import PRIVATE, STOP
from .schedule import Schedule
from .tiles import Tile

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
    """Writes the finest level alone; the coarse ones belong to somebody else."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._finest: zarr.Array[Any] = zarr.open_array(out / "0", mode="r+")

    def write(self, tile: Tile, labels: NDArray[np.uint8]) -> None:
        """Write a tile's labels, the shape of its box."""
        y0, x0, y1, x1 = tile.box
        try:
            self._finest[y0:y1, x0:x1] = labels
        except OSError as error:
            raise OutputError(
                f"{self._out} cannot be written: {error.strerror or error}. What is "
                "finished is kept; free the disk and run again."
            ) from error


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
    flag = Path(job.out) / PRIVATE / STOP
    work = Work(
        job.pyramid, models, configs[0], job.normalisation, plan, job.config, device,
        settled_precision(job.config.precision, device),
    )  # fmt: skip
    engine = Engine(
        work, Schedule(plan, ~wanted), wanted, FinestWriter(Path(job.out)),
        StopCheck(flag.exists), lambda _text: None,
    )  # fmt: skip
    done: list[int] = []
    stopped = False
    try:
        done.extend(tile.index for tile, _ in engine)
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
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="muvit-parent-watch").start()
    if device == "cuda" and count:
        import torch

        with number.get_lock():
            mine = number.value % count
            number.value += 1
        torch.cuda.set_device(mine)
