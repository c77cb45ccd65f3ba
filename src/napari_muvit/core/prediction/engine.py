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
from .canvases import Canvases
from .checks import PixelBox
from .context_cache import LEAST, TOUCHED, ContextCache, ViewedContext
from .execution import HeapTrimmer, StopCheck, prepared, single_crop
from .filled import FilledTile
from .output import Output
from .plan import PredictionPlan
from .reader import Batch, BatchReader, ContextError, Unreadable
from .schedule import Schedule
from .tiles import Tile
from .views import View, levels_at, turn_back, turn_boxes, turn_pixels

if TYPE_CHECKING:
    from ..model.segmenter import MuViTSegmenter
    from .writer import TileWriter

MAX_UNREAD = 64
"""Crops one after the other that cannot be read before a run gives up; on a large slide
half of all crops, as a broken place of a coarse level lies in many."""


@dataclass(frozen=True, eq=False, slots=True)
class Work:
    """What goes through which models, and how."""

    pyramid: Pyramid
    """The slide, viewed at the model's pixel size, with the coarse levels it needs."""
    models: tuple[nn.Module, ...]
    """Those whose logits are averaged."""
    model_config: ModelConfig
    """What each of them reads."""
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
    look
        Shown each shared context when it is computed.

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
        look: Callable[[int, SharedContext], None] | None = None,
    ) -> None:
        self.failed: list[PixelBox] = []
        self.first_error: PyramidError | None = None
        self._work = work
        self._schedule = schedule
        self._wanted = wanted
        self._writer = writer
        self._stop = stop
        self._say = say
        self._look = look
        self._pass_size = work.plan.batch_size
        self._unread = 0
        self._released = False
        self._contexts: ContextCache | None = None

    def __iter__(self) -> Iterator[FilledTile]:
        """Do the work.

        Yields
        ------
        FilledTile
            A tile in output pixels, written already.

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
                prepared(
                    nn.ModuleList(work.models), work.device, work.config, self._stop
                )
            )
            canvases = Canvases(
                work.plan, self._wanted, work.model_config.num_classes, work.device,
                outputs=work.config.outputs,
            )  # fmt: skip
            stack.callback(canvases.close)
            output = Output(self._writer, self._stop.check)
            stack.callback(output.close)
            reader = BatchReader(
                work.pyramid, work.model_config, work.normalisation, self._schedule,
                work.plan.batch_size, work.plan.contexts, work.plan.num_places,
            )  # fmt: skip
            stack.callback(reader.close)
            if work.plan.contexts is not None:
                # Of several views a context holds as many times as much.
                least = max(TOUCHED, LEAST // len(work.plan.views))
                self._contexts = ContextCache(
                    partial(self._context, reader), least=least
                )
            yield from self._tiles(reader, canvases, output)

    def _tiles(
        self, reader: BatchReader, canvases: Canvases, output: Output
    ) -> Iterator[FilledTile]:
        trim = HeapTrimmer()
        while (batch := self._next_batch(reader)) is not None:
            if isinstance(batch, Unreadable):
                self._lose(canvases.skip(batch.crop), batch.error)
                continue
            self._unread = 0
            for filled in self._passes(batch, canvases):
                output.put(filled)
            trim()
            for done in output.written():
                yield done
                # Whoever takes them may be slow, and more wait meanwhile.
                self._stop.check()
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
        """(B, K, H, W) logits of a part of a batch: the mean of all views.

        Views go through one after the other and are added up in their order, so the
        sum is the same wherever it is computed.
        """
        views = self._work.plan.views
        x = self._sent(batch.pixels[part])
        boxes = self._sent(batch.boxes[part])
        with self._autocast():
            contexts = self._contexts_of(batch, part)
            total = self._seen(views[0], x, boxes, contexts[0])
            for view, seen in zip(views[1:], contexts[1:], strict=True):
                total = total.float() + self._seen(view, x, boxes, seen)
        return total if len(views) == 1 else total / len(views)

    def _contexts_of(
        self, batch: Batch, part: slice
    ) -> Sequence[Sequence[SharedContext] | None]:
        """Return what each view needs to know, one context a crop; None: nothing."""
        if self._contexts is None:
            return [None] * len(self._work.plan.views)
        # The batch is filled up with its first crop.
        crops = batch.crops + batch.crops[:1] * (len(batch.pixels) - len(batch.crops))
        viewed = [self._contexts.get(crop.context or 0) for crop in crops[part]]
        return list(zip(*(context.views for context in viewed), strict=True))

    def _seen(
        self,
        view: View,
        x: Tensor,
        boxes: Tensor,
        contexts: Sequence[SharedContext] | None,
    ) -> Tensor:
        """(B, K, H, W) logits of one view of (B, S, C, H, W) pixels, turned back."""
        model, plan = self._work.models[view.model], self._work.plan
        x = turn_pixels(view.turn, levels_at(x, view.place, plan.num_places))
        boxes = levels_at(boxes, view.place, plan.num_places)
        boxes = turn_boxes(view.turn, boxes, self._edge)
        if contexts is None:
            logits = model(x, boxes)
        else:
            logits = segment_within(
                cast("MuViTSegmenter", model), x[:, 0], boxes[:, 0], contexts
            )
        return turn_back(view.turn, logits)

    @property
    def _edge(self) -> float:
        """Edge of the square in which boxes are given: from its lower corner."""
        plan = self._work.plan
        return plan.crop_size * plan.scale_factors[0 if plan.contexts is None else -1]

    def _context(self, reader: BatchReader, index: int) -> ViewedContext:
        """Read and compute a context; alone, so that it is always the same."""
        grid = self._work.plan.contexts
        if grid is None:
            raise ConfigError("There are no shared contexts here.", "context")
        boxes = NestedCrop(grid.boxes(index)).as_array()
        local = self._sent((boxes - boxes[-1, 0]).astype(np.float32)[None])
        x = self._sent(reader.read_context(index)[None])
        context = ViewedContext(
            tuple(
                compute_context(
                    cast("MuViTSegmenter", self._work.models[view.model]),
                    turn_pixels(view.turn, x),
                    turn_boxes(view.turn, local, self._edge),
                )
                for view in self._work.plan.views
            )
        )
        if self._look is not None:
            # The first view is the first model's, as the slide lies.
            self._look(index, context.views[0])
        return context

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
            raise ConfigError(single_crop(device), "device")
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
