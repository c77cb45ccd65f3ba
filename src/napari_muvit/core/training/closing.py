"""What a run leaves beside its model: a record, the curves and a report."""

from __future__ import annotations

import dataclasses
import datetime
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..config import TrainingConfig
from ..data.datasets import MAEDataset, SegmentationDataset
from ..data.sampling import PlainSlide, TrainingSlide
from ..errors import MuvitError
from ..files import write_json
from ..model.checkpoint import load_model
from ..model.mae import MuViTMAE
from ..model.segmenter import MuViTSegmenter
from ..progress import Progress, ProgressFn, StopFn
from ..settings import SETTINGS_FILE, source_path
from .distributed import is_first_process
from .engine import Job, Outcome
from .report.examples import ExampleSet, segmentation_examples
from .report.loss_trace import read_losses
from .report.page import write_report
from .report.reconstructions import reconstruction_examples
from .report.record import RunRecord, SlideRecord, software_versions
from .result import TrainingResult, result_of

EXAMPLE_SECONDS = 20.0
"""Time that the pictures of a report may take."""

FAILURES = (MuvitError, OSError, ValueError, RuntimeError, MemoryError)
"""What a run that has ended well survives."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Circumstances:
    """What a record says of a run beside its course."""

    slides: Sequence[PlainSlide | TrainingSlide]
    validation_slides: Sequence[PlainSlide | TrainingSlide]
    validation: str
    """What is validated on."""
    notes: tuple[str, ...]
    start: str
    """What was taken over."""
    began: datetime.datetime
    command: tuple[str, ...] = ()
    """What was typed; empty: called from Python."""


def now() -> datetime.datetime:
    """Return the time, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def close_run(
    job: Job,
    config: TrainingConfig,
    outcome: Outcome,
    about: Circumstances,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> TrainingResult:
    """Write the record and, unless it was stopped, the report of a run.

    What goes wrong with the report is said, and the run stays good.
    """
    about = _with_skipped(about, job, on_progress)
    record = _record(job, config, outcome, about)
    folder = job.folder
    if not is_first_process(config):
        return result_of(folder.path, record, job.model, None)
    write_json(folder.record, record.to_dict())
    report = None
    if outcome.stopped != "stopped":
        text = "Writing the report"
        on_progress(Progress(stage="write", done=0, total=1, message=text))
        try:
            report = write_report(folder.path, record, _shown(job, should_stop))
        except FAILURES as error:
            text = f"The model is written, its report is not: {error}"
            on_progress(Progress(stage="write", done=1, total=1, message=text))
        # A run that has ended needs no state. It goes last: one that is killed before
        # goes on with it, and ends again.
        folder.state.unlink(missing_ok=True)
    return result_of(folder.path, record, job.model, report)


def _with_skipped(
    about: Circumstances, job: Job, on_progress: ProgressFn
) -> Circumstances:
    """Say it where steps could not be taken: the model may have learned nothing."""
    skipped = job.module.skipped
    if not skipped:
        return about
    text = (
        f"{skipped} steps were left out, as their gradients were no finite numbers. "
        "Look for broken pixels, or take a lower --learning-rate or 32-true precision."
    )
    on_progress(Progress(stage="train", done=1, total=1, message=text))
    return dataclasses.replace(about, notes=(*about.notes, text))


def _shown(job: Job, should_stop: StopFn) -> ExampleSet:
    """Pictures, or why there are none: a slide may be gone by now."""
    try:
        return _examples(job, should_stop)
    except FAILURES as error:
        return ExampleSet(note=f"No example could be made: {error}")


def _examples(job: Job, should_stop: StopFn) -> ExampleSet:
    """Pictures by the weights that were kept."""
    data = job.validation
    if isinstance(data, MAEDataset):
        mae = load_model(job.folder.path, MuViTMAE).to(job.device)
        return reconstruction_examples(
            mae, data, seconds=EXAMPLE_SECONDS, should_stop=should_stop
        )
    if not isinstance(data, SegmentationDataset):
        return ExampleSet()
    segmenter = load_model(job.folder.path, MuViTSegmenter).to(job.device)
    return segmentation_examples(
        segmenter, data, seconds=EXAMPLE_SECONDS, should_stop=should_stop
    )


def _record(
    job: Job, config: TrainingConfig, outcome: Outcome, about: Circumstances
) -> RunRecord:
    confusion = outcome.course.confusion
    counts = None if confusion is None else tuple(map(tuple, confusion.tolist()))
    slides = [
        *_slides(about.slides, "training", job.settings.images, job.settings.labels),
        *_slides(
            about.validation_slides,
            "validation",
            job.settings.val_images,
            job.settings.val_labels,
        ),
    ]
    folder = job.folder
    return RunRecord(
        kind=job.kind,
        model=job.model.to_dict(),
        training=config.to_dict(),
        data=job.data,
        preset=job.settings.preset or "",
        software=software_versions(),
        started=f"{about.began:%Y-%m-%d %H:%M}",
        device=_device(job.device, config),
        command=about.command,
        model_path=str(folder.path.resolve()),
        config_file=str((folder.path / SETTINGS_FILE).resolve()),
        slides=tuple(slides),
        validation=about.validation,
        notes=about.notes,
        start=about.start,
        history=tuple(outcome.course.history),
        losses=read_losses(folder.log),
        best=outcome.course.best,
        confusion=counts,
        steps=outcome.steps,
        seconds=outcome.seconds,
        cpu_seconds=outcome.cpu_seconds,
        stopped=outcome.stopped,
        peak_memory=_peak_memory(job.device),
    )


def _slides(
    slides: Sequence[PlainSlide | TrainingSlide],
    role: Literal["training", "validation"],
    images: Sequence[str | None],
    labels: Sequence[str | None],
) -> list[SlideRecord]:
    """Slides with the labels of their images; some images may have been left out."""
    pairs = dict(zip(images, labels, strict=False))
    made = [SlideRecord.of(slide, role) for slide in slides]
    found = [pairs.get(source_path(one.path)) if one.path else None for one in made]
    return [
        dataclasses.replace(one, labels=path or "")
        for one, path in zip(made, found, strict=True)
    ]


def _device(device: torch.device, config: TrainingConfig) -> str:
    name = device.type
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        count = torch.get_num_threads()
        name = f"CPU, {count} thread{'' if count == 1 else 's'}"
    return name if config.world_size == 1 else f"{config.world_size} x {name}"


def _peak_memory(device: torch.device) -> int | None:
    """Most memory that the run took on the device, bytes, where that is known."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type != "cpu" or sys.platform == "win32":
        return None
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
