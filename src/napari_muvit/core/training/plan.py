"""What a run will do, before it does it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from ..config import ModelConfig, TrainingConfig
from ..data.loading import StoppableDataset
from ..data.sampling import PlainSlide, TrainingSlide
from ..progress import StopFn, check_stop, never_stop
from ..training_config import Precision
from .budget import Budget
from .engine import Job
from .stoppable import stoppable

SLOW_SECONDS = 5.0
"""A first pass that takes longer is not repeated: it tells enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedSlide:
    """One slide of a run."""

    name: str
    role: str
    """``training`` or ``validation``."""
    shape: tuple[int, ...]
    """World pixels along each spatial axis."""
    pixel_size: float | None
    """Micrometres; None: unknown."""
    annotated: tuple[int, ...] = ()
    """Annotated world pixels of each class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """What a run will do."""

    kind: str
    """``finetune`` or ``pretrain``."""
    slides: tuple[PlannedSlide, ...]
    class_names: tuple[str, ...]
    scale_factors: tuple[float, ...]
    crop_size: int
    parameters: int
    batch_size: int
    passes: int
    """Of a step, on each of the devices."""
    devices: int
    steps: int | None
    """None: as many as the time allows."""
    seconds: float | None
    """Time budget, or what the steps will take; None: not known."""
    steps_per_epoch: int
    seconds_per_step: float | None
    """Measured on one pass, reading included; None: not measured."""
    memory: int
    """Bytes that a training needs on each device, estimated."""
    free_memory: int
    """Bytes that are free there."""
    notes: tuple[str, ...]
    """What the user should know."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """Return a readable plan."""
        return "\n".join([*self._slide_lines(), *self._run_lines(), *self.notes])

    def _slide_lines(self) -> list[str]:
        lines = []
        for slide in self.slides:
            size = " x ".join(str(n) for n in slide.shape)
            pixel = f", {slide.pixel_size:g} µm" if slide.pixel_size else ""
            marked = ", ".join(
                f"{name} {100 * count / math.prod(slide.shape):.2g} %"
                for name, count in zip(self.class_names, slide.annotated, strict=False)
                if count
            )
            marked = f"; annotated: {marked}" if marked else ""
            lines.append(f"{slide.role} {slide.name}: {size} px{pixel}{marked}")
        return lines

    def _run_lines(self) -> list[str]:
        views = ", ".join(f"{self.crop_size * f:g} px" for f in self.scale_factors)
        levels = ", ".join(f"{f:g}" for f in self.scale_factors)
        shared = f" in {self.passes} passes" if self.passes > 1 else ""
        shared += f" on {self.devices} devices" if self.devices > 1 else ""
        steps = "as many steps as fit" if self.steps is None else f"{self.steps} steps"
        lines = [
            f"levels {levels}: crops of {self.crop_size} px that show {views}",
            f"{self.parameters / 1e6:.2f} million parameters",
            f"{steps} of {self.batch_size} nested crops{shared}",
        ]
        lines.append(
            f"memory about {self.memory / 2**30:.2f} GiB of "
            f"{self.free_memory / 2**30:.1f} GiB that are free"
        )
        if self.seconds_per_step is not None:
            lines.append(f"{self.seconds_per_step:.2g} s a step, measured")
        if self.seconds is not None:
            lines.append(f"time about {duration(self.seconds)}")
        return lines


def duration(seconds: float) -> str:
    """A time for people: 45 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 129_600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"


def make_plan(
    job: Job,
    config: TrainingConfig,
    training: Sequence[PlainSlide | TrainingSlide],
    validation: Sequence[PlainSlide | TrainingSlide],
    *,
    notes: Sequence[str] = (),
    measure: bool = True,
    should_stop: StopFn = never_stop,
) -> TrainingPlan:
    """Say what a job will do.

    Parameters
    ----------
    job, config
        The run.
    training, validation
        Its slides.
    notes
        What the user should know.
    measure
        Time a pass, forward and backward; the weights stay as they are.
    should_stop
        Asked often.
    """
    budget = Budget(config)
    each = measured_step(job, config, should_stop) if measure else None
    steps = budget.max_steps or None
    seconds = budget.seconds if budget.by_time else math.inf
    if each is not None and steps is not None:
        seconds = min(seconds, each * steps)
    slides = [
        planned_slide(slide, role)
        for role, group in (("training", training), ("validation", validation))
        for slide in group
    ]
    model: ModelConfig = job.model
    return TrainingPlan(
        kind=job.kind,
        slides=tuple(slides),
        class_names=model.names if job.kind == "finetune" else (),
        scale_factors=model.scale_factors,
        crop_size=model.crop_size,
        parameters=sum(p.numel() for p in job.module.network.parameters()),
        batch_size=config.batch_size,
        passes=job.passes,
        devices=config.world_size,
        steps=steps,
        seconds=seconds if math.isfinite(seconds) else None,
        steps_per_epoch=budget.steps_per_epoch,
        seconds_per_step=each,
        memory=job.memory.needed,
        free_memory=job.memory.free,
        notes=tuple(notes),
    )


def planned_slide(slide: PlainSlide | TrainingSlide, role: str) -> PlannedSlide:
    """Say what a slide is."""
    view = slide.pyramid
    size = view.pixel_size
    counts = slide.index.counts[1:] if isinstance(slide, TrainingSlide) else ()
    return PlannedSlide(
        name=view.name,
        role=role,
        shape=tuple(round(e) for e in view.extent.shape),
        pixel_size=None if size is None else float(np.mean(size)),
        annotated=tuple(int(c) for c in counts),
    )


def _autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Compute as precisely as the run will."""
    short = torch.float16 if precision == "16-mixed" else torch.bfloat16
    return torch.autocast(device.type, short, enabled=precision != "32-true")


def measured_step(
    job: Job, config: TrainingConfig, should_stop: StopFn = never_stop
) -> float:
    """Seconds of a step on this machine, reading included."""
    crops = config.batch_size // (job.passes * config.world_size)
    samples = StoppableDataset(job.training, should_stop)
    module = job.module.to(job.device).train()
    module.remember_buffers()
    seconds = math.inf
    with stoppable(module.network, should_stop):
        for number in range(2):
            check_stop(should_stop)
            begun = time.monotonic()
            indices = range(number * crops, (number + 1) * crops)
            batch = default_collate([samples[i] for i in indices])
            batch = type(batch)(*(part.to(job.device) for part in batch))
            with _autocast(config.precision, job.device):
                loss, _ = module.losses(batch, 0)
            loss.backward()
            if job.device.type == "cuda":
                torch.cuda.synchronize(job.device)
            seconds = min(seconds, time.monotonic() - begun)
            if seconds > SLOW_SECONDS:
                break
    module.zero_grad(set_to_none=True)
    module.undo_half_step()
    return seconds * job.passes
