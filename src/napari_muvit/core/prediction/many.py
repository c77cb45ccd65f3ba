"""Many slides in one run: the model is loaded once, and one crew does them all."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..config import PredictionConfig
from ..data.cache_settings import CacheSettings
from ..data.open import name_of, open_pyramid
from ..data.pyramid import Pyramid
from ..errors import Cancelled, ConfigError
from ..model.device import resolve_device
from ..progress import Progress, ProgressFn, StopFn, ignore_progress, never_stop
from .chain import Chain, OpenFn, SlideResult, SlideTask
from .crew import SLIDE_ERRORS, Crew, spread
from .entry import DEFAULTS, Model, load_models
from .execution import StopCheck
from .run import PredictionRun
from .workers import Workers

Source = Pyramid | str | Path


def predict_many(
    sources: Sequence[Source],
    model: Model | Sequence[Model],
    config: PredictionConfig = DEFAULTS,
    outs: Sequence[str | Path] = (),
    *,
    open_slide: Callable[[Source], Pyramid] = open_pyramid,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
    cache: CacheSettings | None = None,
) -> Iterator[SlideResult]:
    """Predict slides, one after the other or by several processes together.

    Slides are opened when it is their turn. Several processes (``config.workers``,
    ``config.scheduler``) work for all of them: when the last blocks of one slide are
    at work, who is free begins with the next. A slide that cannot be read, written or
    read by this model does not keep the others from being done.

    Parameters
    ----------
    sources
        Slides, opened or as paths.
    model
        One or several as `predict` takes them; several processes need folders.
    config
        What to do with each.
    outs
        Folder of the output of each, see `predict`.
    open_slide
        Opens a source.
    on_progress
        Called with a `Progress` whose subject is the name of a slide, in the iterating
        thread.
    should_stop
        Asked often, from any thread; when true, all of it ends.
    cache
        Where coarse levels are kept that a slide lacks. None: as the environment says.

    Returns
    -------
    iterator of SlideResult
        Iterate over it to do the work: one result a slide, in the order of
        ``sources``. After a stop the one that it came upon is ``stopped``, and those
        after it have none.

    Raises
    ------
    ConfigError
        If outputs are missing or the same, or several processes cannot be had.
    ImageNotFoundError
        If there is nothing at one of the paths.
    CheckpointError
        If the model folder cannot be read, also by a worker.
    DeviceError
        If the device is missing.
    MuvitError
        While iterating: what has to do with all of them, such as workers that die
        again and again.
    """
    tasks = _tasks(sources, [Path(out) for out in outs])
    resolve_device(config.device)
    loaded = load_models(model)
    stop = StopCheck(should_stop)
    workers = Workers.of(config, loaded.folders, Path())
    crew = None if workers is None else workers.crew

    def open_run(task: SlideTask, hear: ProgressFn) -> PredictionRun:
        slide = task.source
        if not isinstance(slide, Pyramid):
            slide = open_slide(slide)
        run = PredictionRun(
            slide, loaded.models, config, task.out, loaded.name, hear, stop.asked,
            cache, loaded.folders, crew,
        )  # fmt: skip
        with contextlib.ExitStack() as stack:
            stack.callback(run.close)
            if config.preview:
                run.write_preview()
            stack.pop_all()
        return run

    if crew is None:
        return _one_by_one(tasks, open_run, on_progress)
    return _together(crew, tasks, open_run, on_progress, stop)


def _tasks(sources: Sequence[Source], outs: Sequence[Path]) -> list[SlideTask]:
    """Check all paths before the first slide is done."""
    if len(sources) != len(outs):
        raise ConfigError(
            f"There are {len(sources)} slides and {len(outs)} outputs; one each is "
            "needed.",
            "outs",
        )
    places = [out.resolve() for out in outs]
    if len(set(places)) != len(places):
        twice = next(out for out in outs if places.count(out.resolve()) > 1)
        raise ConfigError(f"Two slides have the same output {twice}.", "outs")
    return [
        SlideTask(
            number,
            source.name if isinstance(source, Pyramid) else name_of(source),
            source,
            out,
        )
        for number, (source, out) in enumerate(zip(sources, outs, strict=True))
    ]


def _one_by_one(
    tasks: Sequence[SlideTask], open_run: OpenFn, on_progress: ProgressFn
) -> Iterator[SlideResult]:
    """Do all slides in this process."""
    for task in tasks:

        def hear(event: Progress, name: str = task.name) -> None:
            on_progress(dataclasses.replace(event, subject=name))

        result = SlideResult(name=task.name, out=task.out)
        tiles = 0
        try:
            with open_run(task, hear) as run:
                result = dataclasses.replace(
                    result,
                    finished_before=run.finished_before,
                    preview=run.preview_file,
                )
                for _ in run:
                    tiles += 1
            result = dataclasses.replace(result, stopped=run.stopped)
        except Cancelled:
            result = dataclasses.replace(result, stopped=True)
        except SLIDE_ERRORS as error:
            result = dataclasses.replace(result, error=error)
        yield dataclasses.replace(result, tiles=tiles)
        if result.stopped:
            return


def _together(
    crew: Crew,
    tasks: Sequence[SlideTask],
    open_run: OpenFn,
    on_progress: ProgressFn,
    stop: StopCheck,
) -> Iterator[SlideResult]:
    """Do all slides by one crew."""
    chain = Chain(tasks, open_run, on_progress, stop)
    try:
        with contextlib.closing(spread(crew, chain, chain.check)) as outcomes:
            for job, outcome in outcomes:
                chain.take(job, outcome)
                yield from chain.results()
        yield from chain.results()
    except Cancelled:
        yield from chain.close()
    finally:
        chain.close()
        crew.close()
