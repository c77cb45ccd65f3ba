"""How to predict: what a user can choose, with checks, in and out of JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .checks import JsonConfig, require, whole

OutputName = Literal["probabilities", "confidence"]
OUTPUTS: tuple[OutputName, ...] = ("probabilities", "confidence")
"""What can be written beside the labels."""
Average = Literal["none", "flips", "all"]
Placement = Literal["inside", "centred", "averaged"]
Ring = tuple[tuple[float, float], ...]
"""A closed outline as (y, x) pairs, the first one not repeated."""
Outlines = tuple[tuple[Ring, ...], ...]
"""Of each area its outer ring, then its holes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionConfig(JsonConfig):
    """How to predict a slide."""

    overlap: float = 0.25
    """Share of a crop's edge that neighbouring crops have in common; 0: the paper's."""
    region: tuple[float, float, float, float] | None = None
    """(y0, x0, y1, x1) in pixels of the slide's finest level; None: the whole slide.
    Tiles that touch it are predicted, as a whole."""
    outlines: Outlines = ()
    """Areas in the same pixels (see `read_outlines`): tiles that touch one of them are
    predicted, as a whole. Empty: all."""
    tissue: bool = False
    """Leave out tiles without tissue, which keep the label 0 (not predicted)."""
    batch_size: int = 16
    """Crops in one pass of the model; the last one is padded to the same shape."""
    tile_size: int = 512
    """Edge of an output chunk in pixels = one tile handed out; a power of two."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    context: Literal["auto", "shared", "own"] = "auto"
    """shared: coarse levels are computed once for all crops inside them (models with
    coarse_to_fine or within_level attention and the pyramid or UNETR decoder). own:
    each crop is in the middle of its own. auto: shared where the model can."""
    average: Average = "none"
    """flips: each crop is mirrored in the 4 ways of a rectangle, and the logits are
    averaged; all: in the 8 ways of a square, turned ones among them."""
    placement: Placement = "inside"
    """Where coarser crops of their own lie. inside: in the middle around the fine crop,
    pushed into the slide. centred: in the middle always; beyond the slide is padding.
    averaged: logits of five places inside the slide are averaged. Anything but inside
    gives each crop coarser ones of its own."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto: bf16-mixed on a GPU that computes in it, else 32-true."""
    preview: bool = False
    """Look at the whole slide first with the coarsest level alone (models with
    coarse_to_fine or within_level attention, the pyramid or UNETR decoder and level
    heads). Of parts the first one does, of several models the first one."""
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
    outputs: tuple[OutputName, ...] = ()
    """What is written beside the labels, uint8: ``probabilities`` of each class, and
    ``confidence``, the largest of them."""

    def __post_init__(self) -> None:
        self.check_types()
        self._check_processes()
        self._check_passes()
        self._check_place()

    def _check_processes(self) -> None:
        whole(self.workers, 1, "workers")
        if self.num_threads is not None:
            whole(self.num_threads, 1, "num_threads")
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
            not (self.overwrite and self.shard is not None),
            "shard and overwrite exclude each other: each part would remove what the "
            "others have written. Remove the output first.",
            "overwrite",
        )

    def _check_passes(self) -> None:
        require(
            0 <= self.overlap <= 0.9,
            f"overlap is {self.overlap}; 0 to 0.9 is needed.",
            "overlap",
        )
        require(
            len(set(self.outputs)) == len(self.outputs),
            f"outputs is {self.outputs}; each is written once, so name it once.",
            "outputs",
        )
        require(
            self.context != "shared" or self.placement == "inside",
            f"context is shared, so coarser crops lie on a grid of the slide, but "
            f"placement is {self.placement}; choose context own, or placement inside.",
            "placement",
        )
        whole(self.batch_size, 1, "batch_size")
        whole(self.tile_size, 64, "tile_size")
        require(
            self.tile_size & (self.tile_size - 1) == 0,
            f"tile_size is {self.tile_size}; a power of two is needed.",
            "tile_size",
        )

    def _check_place(self) -> None:
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
        for number, rings in enumerate(self.outlines):
            require(
                bool(rings) and all(_is_ring(ring) for ring in rings),
                f"outline {number} is no area; rings of at least three finite (y, x) "
                "pairs are needed, the outer one first.",
                "outlines",
            )


def _is_ring(ring: Ring) -> bool:
    return len(ring) >= 3 and all(math.isfinite(v) for point in ring for v in point)
