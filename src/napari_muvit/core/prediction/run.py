"""Predicting a slide: crops through the model, tiles out, in the planned order."""

from __future__ import annotations

import contextlib
import queue
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import ModelConfig, PredictionConfig
from ..data.cache_settings import CacheSettings
from ..data.crops import SlideNormalisation, estimate_normalisation
from ..data.level_cache import with_coarse_levels
from ..data.pyramid import Pyramid
from ..errors import Cancelled, ConfigError, PyramidError
from ..model.device import resolve_device
from ..progress import Progress, ProgressFn, StopFn, ignore_progress, never_stop
from .canvases import Canvases, FilledTile
from .checks import PixelBox
from .execution import HeapTrimmer, StopCheck, prepared, settled_precision
from .identity import describe_run
from .output import Output, Written
from .plan import PredictionPlan, Tile, plan_prediction
from .reader import Batch, BatchReader, Unreadable, readable
from .schedule import Schedule
from .writer import LabelWriter, Level

DEFAULTS = PredictionConfig()
MAX_UNREAD = 64
"""Crops one after the other that cannot be read before a run gives up."""


@dataclass(frozen=True, slots=True)
class PredictedTile:
    """A finished tile, written already where there is an output."""

    index: int
    """Place in the slide's tile grid, row by row."""
    box: PixelBox
    """(y0, x0, y1, x1) in pixels of the slide's finest level."""
    labels: NDArray[np.uint8]
    """Labels 1..K of the box, uint8; 0 where the model's answer was not a number."""
    done: int
    """Finished tiles of those asked for, earlier runs included."""
    total: int
    """Tiles that were asked for."""


class PredictionRun:
    """A prediction under way: iterate over it to do the work and get its tiles.

    Made by `predict`. `focus` and `stop` may be called from another thread. Leaving
    the loop early, an error and `stop` keep what is finished.

    Attributes
    ----------
    plan
        What will be done.
    config
        What the user asked for.
    out
        Folder of the output, None for a preview.
    normalisation
        The slide's numbers.
    levels
        The output's arrays, finest first; None for a preview.
    finished_before
        Whether all of it was done by an earlier run: there is nothing to iterate over.
    stopped
        Whether `stop` or ``should_stop`` ended it.
    failed
        Boxes of the tiles that could not be read, in output pixels.
    precision
        ``32-true`` or ``bf16-mixed``.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        model: nn.Module,
        config: PredictionConfig,
        out: Path | None,
        model_name: str,
        on_progress: ProgressFn,
        should_stop: StopFn,
        cache: CacheSettings | None = None,
    ) -> None:
        self.config = config
        self.out = out
        self.stopped = False
        self.failed: list[PixelBox] = []
        self._model = model
        self._model_config = _config_of(model)
        self._on_progress = on_progress
        self._cache = cache
        self._pyramid = pyramid.viewed_at(self._model_config.pixel_size)
        self.plan: PredictionPlan = plan_prediction(
            self._pyramid, self._model_config, config
        )
        self._device = resolve_device(config.device)
        self.precision = settled_precision(config.precision, self._device)
        self._stop = StopCheck(should_stop)
        with readable(pyramid):
            self.normalisation = estimate_normalisation(
                self._pyramid, self._model_config.normalisation
            )
        self._writer = None if out is None else self._open_writer(out, model_name)
        done = np.zeros(self.plan.num_tiles, dtype=bool)
        if self._writer is not None:
            done = self._writer.done
        selected = self.plan.indices()
        self._done = int(done[selected].sum())
        self.finished_before = self._done == len(self.plan)
        if self._writer is not None and not self.finished_before:
            self._writer.begin()
            weakref.finalize(self, self._writer.close)
        self._finished = done
        self._schedule = Schedule(self.plan, done)
        self._pass_size = self.plan.batch_size
        self._unread = 0
        self._first_error: PyramidError | None = None
        self._active = False
        self._warned = False

    def _open_writer(self, out: Path, model_name: str) -> LabelWriter:
        with readable(self._pyramid):
            record = describe_run(
                self.plan,
                self._pyramid,
                self._model,
                self._model_config,
                self.normalisation,
                self.config.overlap,
                self.precision,
                model_name,
            )
        writer = LabelWriter(
            out,
            self._pyramid,
            self.plan,
            self._model_config,
            record,
            self.config.overwrite,
        )
        # The numbers of the first run, so that a later version of the estimate does
        # not leave a seam in the middle of the slide.
        stored = writer.record["normalisation"]
        self.normalisation = SlideNormalisation(
            tuple(stored["low"]), tuple(stored["high"])
        )
        return writer

    @property
    def levels(self) -> list[Level] | None:
        """The output's arrays, finest first; None for a preview.

        The finest one is on disk, the others hold the newest pixels in memory.
        """
        return None if self._writer is None else self._writer.levels

    def focus(self, box: Sequence[float] | None) -> None:
        """Do the tiles near ``box`` next; safe from any thread.

        Parameters
        ----------
        box
            (y0, x0, y1, x1) in pixels of the slide's finest level; None: no preference.
        """
        self._schedule.focus(box)

    def stop(self) -> None:
        """End the iteration soon and keep what is finished; safe from any thread."""
        self._stop.event.set()

    def close(self) -> None:
        """Let others write to the output; done by the end of an iteration too."""
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> PredictionRun:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[PredictedTile]:
        """Do the work; each finished tile is handed out once.

        Raises
        ------
        PyramidError
            If the slide, or a part of it, cannot be read: then at the end, when all
            else is done.
        OutputError
            If the output cannot be written.
        """
        if self._active:
            raise RuntimeError("This prediction is iterated over already.")
        self._active = True
        return self._tiles()

    def _tiles(self) -> Iterator[PredictedTile]:
        self._report("\n".join(self.plan.notes))
        if self.finished_before:
            return
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            try:
                yield from self._predicted(stack)
            except Cancelled:
                self.stopped = True
                return
        self._complain()

    def _predicted(self, stack: contextlib.ExitStack) -> Iterator[PredictedTile]:
        """Read, compute and write; each of the three at its own pace."""
        stack.enter_context(
            prepared(self._model, self._device, self.config, self._stop)
        )
        wanted = np.zeros(self.plan.num_tiles, dtype=bool)
        wanted[self.plan.indices()] = True
        canvases = Canvases(
            self.plan, wanted & ~self._finished, self._model_config.num_classes,
            self._device,
        )  # fmt: skip
        stack.callback(canvases.close)
        output = Output(self._writer, self._stop.check)
        stack.callback(output.close)
        reader = BatchReader(
            self._with_coarse_levels(),
            self._model_config,
            self.normalisation,
            self._schedule,
            self.plan.batch_size,
        )
        stack.callback(reader.close)
        trim = HeapTrimmer()
        while (batch := self._next_batch(reader)) is not None:
            if isinstance(batch, Unreadable):
                self._lose(canvases.skip(batch.crop), batch.error)
                continue
            self._unread = 0
            for filled in self._passes(batch, canvases):
                output.put(filled)
            trim()
            yield from map(self._finish, output.written())
        yield from map(self._finish, output.finish())

    def _passes(self, batch: Batch, canvases: Canvases) -> Iterator[FilledTile]:
        """Take a batch through the model, in parts where the memory asks for it."""
        first = 0
        while first < len(batch.crops):
            try:
                with torch.inference_mode():
                    part = slice(first, first + self._pass_size)
                    logits = self._forward(batch.pixels[part], batch.boxes[part])
                    filled = list(canvases.add(batch.crops[part], logits))
            except torch.OutOfMemoryError as error:
                self._halve(error)
                continue
            first += self._pass_size
            yield from filled

    def _forward(
        self, pixels: NDArray[np.float32], boxes: NDArray[np.float32]
    ) -> Tensor:
        """(B, L, C, H, W) pixels to (B, K, H, W) logits."""
        x = torch.from_numpy(pixels).to(self._device, non_blocking=True)
        places = torch.from_numpy(boxes).to(self._device, non_blocking=True)
        half = self.precision == "bf16-mixed"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            return self._model(x, places)  # type: ignore[no-any-return]

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        """Go on with passes half as large after the memory ran out."""
        if self._pass_size == 1:
            raise ConfigError(
                f"A single crop does not fit into the memory of {self._device}; choose "
                "another device. What is finished is kept.",
                "device",
            ) from error
        self._pass_size = -(-self._pass_size // 2)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self._report(
            f"The memory of {self._device} ran out; going on with {self._pass_size} "
            "crops at a time."
        )

    def _lose(self, tiles: Sequence[Tile], error: PyramidError) -> None:
        """Go on without tiles that cannot be read; not if nothing can be read."""
        if not self.failed:
            self._first_error = error
        self.failed.extend(tile.box for tile in tiles)
        self._unread += 1
        path = self._pyramid.path
        if self._unread >= MAX_UNREAD or (path is not None and not path.exists()):
            raise PyramidError(
                f"{error} What is finished is kept; repair the file and run again."
            ) from error
        if tiles:
            self._report(f"{error} Going on with the rest.")

    def _complain(self) -> None:
        """Raise when tiles are missing at the end."""
        if self.failed and self._first_error is not None:
            raise PyramidError(
                f"{len(self.failed)} of {len(self.plan)} tiles could not be read; the "
                f"others are done. The first error: {self._first_error} Repair the "
                "file and run again, or choose a region without it."
            ) from self._first_error

    def _with_coarse_levels(self) -> Pyramid:
        """Return the slide with the levels that it lacks, from the cache on disk.

        Not before the writer has told this slide from others: a prediction is the same
        with a cache and without.
        """
        return with_coarse_levels(
            self._pyramid,
            self._model_config.scale_factors,
            cache=self._cache,
            # A look at a region must not wait for a pass over the whole slide.
            build=self.config.region is None,
            on_progress=self._on_progress,
            should_stop=self._stop.asked,
        )

    def _next_batch(self, reader: BatchReader) -> Batch | Unreadable | None:
        while True:
            self._stop.check()
            with contextlib.suppress(queue.Empty):
                return reader.get()

    def _finish(self, written: Written) -> PredictedTile:
        tile, labels = written
        self._done += 1
        message = ""
        if not self._warned and not labels.all():
            self._warned = True
            message = (
                "The model's answer is not a number somewhere in rows "
                f"{tile.box[0]} to {tile.box[2]} and columns {tile.box[1]} to "
                f"{tile.box[3]}; such pixels get the label 0 (not predicted)."
            )
        self._report(message)
        return PredictedTile(tile.index, tile.box, labels, self._done, len(self.plan))

    def _report(self, message: str = "") -> None:
        self._on_progress(
            Progress(
                stage="predict",
                done=self._done,
                total=len(self.plan),
                unit="tile",
                message=message,
            )
        )


def _config_of(model: nn.Module) -> ModelConfig:
    config = getattr(model, "config", None)
    if not isinstance(config, ModelConfig):
        raise ConfigError(
            f"{type(model).__name__} has no `config` of type ModelConfig, so it is not "
            "known what it reads; build it with build_model or load_model.",
            "model",
        )
    return config


def predict(
    source: Pyramid | str | Path,
    model: nn.Module | str | Path,
    config: PredictionConfig = DEFAULTS,
    out: str | Path | None = None,
    *,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
    cache: CacheSettings | None = None,
) -> PredictionRun:
    """Predict a slide tile by tile.

    Everything that can be wrong is checked here, before the first tile.

    Parameters
    ----------
    source
        The slide, opened or as a path.
    model
        A segmenter with a `ModelConfig` as ``config``, called as ``model(x, bboxes)``,
        or the folder of one.
    config
        What to do.
    out
        Folder of the output, an OME-Zarr label image. An unfinished prediction of the
        same slide by the same model and settings is continued. None: nothing is
        written, the tiles are only handed out.
    on_progress
        Called with a `Progress` after each tile, in the iterating thread.
    should_stop
        Asked often; when true, the iteration ends and ``stopped`` is set.
    cache
        Where coarse levels are kept that the slide lacks. None: as the environment
        says.

    Returns
    -------
    PredictionRun
        Iterate over it to do the work.

    Raises
    ------
    ConfigError
        If the model cannot read this slide.
    PyramidError
        If the slide cannot be read.
    CheckpointError
        If the model folder cannot be read.
    DeviceError
        If the device is missing.
    OutputError
        If something else is at ``out``, it is in use, or it cannot be written.
    """
    if not isinstance(source, Pyramid):
        from ..data.open import open_pyramid

        source = open_pyramid(source)
    if isinstance(model, nn.Module):
        name = type(model).__name__
    else:
        from ..model.checkpoint import load_model

        name = Path(model).name
        model = load_model(model)
    return PredictionRun(
        source,
        model,
        config,
        None if out is None else Path(out),
        name,
        on_progress,
        should_stop,
        cache,
    )
