"""Pretrain a masked autoencoder on slides without labels.

Reference: MuViT (arXiv 2602.24222), section 3.3 and supplement A.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch

from ..config import ModelConfig, TrainingConfig
from ..data.cache_settings import CacheSettings
from ..data.datasets import MAEDataset
from ..data.sampling import PlainSlide, UniformSampler
from ..data.tissue import find_tissue
from ..model.mae import MuViTMAE
from ..progress import (
    Progress,
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)
from ..settings import RunSettings
from .closing import Circumstances, close_run, now
from .ended import find_ended
from .engine import Job, Run
from .fingerprint import fingerprint
from .keeper import Asked
from .mae_module import PretrainModule
from .memory import MemoryPlan, plan_memory
from .plan import TrainingPlan, make_plan
from .prepare import (
    ImageSource,
    keep_coarse_levels,
    open_images,
    prepare_unlabelled,
)
from .ready import check_machine, source_paths, start_settings
from .result import TrainingResult
from .run_folder import RunFolder, check_room, check_start_stays, run_folder
from .samples import VALIDATION_SEED_OFFSET, augmentation_of
from .slide_checks import pixel_notes
from .start import Start, choose_mae_config, start_mae
from .trainer import settled, threads
from .work import at_work

SAME_SLIDES = "Validation is on other crops of the same slides."
OTHER_SLIDES = "Validation is on slides of its own."


def pretrain(
    images: Sequence[ImageSource],
    config: TrainingConfig,
    *,
    out: str | Path,
    model: ModelConfig | str | None = None,
    start: Start = None,
    val_images: Sequence[ImageSource] = (),
    tissue: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
    cache: CacheSettings | None = None,
    settings: RunSettings | None = None,
    command: Sequence[str] = (),
) -> TrainingResult:
    """Train a masked autoencoder, whose encoder a segmenter can start from.

    Parameters
    ----------
    images
        Paths (OME-Zarr, TIFF, ...), arrays, lists of arrays or `Pyramid` objects.
    config
        How long and how; ``learning_rate`` is that of all weights. What concerns
        labels is left aside.
    out
        Model folder to write: a `MuViTMAE`.
    model
        Configuration of the model or the name of a preset. None: that of ``start``,
        else ``tiny``.
    start
        A model of any kind, or its folder, whose weights are the start.
    val_images
        Slides to validate on. Without them other crops of the same slides.
    tissue
        Sample where there is tissue; slides that show no background are sampled
        everywhere.
    overwrite, resume, on_progress, should_stop, cache, settings, command
        See `finetune`.

    Returns
    -------
    TrainingResult
        ``best`` has ``val_loss``, the mean squared error of hidden pixels, and
        ``error LEVEL`` for each level.

    Raises
    ------
    MuvitError
        As `finetune` does.
    """
    folder = run_folder(out)
    began = now()
    config = settled(config)
    complete = partial(
        _complete, tissue=tissue, cache=cache, on_progress=on_progress,
        should_stop=should_stop,
    )  # fmt: skip
    ended = find_ended(folder, "pretrain", overwrite=overwrite, resume=resume)
    if ended is not None:
        data = complete(_opened(images, model, start, val_images, should_stop))
        return ended.answer(_asked(data, config), on_progress)
    ready = check_pretraining(
        images,
        config,
        out=out,
        model=model,
        start=start,
        val_images=val_images,
        overwrite=overwrite,
        resume=resume,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    ready = dataclasses.replace(ready, data=complete(ready.data))
    settings = settings or RunSettings(
        command="pretrain",
        images=source_paths(images),
        val_images=source_paths(val_images),
        tissue=tissue,
        **start_settings(start),
    )
    with threads(config.num_threads):
        job = _job(ready, config, folder, settings)
        about = Circumstances(
            slides=ready.data.slides,
            validation_slides=ready.data.validation,
            validation=OTHER_SLIDES if ready.data.validation else SAME_SLIDES,
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


@dataclass(frozen=True, eq=False, kw_only=True)
class PlainData:
    """Slides without labels, and the completed model configuration."""

    config: ModelConfig
    """Of the model, completed."""
    slides: tuple[PlainSlide, ...]
    """To train on."""
    validation: tuple[PlainSlide, ...]
    """To validate on; empty: the same slides."""
    notes: tuple[str, ...]
    """What the user should know."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadyToPretrain:
    """Everything that a run needs, checked."""

    mae: MuViTMAE
    """The model before its first step."""
    data: PlainData
    """Slides and configuration."""
    device: torch.device
    """Where it will run."""
    memory: MemoryPlan
    """What it needs, and how its batch is split to fit."""
    start: str = ""
    """What was taken over."""


def check_pretraining(
    images: Sequence[ImageSource],
    config: TrainingConfig,
    *,
    out: str | Path,
    model: ModelConfig | str | None = None,
    start: Start = None,
    val_images: Sequence[ImageSource] = (),
    overwrite: bool = False,
    resume: bool = False,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> ReadyToPretrain:
    """Do all that `pretrain` does before its first step; nothing is written.

    Parameters and exceptions are those of `pretrain`.
    """
    folder = run_folder(out)
    config = settled(config)
    device = check_machine(config, folder, overwrite=overwrite, resume=resume)
    check_start_stays(folder, start)
    on_progress(Progress(stage="prepare", done=0, total=1, message="Opening slides"))
    data = _opened(images, model, start, val_images, should_stop)
    pixels = pixel_notes(
        [*data.slides, *data.validation], data.config, seed=config.seed,
        should_stop=should_stop,
    )  # fmt: skip
    notes = (*data.notes, *pixels)
    check_stop(should_stop)
    L.seed_everything(config.seed, verbose=False)
    initial = start_mae(data.config, start, on_progress)
    check_room(folder, initial.model, config)
    memory = plan_memory(initial.model, config, device)
    if memory.batch.note:
        notes = (*notes, memory.batch.note)
    for note in notes:
        on_progress(Progress(stage="prepare", done=1, total=1, message=note))
    return ReadyToPretrain(
        mae=initial.model, data=dataclasses.replace(data, notes=notes), device=device,
        memory=memory, start=initial.report.summary() if initial.report else "",
    )  # fmt: skip


def _opened(
    images: Sequence[ImageSource],
    model: ModelConfig | str | None,
    start: Start,
    val_images: Sequence[ImageSource],
    should_stop: StopFn,
) -> PlainData:
    """Open slides, and complete the model's configuration by them."""
    pyramids = open_images(images, should_stop)
    chosen = choose_mae_config(model, start, pyramids)
    # Tissue is looked for once the coarse levels are there.
    prepare = partial(prepare_unlabelled, tissue=False, should_stop=should_stop)
    slides, config, notes = prepare(pyramids, chosen)
    validation: tuple[PlainSlide, ...] = ()
    if len(val_images):
        validation, _, more = prepare(open_images(val_images, should_stop), config)
        notes = tuple(dict.fromkeys((*notes, *more)))
    else:
        notes = (*notes, SAME_SLIDES)
    return PlainData(config=config, slides=slides, validation=validation, notes=notes)


def _complete(
    data: PlainData,
    *,
    tissue: bool,
    cache: CacheSettings | None,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> PlainData:
    """Give the slides their coarse levels, then find tissue on these."""

    def complete(slides: tuple[PlainSlide, ...]) -> tuple[PlainSlide, ...]:
        kept = keep_coarse_levels(slides, data.config, cache, on_progress, should_stop)
        found = []
        for slide in kept:
            check_stop(should_stop)
            where = (
                find_tissue(slide.pyramid, should_stop=should_stop) if tissue else None
            )
            found.append(dataclasses.replace(slide, tissue=where))
        return tuple(found)

    return dataclasses.replace(
        data, slides=complete(data.slides), validation=complete(data.validation)
    )


def _asked(data: PlainData, config: TrainingConfig) -> Asked:
    return Asked(
        kind="pretrain",
        model=data.config.to_dict(),
        training=config.to_dict(),
        data=_fingerprint(data),
    )


def _fingerprint(data: PlainData) -> str:
    return fingerprint([*data.slides, *data.validation], data.config.normalisation)


def plan_pretraining(
    images: Sequence[ImageSource],
    config: TrainingConfig,
    *,
    out: str | Path,
    should_stop: StopFn = never_stop,
    **options: Any,
) -> TrainingPlan:
    """Say what `pretrain` would do, after all of its checks; nothing is written.

    Parameters and exceptions are those of `pretrain`.
    """
    config = settled(config)
    ready = check_pretraining(
        images, config, out=out, should_stop=should_stop, **options
    )
    with threads(config.num_threads):
        return make_plan(
            _job(ready, config, run_folder(out), RunSettings()),
            config,
            ready.data.slides,
            ready.data.validation,
            notes=ready.data.notes,
            should_stop=should_stop,
        )


def _job(
    ready: ReadyToPretrain,
    config: TrainingConfig,
    folder: RunFolder,
    settings: RunSettings,
) -> Job:
    data = ready.data
    seed = config.seed + VALIDATION_SEED_OFFSET
    training = UniformSampler(data.slides, data.config, seed=config.seed)
    validation = UniformSampler(data.validation or data.slides, data.config, seed=seed)
    levels = [f"error {factor:g}" for factor in data.config.scale_factors]
    return Job(
        kind="pretrain",
        module=PretrainModule(ready.mae, config),
        model=data.config,
        training=MAEDataset(training, data.config, augmentation_of(config)),
        validation=MAEDataset(validation, data.config),
        folder=folder,
        device=ready.device,
        memory=ready.memory,
        data=_fingerprint(data),
        log_columns=("val_loss", *levels),
        settings=settings,
    )
