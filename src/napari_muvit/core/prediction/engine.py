"""Crops through the model, tiles out: reading, computing and writing side by side."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import ModelConfig, PredictionConfig
from ..data.crops import SlideNormalisation
from ..data.pyramid import Pyramid
from ..errors import ConfigError, PyramidError
from ..geometry import NestedCrop
from ..model.shared_context import SharedContext, compute_context, segment_within
from .canvases import Canvases, FilledTile
from .checks import PixelBox
from .context_cache import ContextCache
from .execution import HeapTrimmer, StopCheck, prepared
from .output import Output, Written
from .plan import PredictionPlan, Tile
from .reader import Batch, BatchReader, ContextError, Unreadable
from .schedule import Schedule

if TYPE_CHECKING:
    from ..model.segmenter import MuViTSegmenter
    from .writer import TileWriter

MAX_UNREAD = 64
"""Crops one after the other that cannot be read before a run gives up; on a large slide
half of all crops, as a broken place of a coarse level lies in many."""


@dataclass(frozen=True, eq=False, slots=True)
class Work:
    """What goes through which model, and how."""

    pyramid: Pyramid
    """The slide, viewed at the model's pixel size, with the coarse levels it needs."""
    model: nn.Module
    model_config: ModelConfig
    normalisation: SlideNormalisation
    plan: PredictionPlan
    config: PredictionConfig
    device: torch.device
    precision: str
    """``32-true`` or ``bf16-mixed``."""


class Engine:
    """Reads in threads, computes where it is iterated, writes in a thread.

    Parameters
    ----------
    work
        What to do.
    schedule
        In which order.
    wanted
        One flag a tile of the slide's grid: whether it is to be filled.
    writer
        Where to; None hands the tiles out only.
    stop
        Asked often.
    say
        Told what a user should know.

    Attributes
    ----------
    failed
        Boxes of the tiles that could not be read.
    first_error
        Why, for the first of them.
    """

    def __init__(
        self,
        work: Work,
        schedule: Schedule,
        wanted: NDArray[np.bool_],
        writer: TileWriter | None,
        stop: StopCheck,
        say: Callable[[str], None],
    ) -> None:
        self.failed: list[PixelBox] = []
        self.first_error: PyramidError | None = None
        self._work = work
        self._schedule = schedule
        self._wanted = wanted
        self._writer = writer
        self._stop = stop
        self._say = say
        self._pass_size = work.plan.batch_size
        self._unread = 0
        self._released = False
        self._contexts: ContextCache | None = None

    def __iter__(self) -> Iterator[Written]:
        """Do the work.

        Yields
        ------
        tuple of Tile and ndarray
            A tile and its labels in output pixels, written already.

        Raises
        ------
        Cancelled
            If it was stopped.
        PyramidError
            If nothing can be read.
        OutputError
            If the disk refuses.
        """
        work = self._work
        with contextlib.ExitStack() as stack:
            stack.enter_context(
                prepared(work.model, work.device, work.config, self._stop)
            )
            canvases = Canvases(
                work.plan, self._wanted, work.model_config.num_classes, work.device
            )
            stack.callback(canvases.close)
            output = Output(self._writer, self._stop.check)
            stack.callback(output.close)
            reader = BatchReader(
                work.pyramid, work.model_config, work.normalisation, self._schedule,
                work.plan.batch_size, work.plan.contexts,
            )  # fmt: skip
            stack.callback(reader.close)
            if work.plan.contexts is not None:
                self._contexts = ContextCache(partial(self._context, reader))
            yield from self._tiles(reader, canvases, output)

    def _tiles(
        self, reader: BatchReader, canvases: Canvases, output: Output
    ) -> Iterator[Written]:
        trim = HeapTrimmer()
        while (batch := self._next_batch(reader)) is not None:
            if isinstance(batch, Unreadable):
                self._lose(canvases.skip(batch.crop), batch.error)
                continue
            self._unread = 0
            for filled in self._passes(batch, canvases):
                output.put(filled)
            trim()
            yield from output.written()
        yield from output.finish()

    def _next_batch(self, reader: BatchReader) -> Batch | Unreadable | None:
        while True:
            self._stop.check()
            with contextlib.suppress(queue.Empty):
                return reader.get()

    def _passes(self, batch: Batch, canvases: Canvases) -> Iterator[FilledTile]:
        """Take a batch through the model, in parts where the memory asks for it."""
        first = 0
        while first < len(batch.crops):
            part = slice(first, first + self._pass_size)
            filled: list[FilledTile] = []
            out_of_memory = False
            try:
                self._answer(batch, part, canvases, filled)
            except torch.OutOfMemoryError:
                # Dealt with below: the error holds on to the memory of the pass.
                out_of_memory = True
            except ContextError as error:
                batch, first = self._without(batch, first, canvases, error), 0
            else:
                first = part.stop
                self._released = False
            if out_of_memory:
                self._halve(canvases)
            yield from filled

    def _answer(
        self, batch: Batch, part: slice, canvases: Canvases, filled: list[FilledTile]
    ) -> None:
        """Take a part of a batch through the model; add the tiles that are complete."""
        with torch.inference_mode():
            logits = self._forward(batch, part)
            filled.extend(canvases.add(batch.crops[part], logits))

    def _without(
        self, batch: Batch, first: int, canvases: Canvases, error: ContextError
    ) -> Batch:
        """Return what is left of a batch without the crops of a broken context."""
        kept = []
        for number, crop in enumerate(batch.crops[first:], first):
            if crop.context == error.index:
                self._lose(canvases.skip(crop), error)
            else:
                kept.append(number)
        # Filled up as every batch is.
        order = kept + kept[:1] * (len(batch.pixels) - len(kept))
        return Batch(
            tuple(batch.crops[i] for i in kept), batch.pixels[order], batch.boxes[order]
        )

    def _forward(self, batch: Batch, part: slice) -> Tensor:
        """(B, K, H, W) logits of a part of a batch."""
        x = self._sent(batch.pixels[part])
        boxes = self._sent(batch.boxes[part])
        with self._autocast():
            if self._contexts is None:
                return self._work.model(x, boxes)  # type: ignore[no-any-return]
            indices = [crop.context or 0 for crop in batch.crops[part]]
            # The batch is filled up with its first crop.
            first = batch.crops[0].context or 0
            indices += [first] * (len(x) - len(indices))
            contexts = [self._contexts.get(index) for index in indices]
            return segment_within(
                cast("MuViTSegmenter", self._work.model), x[:, 0], boxes[:, 0], contexts
            )

    def _context(self, reader: BatchReader, index: int) -> SharedContext:
        """Read and compute a context; alone, so that it is always the same."""
        grid = self._work.plan.contexts
        if grid is None:
            raise ConfigError("There are no shared contexts here.", "context")
        boxes = NestedCrop(grid.boxes(index)).as_array()
        local = (boxes - boxes[-1, 0]).astype(np.float32)
        return compute_context(
            cast("MuViTSegmenter", self._work.model),
            self._sent(reader.read_context(index)[None]),
            self._sent(local[None]),
        )

    def _sent(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(array).to(self._work.device, non_blocking=True)

    def _autocast(self) -> torch.autocast:
        half = self._work.precision == "bf16-mixed"
        return torch.autocast(self._work.device.type, torch.bfloat16, enabled=half)

    def _halve(self, canvases: Canvases) -> None:
        """Go on with passes half as large after the memory ran out."""
        device = self._work.device
        if self._contexts is not None:
            self._contexts.clear()
        if self._pass_size > 1:
            self._pass_size = -(-self._pass_size // 2)
            self._say(
                f"The memory of {device} ran out; going on with {self._pass_size} "
                "crops at a time."
            )
        elif not self._released:
            # A single one is tried once more with the device to itself.
            self._released = True
            canvases.release()
        else:
            raise ConfigError(
                f"A single crop does not fit into the memory of {device}; choose "
                "another device. What is finished is kept.",
                "device",
            )
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def _lose(self, tiles: Sequence[Tile], error: PyramidError) -> None:
        """Go on without tiles that cannot be read; not if nothing can be read."""
        if not self.failed:
            self.first_error = error
        self.failed.extend(tile.box for tile in tiles)
        self._unread += 1
        path = self._work.pyramid.path
        most = max(MAX_UNREAD, self._work.plan.num_crops // 2)
        if self._unread >= most or (path is not None and not path.exists()):
            raise PyramidError(
                f"{error} What is finished is kept; repair the file and run again."
            ) from error
        if tiles:
            self._say(f"{error} Going on with the rest.")
