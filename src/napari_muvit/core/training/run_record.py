"""From what a run was given and has found to its record."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from ..config import TrainingConfig
from ..data.datasets import SegmentationDataset
from ..data.sampling import PlainSlide, TrainingSlide
from ..settings import SETTINGS_FILE, Command, RunSettings, source_path
from .course import Course
from .loss_trace import read_losses
from .record import Row, RunRecord, SlideRecord, software_versions
from .result import TrainingResult

Slides = Sequence[TrainingSlide] | Sequence[PlainSlide]


def record_run(
    result: TrainingResult,
    *,
    kind: Command,
    training: TrainingConfig,
    slides: Slides,
    validation_slides: Slides = (),
    course: Course,
    log: Path,
    settings: RunSettings | None = None,
    validation: str = "",
    start: str = "",
    started: str = "",
    device: torch.device | None = None,
    command: Sequence[str] = (),
) -> RunRecord:
    """Put together what the report of a run needs.

    Parameters
    ----------
    result
        What the run left.
    kind
        ``finetune`` or ``pretrain``.
    training
        How it was trained.
    slides, validation_slides
        That were sampled.
    course
        Validations, and the confusion matrix of the best one.
    log
        CSV file of the losses.
    settings
        What was asked for: the preset, and the paths of the labels.
    validation
        A sentence, see `describe_validation`.
    start
        What was taken over from which model.
    started
        When the run began, UTC.
    device
        Where it ran.
    command
        Arguments of the command, if it was one.
    """
    settings = settings or RunSettings()
    config_file = result.model_path / SETTINGS_FILE
    return RunRecord(
        kind=kind,
        model=result.config.to_dict(),
        training=training.to_dict(),
        preset=settings.preset or "",
        software=software_versions(),
        started=started,
        device=describe_device(device, training) if device is not None else "",
        command=tuple(command),
        model_path=str(result.model_path),
        config_file=str(config_file) if config_file.is_file() else "",
        slides=(
            *_slides(slides, "training", settings.images, settings.labels),
            *_slides(
                validation_slides, "validation", settings.val_images,
                settings.val_labels,
            ),
        ),
        validation=validation,
        notes=tuple(result.notes),
        start=start,
        history=tuple(result.history),
        losses=read_losses(log),
        best=_best_row(result),
        confusion=None
        if course.confusion is None
        else tuple(tuple(int(n) for n in row) for row in course.confusion),
        steps=result.steps,
        seconds=result.seconds,
        cpu_seconds=result.cpu_seconds,
        stopped=result.stopped,
        peak_memory=peak_memory(device),
    )  # fmt: skip


def _slides(
    slides: Slides,
    role: Literal["training", "validation"],
    images: Sequence[str | None],
    labels: Sequence[str | None],
) -> list[SlideRecord]:
    """Slides with the labels that were given for their images."""
    pairs = dict(zip(images, labels, strict=False))
    made = [SlideRecord.of(slide, role) for slide in slides]
    found = [pairs.get(source_path(one.path)) if one.path else None for one in made]
    return [
        dataclasses.replace(one, labels=path or "")
        for one, path in zip(made, found, strict=True)
    ]


def _best_row(result: TrainingResult) -> Row:
    """The whole row of the kept weights, its training loss too."""
    step = result.best.get("step")
    rows = [row for row in result.history if row.get("step") == step]
    return {**rows[-1], **result.best} if rows else dict(result.best)


def describe_validation(
    dataset: SegmentationDataset, share: float, own_slides: bool
) -> str:
    """Say what a run of labelled slides is validated on.

    Parameters
    ----------
    dataset
        Validation samples.
    share
        Of the annotated area that was to be held out.
    own_slides
        Whether there are slides to validate on.

    Returns
    -------
    str
        A sentence or two; empty where there are slides of their own.
    """
    if own_slides:
        return ""
    edges = sorted({out.edge for out in dataset.hold_outs if out is not None})
    if not edges:
        return (
            "Nothing could be held out: the validation is on the places of the "
            "training. It shows the fit, not how good the model is elsewhere."
        )
    sizes = " and ".join(f"{edge:g}" for edge in edges)
    return (
        f"Validation: about {100 * share:.0f} % of the annotated area of these slides "
        f"was held out, in square cells of {sizes} px. No labelled pixel serves both, "
        "but the cells are neighbours of what was trained on: expect a slide that the "
        "model has never seen to come out lower."
    )


def describe_device(device: torch.device, config: TrainingConfig) -> str:
    """Return what a run ran on, in words."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        count = config.num_threads or torch.get_num_threads()
        name = f"CPU, {count} thread{'' if count == 1 else 's'}"
    else:
        name = device.type.upper()
    several = f"{config.world_size} × " if config.world_size > 1 else ""
    exact = "" if config.precision == "32-true" else f", {config.precision}"
    return f"{several}{name}{exact}"


def peak_memory(device: torch.device | None) -> int | None:
    """Most memory so far, bytes: of the GPU, else of this process; None: not known."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kilobytes, macOS bytes.
    return int(peak if sys.platform == "darwin" else peak * 1024)
