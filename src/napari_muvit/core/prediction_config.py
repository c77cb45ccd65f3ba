"""How to predict: what a user can choose, with checks, in and out of JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .checks import JsonConfig, require, whole


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionConfig(JsonConfig):
    """How to predict a slide."""

    overlap: float = 0.25
    """Share of a crop's edge that neighbouring crops have in common; 0: the paper's."""
    region: tuple[float, float, float, float] | None = None
    """(y0, x0, y1, x1) in pixels of the slide's finest level; None: the whole slide.
    Tiles that touch it are predicted."""
    batch_size: int = 16
    """Crops in one pass of the model; the last one is padded to the same shape."""
    tile_size: int = 512
    """Edge of an output chunk in pixels = one tile handed out; a power of two."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    context: Literal["auto", "shared", "own"] = "auto"
    """shared: coarse levels are computed once for all crops inside them (models with
    coarse_to_fine attention and the pyramid decoder). own: each crop is in the middle
    of its own. auto: shared where the model can."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto: bf16-mixed on a GPU that computes in it, else 32-true."""
    preview: bool = False
    """Look at the whole slide first with the coarsest level alone (models with
    coarse_to_fine attention, the pyramid decoder and level heads)."""
    overwrite: bool = False
    """Replace another run's output at the same path."""
    num_threads: int | None = None
    """CPU threads of torch; None: as torch chooses, shared by the workers."""
    workers: int = 1
    """Processes on this machine; on GPUs one a GPU."""
    scheduler: str | None = None
    """Address of a dask.distributed cluster whose workers are to do it."""
    shard: tuple[int, int] | None = None
    """(i, n): do the i-th of n parts (0 is the first), without the others."""

    def __post_init__(self) -> None:
        self.check_types()
        whole(self.workers, 1, "workers")
        if self.shard is not None:
            index, count = self.shard
            require(
                0 <= index < count,
                f"shard is {index}/{count}; 0/{count} to {count - 1}/{count} are "
                "possible, as parts are counted from 0.",
                "shard",
            )
        require(
            (self.workers > 1) + bool(self.scheduler) + (self.shard is not None) < 2,
            "workers, scheduler and shard exclude each other.",
            "workers",
        )
        require(
            0 <= self.overlap <= 0.9,
            f"overlap is {self.overlap}; 0 to 0.9 is needed.",
            "overlap",
        )
        whole(self.batch_size, 1, "batch_size")
        whole(self.tile_size, 64, "tile_size")
        require(
            self.tile_size & (self.tile_size - 1) == 0,
            f"tile_size is {self.tile_size}; a power of two is needed.",
            "tile_size",
        )
        if self.num_threads is not None:
            whole(self.num_threads, 1, "num_threads")
        if self.region is not None:
            require(
                all(math.isfinite(v) for v in self.region),
                f"region is {self.region}; y0,x0,y1,x1 is needed.",
                "region",
            )
            y0, x0, y1, x1 = self.region
            require(
                y1 > y0 and x1 > x0,
                f"region is {self.region}; y1 must be above y0 and x1 above x0.",
                "region",
            )
