"""All that is done before the first step of a fine-tuning: checks, and a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from ..config import ModelConfig, TrainingConfig
from ..data.annotations import Annotations, label_classes
from ..data.pyramid import Pyramid
from ..data.sampling import TrainingSlide
from ..errors import ConfigError
from ..model.device import resolve_device
from ..model.kinds import SEGMENTER
from ..model.segmenter import MuViTSegmenter
from ..progress import (
    Progress,
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)
from ..settings import source_path
from .base_module import check_compiler
from .distributed import check_devices, is_first_process
from .label_checks import check_learnable, label_notes
from .memory import MemoryPlan, plan_memory, smallest_pass
from .prepare import (
    ImageSource,
    LabelSource,
    PreparedData,
    open_annotations,
    open_images,
    prepare,
)
from .run_folder import (
    RunFolder,
    check_output,
    check_room,
    check_start_stays,
    run_folder,
)
from .slide_checks import pixel_notes
from .split import hold_outs_of, prepare_validation
from .start import (
    Start,
    choose_config,
    preferred_class_names,
    reads_zero_as_background,
    start_header,
    start_segmenter,
)
from .trainer import check_trainer, settled

FROZEN_UNTRAINED = (
    "The encoder stays as it is (--freeze), but all or a part of it is untrained: "
    "start from a pretrained one (--start), or let it learn."
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
    folder = run_folder(out)
    config = settled(config)
    device = check_machine(config, folder, overwrite=overwrite, resume=resume)
    check_start_stays(folder, start)
    on_progress(Progress(stage="prepare", done=0, total=1, message="Opening slides"))
    data, validation = prepare_training(
        images, annotations, config, model=model, start=start, val_images=val_images,
        val_annotations=val_annotations, should_stop=should_stop,
    )  # fmt: skip
    check_stop(should_stop)
    data = _with_notes(data, validation, config, should_stop)
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


def prepare_training(
    images: Sequence[ImageSource],
    annotations: Sequence[LabelSource],
    config: TrainingConfig,
    *,
    model: ModelConfig | str | None = None,
    start: Start = None,
    val_images: Sequence[ImageSource] = (),
    val_annotations: Sequence[LabelSource] = (),
    should_stop: StopFn = never_stop,
) -> tuple[PreparedData, tuple[TrainingSlide, ...]]:
    """Open slides and labels, and complete the model's configuration by them.

    Parameters and exceptions are those of `finetune`.

    Returns
    -------
    tuple
        Training slides with the configuration, and validation slides of their own.
    """
    pyramids = open_images(images, should_stop)
    zero = reads_zero_as_background(model, start)
    marks = open_annotations(
        annotations,
        pyramids,
        zero_is_background=zero,
        classes=model.names if isinstance(model, ModelConfig) else None,
        preferred=preferred_class_names(model, start),
        should_stop=should_stop,
    )
    if not isinstance(model, ModelConfig) and not any(m.class_names for m in marks):
        for each in marks:
            # Large ones take long to be looked through, and are only once.
            label_classes(each, should_stop)
    model_config = choose_config(model, start, pyramids, marks)
    pyramids, marks = chosen_slides(config.labelled_slides, pyramids, marks)
    data = prepare(pyramids, marks, model_config, config.seed, should_stop)
    _check_batch(data.config, config)
    check_learnable(data.slides, data.config, start_knows=is_segmenter(start))
    validation = prepare_validation(
        val_images, val_annotations, data, config.seed, should_stop
    )
    return data, validation


def _with_notes(
    data: PreparedData,
    validation: Sequence[TrainingSlide],
    config: TrainingConfig,
    should_stop: StopFn,
) -> PreparedData:
    """Look at pixels and labels, and add what the user should know of them."""
    outs = hold_outs_of(data, validation, config)
    slides = [*data.slides, *validation]
    pixels = pixel_notes(slides, data.config, seed=config.seed, should_stop=should_stop)
    labels = label_notes(data.slides, data.config, outs, validation=validation)
    return dataclasses.replace(data, notes=(*data.notes, *pixels, *labels))


def is_segmenter(start: Start) -> bool:
    """Whether a run goes on from a segmenter."""
    header = start_header(start)
    return header is not None and header.kind == SEGMENTER


def check_machine(
    config: TrainingConfig, folder: RunFolder, *, overwrite: bool, resume: bool
) -> torch.device:
    """Check the output and what the machine must have; return where to run."""
    if is_first_process(config):
        # The others start when the first one is at work there.
        check_output(folder, overwrite=overwrite, resume=resume)
    device = resolve_device(config.device)
    check_devices(config, device)
    check_trainer(config, device)
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
