"""Fine-tune a segmenter: one call, from slides and annotations to a model folder."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from ..config import ModelConfig, TrainingConfig
from ..data.cache_settings import CacheSettings
from ..data.loading import make_loader
from ..data.sampling import TrainingSlide
from ..errors import AnnotationError, Cancelled, ConfigError, OutputError
from ..model.checkpoint import is_model_folder, save_model
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
from .budget import Budget, EpochSampler
from .callbacks import (
    BestModelCallback,
    Metrics,
    ScheduleCallback,
    StopCallback,
    stoppable,
)
from .modules import FineTuneModule
from .prepare import (
    ImageSource,
    LabelSource,
    PreparedData,
    keep_coarse_levels,
    open_annotations,
    open_images,
    prepare,
)
from .split import (
    Remembered,
    build_datasets,
    count_validation_crops,
    prepare_validation,
)
from .start import (
    Start,
    choose_config,
    given_class_names,
    initial_model,
    reads_zero_as_background,
)

ROOM_TO_SPARE = 2**20
"""Bytes on the disk beside the weights: the card and the configuration."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """What a run left."""

    model_path: Path
    """Model folder with the best weights."""
    config: ModelConfig
    """Of the model."""
    best: Mapping[str, float]
    """Validation figures of the kept weights: ``mDSC``, ``val_loss``, ``Dice NAME``;
    empty when it was stopped before the first validation."""
    history: tuple[Mapping[str, float], ...]
    """One row a validation: ``step``, ``seconds``, ``loss``, ``val_loss``, ``mDSC``."""
    stopped: str
    """``steps``, ``minutes`` or ``stopped``."""
    steps: int
    """Optimiser steps done."""
    seconds: float
    """Wall time of training, validation included."""
    cpu_seconds: float
    """Process CPU time of the same span."""
    notes: tuple[str, ...] = field(default=())
    """What the user should know about the data."""


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
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
    cache: CacheSettings | None = None,
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
    on_progress
        Called after every step and validation, from this thread.
    should_stop
        Asked often; when it says True training ends within 2 s and the best model
        stays.
    cache
        Where coarse levels are kept that the slides lack. None: as the environment
        says.

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
        on_progress=on_progress,
        should_stop=should_stop,
    )
    ready = _with_coarse_levels(ready, cache, on_progress, should_stop)
    with _threads(config.num_threads):
        return _fit(ready, config, Path(out), on_progress, should_stop)


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
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> ReadyToTrain:
    """Do all that `finetune` does before its first step; nothing is written.

    Parameters and exceptions are those of `finetune`.
    """
    _check_output(Path(out), overwrite)
    device = resolve_device(config.device)
    on_progress(Progress(stage="prepare", done=0, total=1, message="Opening slides"))
    pyramids = open_images(images)
    zero = reads_zero_as_background(model, start)
    marks = open_annotations(
        annotations,
        pyramids,
        zero_is_background=zero,
        classes=given_class_names(model, start),
    )
    model_config = choose_config(model, start, pyramids, marks)
    data = prepare(pyramids, marks, model_config, config.seed, should_stop)
    _check_batch(data.config, config)
    validation = prepare_validation(val_images, val_annotations, data, config.seed)
    check_stop(should_stop)
    L.seed_everything(config.seed, verbose=False)
    segmenter = initial_model(data.config, start, on_progress)
    _check_room(Path(out), segmenter)
    for note in data.notes:
        on_progress(Progress(stage="prepare", done=1, total=1, message=note))
    return ReadyToTrain(
        segmenter=segmenter, data=data, validation=validation, device=device
    )


def _check_batch(model: ModelConfig, config: TrainingConfig) -> None:
    """Refuse what batch norm cannot be trained with: a single value a channel."""
    by_batch = model.decoder != "pyramid" or model.pyramid_norm == "batch"
    one_value = all(edge == model.crop_size for edge in model.patch)
    if config.batch_size == 1 and one_value and by_batch:
        raise ConfigError(
            f"Crops of one patch ({model.crop_size} px) cannot be trained on one at a "
            "time; use larger crops, or a larger batch.",
            "batch_size",
        )


def _check_output(folder: Path, overwrite: bool) -> None:
    """Refuse what is somebody else's, or cannot be written, before hours of work.

    Leaves nothing behind: a mistake found later must not leave an empty folder.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; a folder for the model is needed.")
    if folder.is_dir() and any(folder.iterdir()):
        if not is_model_folder(folder):
            raise OutputError(
                f"{folder} holds other files; choose a new folder for the model."
            )
        if not overwrite:
            raise OutputError(
                f"{folder} holds a model already; choose another folder or pass "
                "--overwrite."
            )
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()
        for path in made:
            path.rmdir()
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}. Free the disk or "
            "choose another folder for the model."
        ) from error


def _check_room(folder: Path, segmenter: MuViTSegmenter) -> None:
    """Refuse a disk that has no room for the model, before hours of work."""
    place = next(p for p in (folder, *folder.parents) if p.exists())
    needed = sum(t.numel() * t.element_size() for t in segmenter.state_dict().values())
    free = shutil.disk_usage(place).free
    if free < needed + ROOM_TO_SPARE:
        raise OutputError(
            f"The disk of {folder} has {free / 1e6:.0f} MB left, the model needs "
            f"{(needed + ROOM_TO_SPARE) / 1e6:.0f} MB. Free the disk or choose another "
            "folder for the model."
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


def _fit(
    ready: ReadyToTrain,
    config: TrainingConfig,
    folder: Path,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> TrainingResult:
    segmenter, data, device = ready.segmenter, ready.data, ready.device
    training, validation = build_datasets(data, ready.validation, config)
    if training.sampler.empty:
        raise AnnotationError("No annotated place is left to train on; annotate more.")
    if config.freeze_encoder:
        segmenter.encoder.requires_grad_(requires_grad=False)
    budget = Budget(config)
    wall, cpu = time.monotonic(), time.process_time()
    counts = np.sum([slide.index.counts for slide in data.slides], axis=0)
    module = FineTuneModule(segmenter, config, counts.tolist())

    save = partial(_save, segmenter, folder, config)
    best = BestModelCallback(budget, on_progress, save)
    sampler = EpochSampler(budget, config.batch_size)
    callbacks = [StopCallback(should_stop), ScheduleCallback(budget, on_progress), best]
    stopped = ""
    with _quiet():
        trainer = _trainer(config, device, callbacks)
    try:
        with stoppable(segmenter, should_stop), _quiet():
            crops = count_validation_crops(
                segmenter, validation, budget, config, device
            )
            trainer.fit(
                module,
                make_loader(
                    training,
                    batch_sampler=sampler,
                    num_workers=config.num_workers,
                    pin_memory=device.type == "cuda",
                ),
                DataLoader(Remembered(validation, crops), batch_size=config.batch_size),
            )
    except Cancelled:
        stopped = "stopped"
    steps = trainer.global_step
    if stopped and not best.best:
        _check_worth_saving(folder, steps)
        save({}, best.history)
    return TrainingResult(
        model_path=folder,
        config=data.config,
        best=best.best,
        history=tuple(best.history),
        stopped=stopped or budget.stop_reason(steps),
        steps=steps,
        seconds=time.monotonic() - wall,
        cpu_seconds=time.process_time() - cpu,
        notes=data.notes,
    )


def _save(
    segmenter: MuViTSegmenter,
    folder: Path,
    config: TrainingConfig,
    metrics: Mapping[str, float],
    history: Sequence[Metrics],
) -> None:
    """Write the model with what is known about it."""
    save_model(
        segmenter,
        folder,
        metrics={k: v for k, v in metrics.items() if math.isfinite(v)},
        training={"config": config.to_dict(), "history": list(history)},
    )


def _check_worth_saving(folder: Path, steps: int) -> None:
    """Raise `Cancelled` where a model that no validation has seen is of no use."""
    if steps == 0:
        raise Cancelled("Stopped before the first step; there is no model yet.")
    if is_model_folder(folder):
        # With overwrite: a validated model is worth more than a few steps.
        raise Cancelled(
            f"Stopped before the first validation; the model that was at {folder} is "
            "kept."
        )


def _trainer(
    config: TrainingConfig, device: torch.device, callbacks: list[L.Callback]
) -> L.Trainer:
    index = device.index or 0
    return L.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=1 if device.type != "cuda" else [index],
        precision=config.precision,
        max_epochs=-1,
        gradient_clip_val=config.clip_norm,
        callbacks=callbacks,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Limit torch's CPU threads for the time of the run."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice on loaders and its banners away from the user."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
