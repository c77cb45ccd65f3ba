"""Fine-tune a segmenter: one call, from slides and annotations to a model folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ModelConfig, TrainingConfig
from ..data.cache_settings import CacheSettings
from ..data.sampling import TrainingSlide
from ..errors import AnnotationError
from ..progress import (
    ProgressFn,
    StopFn,
    ignore_progress,
    never_stop,
)
from ..settings import RunSettings
from .closing import Circumstances, close_run, now
from .ended import find_ended
from .engine import Job, Run
from .fingerprint import fingerprint
from .keeper import Asked
from .modules import FineTuneModule
from .plan import TrainingPlan, make_plan
from .prepare import (
    ImageSource,
    LabelSource,
    PreparedData,
    keep_coarse_levels,
)
from .ready import (
    ReadyToTrain,
    check_training,
    prepare_training,
    source_paths,
    start_settings,
)
from .result import TrainingResult
from .run_folder import RunFolder, run_folder
from .split import build_datasets, hold_outs_of
from .start import (
    Start,
)
from .trainer import settled, threads
from .work import at_work


def finetune(
    images: Sequence[ImageSource],
    annotations: Sequence[LabelSource],
    config: TrainingConfig,
    *,
    out: str | Path,
    model: ModelConfig | str | None = None,
    start: Start = None,
    val_images: Sequence[ImageSource] = (),
    val_annotations: Sequence[LabelSource] = (),
    overwrite: bool = False,
    resume: bool = False,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
    cache: CacheSettings | None = None,
    settings: RunSettings | None = None,
    command: Sequence[str] = (),
) -> TrainingResult:
    """Train a segmenter on annotated slides.

    Parameters
    ----------
    images
        Paths (OME-Zarr, TIFF, ...), arrays, lists of arrays or `Pyramid` objects.
    annotations
        One an image: `Annotations`, a GeoJSON or project file, or a label image of the
        image's shape (0 = not annotated, classes from 1; with ``zero_is_background``
        in the model, label v is class v + 1).
    config
        How long and how.
    out
        Model folder to write; it holds the best weights from the first validation on.
    model
        Configuration of the model or the name of a preset. None: that of ``start``,
        else ``tiny``.
    start
        A model, or a model folder, whose weights are the start.
    val_images, val_annotations
        Slides to validate on. Without them a part of the annotated places is held out.
    overwrite
        Replace a model that is at ``out``.
    resume
        Go on with the run that was stopped or killed at ``out``, from its last state,
        to the weights that the unbroken run would have. Where there is none, begin.
    on_progress
        Called after every step and validation, from this thread.
    should_stop
        Asked often; when it says True training ends within 2 s, and the best model and
        a state to go on from stay.
    cache
        Where coarse levels are kept that the slides lack. None: as the environment
        says.
    settings
        Paths and ways of reading, to be kept beside the model, from which the run can
        be repeated. None: as far as ``images`` and ``annotations`` are paths.
    command
        What was typed to call this, the program's name first, for the report.

    Returns
    -------
    TrainingResult

    Raises
    ------
    MuvitError
        A `ConfigError`, `PyramidError`, `AnnotationError`, `CheckpointError`,
        `OutputError` or `DeviceError` for what the user can mend; `Cancelled` when it
        was stopped before there was any model.
    """
    folder = run_folder(out)
    began = now()
    config = settled(config)
    ended = find_ended(folder, "finetune", overwrite=overwrite, resume=resume)
    if ended is not None:
        data, validation = prepare_training(
            images, annotations, config, model=model, start=start,
            val_images=val_images, val_annotations=val_annotations,
            should_stop=should_stop,
        )  # fmt: skip
        return ended.answer(_asked(data, validation, config), on_progress)
    ready = check_training(
        images,
        annotations,
        config,
        out=out,
        model=model,
        start=start,
        val_images=val_images,
        val_annotations=val_annotations,
        overwrite=overwrite,
        resume=resume,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    ready = _with_coarse_levels(ready, cache, on_progress, should_stop)
    settings = settings or RunSettings(
        command="finetune",
        images=source_paths(images),
        labels=source_paths(annotations),
        val_images=source_paths(val_images),
        val_labels=source_paths(val_annotations),
        **start_settings(start),
    )
    with threads(config.num_threads):
        job = finetune_job(ready, config, folder, settings)
        about = Circumstances(
            slides=ready.data.slides,
            validation_slides=ready.validation,
            validation=validation_text(ready, config),
            notes=ready.data.notes,
            start=ready.start,
            began=began,
            command=tuple(command),
        )
        with at_work(folder, config, overwrite=overwrite, resume=resume) as lock:
            # What it goes on from is read while nobody else can write it.
            run = Run(job, config, on_progress, should_stop, resume)
            return close_run(
                job, config, run.train(lock), about, on_progress, should_stop
            )


def _asked(
    data: PreparedData, validation: Sequence[TrainingSlide], config: TrainingConfig
) -> Asked:
    return Asked(
        kind="finetune",
        model=data.config.to_dict(),
        training=config.to_dict(),
        data=_fingerprint(data, validation),
    )


def _fingerprint(data: PreparedData, validation: Sequence[TrainingSlide]) -> str:
    return fingerprint([*data.slides, *validation], data.config.normalisation)


def _with_coarse_levels(
    ready: ReadyToTrain,
    cache: CacheSettings | None,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> ReadyToTrain:
    keep = partial(
        keep_coarse_levels,
        config=ready.data.config,
        cache=cache,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    data = dataclasses.replace(ready.data, slides=keep(ready.data.slides))
    return dataclasses.replace(ready, data=data, validation=keep(ready.validation))


def plan_finetuning(
    images: Sequence[ImageSource],
    annotations: Sequence[LabelSource],
    config: TrainingConfig,
    *,
    out: str | Path,
    should_stop: StopFn = never_stop,
    **options: Any,
) -> TrainingPlan:
    """Say what `finetune` would do, after all of its checks; nothing is written.

    Parameters and exceptions are those of `finetune`. A step is timed, which may build
    no coarse levels, so it can be slower than it will be.
    """
    config = settled(config)
    ready = check_training(
        images, annotations, config, out=out, should_stop=should_stop, **options
    )
    with threads(config.num_threads):
        return make_plan(
            finetune_job(ready, config, run_folder(out), RunSettings()),
            config,
            ready.data.slides,
            ready.validation,
            notes=ready.data.notes,
            should_stop=should_stop,
        )


def validation_text(ready: ReadyToTrain, config: TrainingConfig) -> str:
    """Say what a run is validated on."""
    if ready.validation:
        return "Validation is on slides of its own."
    if any(hold_outs_of(ready.data, ready.validation, config)):
        return "Validation is on a part of the annotated places, held out by place."
    return "Validation is on the places of the training: it shows how well they fit."


def finetune_job(
    ready: ReadyToTrain,
    config: TrainingConfig,
    folder: RunFolder,
    settings: RunSettings,
) -> Job:
    """Return the run of what is ready; see `check_training`."""
    segmenter, data = ready.segmenter, ready.data
    training, validation = build_datasets(data, ready.validation, config)
    if training.sampler.empty:
        raise AnnotationError("No annotated place is left to train on; annotate more.")
    if config.freeze_encoder:
        segmenter.encoder.requires_grad_(requires_grad=False)
    counts = np.sum([slide.index.counts for slide in data.slides], axis=0)
    names = [f"Dice {name}" for name in data.config.names]
    return Job(
        kind="finetune",
        module=FineTuneModule(segmenter, config, counts.tolist()),
        model=data.config,
        training=training,
        validation=validation,
        folder=folder,
        device=ready.device,
        memory=ready.memory,
        data=_fingerprint(data, ready.validation),
        log_columns=("val_loss", "mDSC", *names),
        settings=settings,
    )
