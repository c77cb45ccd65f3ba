"""Predicting a slide: crops through the model, tiles out, in the planned order."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..config import PredictionConfig
from ..data.cache_settings import CacheSettings
from ..data.crops import SlideNormalisation, estimate_normalisation
from ..data.pyramid import Pyramid
from ..errors import Cancelled, ConfigError, PyramidError
from ..files import write_bytes
from ..model.device import resolve_device
from ..progress import Progress, ProgressFn, StopFn
from .blocks import BlockSchedule, in_shard
from .checks import PixelBox
from .contexts import has_preview
from .crew import Crew
from .engine import Engine, Work
from .ensemble import config_of, same_input
from .execution import StopCheck, settled_precision
from .filled import FilledTile
from .identity import describe_run
from .levels import Level
from .plan import PredictionPlan
from .predicted import PredictedTile
from .preview import Preview
from .preview_paint import new_preview, paint, refiner
from .reader import readable
from .schedule import Schedule
from .shards import ShardWriter
from .standalone import plan_slide, settled_context, with_levels
from .worker import BlockResult
from .workers import Blocks, Workers
from .writer import LabelWriter

if TYPE_CHECKING:
    from torch import nn


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
    precision
        ``32-true`` or ``bf16-mixed``.
    failed
        Boxes of the tiles that could not be read, in output pixels.
    preview
        The whole slide as the coarse levels see it, where it was asked for and begun.
    preview_file
        Where `write_preview` has put a picture of it.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        models: Sequence[nn.Module],
        config: PredictionConfig,
        out: Path | None,
        model_name: str,
        on_progress: ProgressFn,
        should_stop: StopFn,
        cache: CacheSettings | None = None,
        model_folders: Sequence[Path | None] = (),
        crew: Crew | None = None,
    ) -> None:
        self.config = config = settled_context(config, models)
        self.out = out
        self.stopped = False
        self._models = tuple(models)
        self._model_config = same_input([config_of(model) for model in models])
        self._on_progress = on_progress
        self._cache = cache
        self._pyramid = pyramid.viewed_at(self._model_config.pixel_size)
        self._device = resolve_device(config.device)
        self.precision = settled_precision(config.precision, self._device)
        self._stop = StopCheck(should_stop)
        self.plan: PredictionPlan = plan_slide(
            self._pyramid, [config_of(model) for model in models], config,
            cache=cache, on_progress=on_progress, should_stop=self._stop.asked,
        )  # fmt: skip
        with readable(pyramid):
            self.normalisation = estimate_normalisation(
                self._pyramid, self._model_config.normalisation
            )
        # First: who cannot be had must not leave an empty output.
        self._workers = Workers.of(config, model_folders, out, crew)
        self._target: LabelWriter | ShardWriter | None = None
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            self._open_output(out, model_name)
            stack.pop_all()
        self._schedule: Schedule | BlockSchedule
        left_out = self._finished | ~self._wanted
        if self._workers is None:
            self._schedule = Schedule(self.plan, left_out)
        else:
            self._schedule = BlockSchedule(self.plan, left_out)
        self._work: Work | None = None
        self.preview: Preview | None = None
        self.preview_file: Path | None = None
        self.failed: list[PixelBox] = []
        self._first_error = ""
        self._active = False
        self._warned = False

    def _open_output(self, out: Path | None, model_name: str) -> None:
        """Find out what is left to do, and take the lock of the output for it."""
        self._writer = None if out is None else self._open_writer(out, model_name)
        self._finished = np.zeros(self.plan.num_tiles, dtype=bool)
        if self._writer is not None:
            self._finished = self._writer.done
        self._wanted = np.zeros(self.plan.num_tiles, dtype=bool)
        self._wanted[self.plan.indices()] = True
        if self.config.shard is not None:
            self._wanted &= in_shard(self.plan, self.config.shard)
        self._total = int(self._wanted.sum())
        self._done = int((self._wanted & self._finished).sum())
        self.finished_before = self._done == self._total
        self._target = self._begin_to_write()

    def _begin_to_write(self) -> LabelWriter | ShardWriter | None:
        """Take the lock of the output, unless there is nothing left to do."""
        if self._writer is None:
            return None
        shard = self.config.shard
        if self.finished_before:
            # Of parts the last one does: meanwhile the others could not begin.
            if shard is None or self._writer.all_marked():
                self._writer.complete(self._wanted)
            self.close()
            return None
        target = self._writer if shard is None else ShardWriter(self._writer, shard)
        target.begin()
        weakref.finalize(self, target.close)
        return target

    def _open_writer(self, out: Path, model_name: str) -> LabelWriter:
        with readable(self._pyramid):
            record = describe_run(
                self.plan, self._pyramid, self._models, self.normalisation, self.config,
                self.precision, model_name, self.config.outputs,
            )  # fmt: skip
        writer = LabelWriter(
            out, self._pyramid, self.plan, self._model_config, record,
            self.config.overwrite,
        )  # fmt: skip
        # The numbers of the first run, so that a later version of the estimate does
        # not leave a seam in the middle of the slide.
        stored = writer.record["normalisation"]
        self.normalisation = SlideNormalisation(
            tuple(stored["low"]), tuple(stored["high"])
        )
        return writer

    @property
    def levels(self) -> list[Level] | None:
        """The arrays of the labels, finest first; None for a preview.

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
        if self._workers is not None:
            self._workers.close()
        if self._target is not None:
            self._target.close()

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
                yield from self._predicted()
            except Cancelled:
                self.stopped = True
                return
        self.check_failed()

    def make_preview(self) -> Preview | None:
        """Look at the whole slide, unless that was done; iterating does it, too.

        Returns
        -------
        Preview or None
            None where none was asked for, the model cannot, all tiles are finished, or
            it was stopped.

        Raises
        ------
        PyramidError
            If the slide cannot be read.
        """
        try:
            self._look()
        except Cancelled:
            # What is there of it stays to be looked at, but is no answer.
            return None
        return self.preview

    def write_preview(self) -> Path | None:
        """Make the preview, and write it beside the output as ``NAME.preview.png``.

        Returns
        -------
        Path or None
            Where; None where there is no preview, see `make_preview`, or no output.

        Raises
        ------
        PyramidError
            If the slide cannot be read.
        OutputError
            If it cannot be written.
        """
        preview = self.make_preview()
        if preview is None or self.out is None:
            return None
        path = self.out.with_suffix(".preview.png")
        self.preview_file = write_bytes(path, preview.png(self._model_config.colors))
        self._report(f"Preview: {path}")
        return path

    def _look(self) -> None:
        # Of parts the first one makes it for all.
        asked = self.config.preview and (self.config.shard or (0, 1))[0] == 0
        asked = asked and has_preview(self._model_config)
        if self.preview is not None or self.finished_before or not asked:
            return
        work = self._ready()
        self.preview = new_preview(work, refined=self._workers is None)
        paint(work, self.preview, self._stop, self._on_progress)

    def _ready(self) -> Work:
        """Return what goes through which model, once."""
        if self._work is None:
            # Not before the writer has told this slide from others: a prediction is
            # the same with a cache of coarse levels and without.
            pyramid = with_levels(
                self._pyramid, self._model_config, self.config, cache=self._cache,
                on_progress=self._on_progress, should_stop=self._stop.asked,
            )  # fmt: skip
            self._work = Work(
                pyramid, self._models, self._model_config, self.normalisation,
                self.plan, self.config, self._device, self.precision,
            )  # fmt: skip
        return self._work

    def _predicted(self) -> Iterator[PredictedTile]:
        if isinstance(self._schedule, BlockSchedule) and self._workers is not None:
            self._look()
            for result in self._workers.do(
                self._ready(), self._schedule, self._stop, self._lock_text
            ):
                yield from self.take(result)
            return
        if isinstance(self._schedule, BlockSchedule):
            raise ConfigError("There is nobody to work.", "workers")  # pragma: no cover
        work = self._ready()
        self._look()
        engine = Engine(
            work, self._schedule, self._wanted & ~self._finished, self._target,
            self._stop, self._report, refiner(work, self.preview),
        )  # fmt: skip
        self.failed = engine.failed
        for written in engine:
            yield self._finish(written)
        self._first_error = str(engine.first_error)

    @property
    def _lock_text(self) -> str:
        return "" if self._writer is None else self._writer.lock_text

    def blocks(self) -> Blocks | None:
        """Return the work as blocks for several processes, instead of iterating.

        What comes of them is for `take`, and `check_failed` and `close` end it. None:
        it is for this process alone.

        Raises
        ------
        Cancelled
            If ``should_stop`` said so while coarse levels were made.
        """
        if not isinstance(self._schedule, BlockSchedule) or self._workers is None:
            return None
        self._report("\n".join(self.plan.notes))
        return self._workers.blocks(self._ready(), self._schedule, self._lock_text)

    def take(self, result: BlockResult) -> Iterator[PredictedTile]:
        """Take over what another process has written of a block."""
        if self._writer is None:
            return
        for filled in self._writer.adopt(map(self.plan.tile, result.tiles)):
            yield self._finish(filled)
        if result.failed:
            self._first_error = self._first_error or result.error
            self.failed.extend(result.failed)
            self._report(f"{result.error} Going on with the rest.")

    def check_failed(self) -> None:
        """Raise `PyramidError` if there were tiles that could not be read."""
        if self.failed:
            raise PyramidError(
                f"{len(self.failed)} of {self._total} tiles could not be read; the "
                f"others are done. The first error: {self._first_error} Repair the "
                "file and run again, or choose a region without it."
            )

    def _finish(self, written: FilledTile) -> PredictedTile:
        tile, labels = written.tile, written.labels
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
        return PredictedTile(
            tile.index, tile.box, labels, self._done, self._total,
            written.probabilities, written.confidence,
        )  # fmt: skip

    def _report(self, message: str = "") -> None:
        self._on_progress(
            Progress(
                stage="predict",
                done=self._done,
                total=self._total,
                unit="tile",
                message=message,
            )
        )
