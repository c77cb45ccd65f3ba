"""Fine-tune a segmenter: one call, from slides and annotations to a model folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from ..config import ModelConfig, TrainingConfig
from ..data.annotations import Annotations
from ..data.cache_settings import CacheSettings
from ..data.pyramid import Pyramid
from ..data.sampling import TrainingSlide
from ..errors import AnnotationError, ConfigError
from ..model.device import resolve_device
from ..model.segmenter import MuViTSegmenter
from ..progress import (
    Progress,
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)
from ..settings import RunSettings, source_path
from .base_module import check_compiler
from .closing import Circumstances, close_run, finished_result, now, say_ended
from .distributed import check_devices, is_first_process
from .engine import Job, Run
from .fingerprint import fingerprint
from .memory import MemoryPlan, plan_memory, smallest_pass
from .modules import FineTuneModule
from .plan import TrainingPlan, make_plan
from .prepare import (
    ImageSource,
    LabelSource,
    PreparedData,
    keep_coarse_levels,
    open_annotations,
    open_images,
    prepare,
)
from .result import TrainingResult
from .run_folder import RunFolder, check_output, check_room
from .split import build_datasets, prepare_validation
from .start import (
    Start,
    choose_config,
    preferred_class_names,
    reads_zero_as_background,
    start_segmenter,
)
from .trainer import check_trainer, settled, threads

__all__ = ["ReadyToTrain", "TrainingResult", "check_training", "finetune"]


FROZEN_UNTRAINED = (
    "The encoder stays as it is (--freeze), but all or a part of it is untrained: "
    "start from a pretrained one (--start), or let it learn."
)


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
    folder = RunFolder(Path(out))
    began = now()
    config = settled(config)
    done = finished_result(folder, "finetune") if resume else None
    if done is not None:
        say_ended(done, on_progress)
        return done
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
        job = _job(ready, config, folder, settings)
        about = Circumstances(
            slides=ready.data.slides,
            validation_slides=ready.validation,
            validation=validation_text(ready),
            notes=ready.data.notes,
            start=ready.start,
            began=began,
        )
        run = Run(job, config, on_progress, should_stop, resume)
        with run.at_work() as lock:
            return close_run(
                job, config, run.train(lock), about, on_progress, should_stop
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadyToTrain:
    """Everything that a run needs, checked."""

    segmenter: MuViTSegmenter
    """The model before its first step."""
    data: PreparedData
    """Training slides, configuration, and what the user should know."""
    validation: tuple[TrainingSlide, ...]
    """Validation slides of their own; empty: a part is held out."""
    device: torch.device
    """Where it will run."""
    memory: MemoryPlan
    """What it needs, and how its batch is split to fit."""
    start: str = ""
    """What was taken over."""


def check_training(
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
) -> ReadyToTrain:
    """Do all that `finetune` does before its first step; nothing is written.

    Parameters and exceptions are those of `finetune`.
    """
    folder = RunFolder(Path(out))
    config = settled(config)
    device = check_machine(config, folder, overwrite=overwrite, resume=resume)
    on_progress(Progress(stage="prepare", done=0, total=1, message="Opening slides"))
    pyramids = open_images(images)
    zero = reads_zero_as_background(model, start)
    marks = open_annotations(
        annotations,
        pyramids,
        zero_is_background=zero,
        classes=model.names if isinstance(model, ModelConfig) else None,
        preferred=preferred_class_names(model, start),
    )
    model_config = choose_config(model, start, pyramids, marks)
    pyramids, marks = chosen_slides(config.labelled_slides, pyramids, marks)
    data = prepare(pyramids, marks, model_config, config.seed, should_stop)
    _check_batch(data.config, config)
    validation = prepare_validation(val_images, val_annotations, data, config.seed)
    check_stop(should_stop)
    L.seed_everything(config.seed, verbose=False)
    initial = start_segmenter(data.config, start, on_progress)
    check_room(folder, initial.model, config)
    memory = plan_memory(initial.model, config, device)
    if memory.batch.note:
        data = dataclasses.replace(data, notes=(*data.notes, memory.batch.note))
    if config.freeze_encoder and not (
        initial.report is not None and initial.report.encoder_is_whole
    ):
        data = dataclasses.replace(data, notes=(*data.notes, FROZEN_UNTRAINED))
    for note in data.notes:
        on_progress(Progress(stage="prepare", done=1, total=1, message=note))
    return ReadyToTrain(
        segmenter=initial.model,
        data=data,
        validation=validation,
        device=device,
        memory=memory,
        start=initial.report.summary() if initial.report else "",
    )


def check_machine(
    config: TrainingConfig, folder: RunFolder, *, overwrite: bool, resume: bool
) -> torch.device:
    """Check the output and what the machine must have; return where to run."""
    if is_first_process(config):
        # The others start when the first one is at work there.
        check_output(folder, overwrite=overwrite, resume=resume)
    device = resolve_device(config.device)
    check_devices(config, device)
    check_trainer(config)
    check_compiler(config)
    return device


def chosen_slides(
    count: int | None, slides: Sequence[Pyramid], marks: Sequence[Annotations]
) -> tuple[list[Pyramid], list[Annotations]]:
    """Choose so many slides, evenly spread over their order.

    Raises
    ------
    ConfigError
        If there are fewer.
    """
    if count is None:
        return list(slides), list(marks)
    if count > len(slides):
        raise ConfigError(
            f"labelled_slides is {count}, but there are {len(slides)} slides.",
            "labelled_slides",
        )
    kept = [int((i + 0.5) * len(slides) / count) for i in range(count)]
    return [slides[i] for i in kept], [marks[i] for i in kept]


def _check_batch(model: ModelConfig, config: TrainingConfig) -> None:
    """Refuse what batch norm cannot be trained with: a single value a channel."""
    crops = config.batch_size // ((config.accumulate or 1) * config.world_size)
    if crops < smallest_pass(model):
        raise ConfigError(
            f"Crops of one patch ({model.crop_size} px) cannot be trained on one at a "
            "time; use larger crops, or a larger batch.",
            "batch_size",
        )


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
            _job(ready, config, RunFolder(Path(out)), RunSettings()),
            config,
            ready.data.slides,
            ready.validation,
            notes=ready.data.notes,
            should_stop=should_stop,
        )


def validation_text(ready: ReadyToTrain) -> str:
    """Say what a run is validated on."""
    if ready.validation:
        return "Validation is on slides of its own."
    return "Validation is on a part of the annotated places, held out by place."


def source_paths(sources: Sequence[Any]) -> tuple[str | None, ...]:
    """Paths of slides or labels, None for objects; see `RunSettings`."""
    if isinstance(sources, (str, Path, Pyramid, np.ndarray, Annotations)):
        sources = [sources]
    return tuple(source_path(source) for source in sources)


def start_settings(start: Start) -> dict[str, Any]:
    """What settings say of a start."""
    path = source_path(start)
    lost = start is not None and path is None
    return {"start": path, "missing": ("start",) if lost else ()}


def _job(
    ready: ReadyToTrain,
    config: TrainingConfig,
    folder: RunFolder,
    settings: RunSettings,
) -> Job:
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
        data=fingerprint([*data.slides, *ready.validation]),
        log_columns=("val_loss", "mDSC", *names),
        settings=settings,
    )
