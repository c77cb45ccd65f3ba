"""Training while the user goes on annotating.

The rate stays constant after a warm-up and the weights are averaged, so that the model
is fit to be looked at after any step. What is reported is how well each batch was
segmented before its labels were learned from.

The features of a frozen encoder are not kept: its forward pass takes 8 to 14 % of a
step of the presets ``tiny`` and ``small`` on a CPU, and 22 to 30 % with the decoders
of the paper and crops of 64 or 128 px. (With the pyramid decoder behind the paper's
encoder it takes 65 to 72 %: there it would pay.)
"""

from __future__ import annotations

import copy
import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

from ..config import ModelConfig, TrainingConfig
from ..data.annotations import Annotations
from ..data.datasets import CropBatch, SegmentationDataset
from ..data.sampling import CropSampler
from ..errors import AnnotationError, ConfigError, NothingAnnotatedError
from ..evaluation import dice_from_confusion
from ..model.checkpoint import save_model
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
from .batch_statistics import Batch, RecentBatches, renew_statistics
from .budget import Budget
from .callbacks import progress_event
from .ema import WeightAverage
from .hard_places import HardPlace, HardPlaces
from .memory import advised, plan_memory
from .modules import FineTuneModule, class_weights
from .prepare import (
    ImageSource,
    Known,
    LabelSource,
    keep_coarse_levels,
    open_annotations,
    open_images,
    prepare,
)
from .samples import augmentation_of
from .start import Start, choose_config, initial_model, reads_zero_as_background
from .stoppable import stoppable
from .trainer import settled, threads

WARMUP_STEPS = 20
"""Steps in which the rate rises."""
DECAY = 0.98
"""Of the average of the weights, where the configuration asks for none."""
RECENT = 20
"""Batches whose Dice is reported."""
WAIT_SECONDS = 0.1
"""Between two looks for the first annotation."""


class InteractiveTrainer:
    """Trains a segmenter on slides whose annotations may change meanwhile.

    `run` trains in the thread that calls it; all other methods may be called from any
    thread.

    Parameters
    ----------
    images
        Slides; see `finetune`.
    annotations
        One a slide; they may be empty for the time being.
    config
        How; its limits end a `run`, its validation is left aside.
    model
        Configuration of the model, which names all classes, or the name of a preset.
        None: that of ``start``, else ``tiny``.
    start
        A model, or a model folder, whose weights are the start.

    Raises
    ------
    MuvitError
        As `finetune` does.
    """

    def __init__(
        self,
        images: Sequence[ImageSource],
        annotations: Sequence[LabelSource],
        config: TrainingConfig,
        *,
        model: ModelConfig | str | None = None,
        start: Start = None,
    ) -> None:
        config = settled(config)
        if config.world_size > 1 or config.precision == "16-mixed":
            raise ConfigError(
                "Interactive training runs on one device, in 32-true or bf16-mixed "
                "precision.",
                "devices",
            )
        self.training_config = config
        self.device = resolve_device(config.device)
        self._images = open_images(images)
        zero = reads_zero_as_background(model, start)
        self._marks = open_annotations(
            annotations, self._images, zero_is_background=zero
        )
        self._asked = choose_config(model, start, self._images, self._marks)
        self._changed = True
        self._guard = threading.Lock()
        self._known: dict[int, Known] = {}
        self._dataset: SegmentationDataset | None = None
        self._lacking = ""
        L.seed_everything(config.seed, verbose=False)
        self._segmenter = initial_model(self._asked, start, ignore_progress)
        if config.freeze_encoder:
            self._segmenter.encoder.requires_grad_(requires_grad=False)
        self._memory = plan_memory(
            self._segmenter,
            dataclasses.replace(config, ema=config.ema or DECAY),
            self.device,
        )
        self._module = FineTuneModule(self._segmenter, config)
        self._module.to(self.device)
        self._optimiser = self._module.configure_optimizers()
        self._average = WeightAverage(self._segmenter, config.ema or DECAY)
        weights = self._segmenter.state_dict()
        self._first = {k: v.detach().clone() for k, v in weights.items()}
        self._weights_guard = threading.Lock()
        self._recent: deque[NDArray[np.int64]] = deque(maxlen=RECENT)
        self._hard = HardPlaces()
        self._batches = RecentBatches()
        self._passes: list[Batch] = []
        self._marked: list[int] = []
        self.steps = 0
        """Steps so far."""

    @property
    def config(self) -> ModelConfig:
        """Configuration of the model, completed once there was an annotation."""
        return self._asked

    def annotate(self, number: int, annotations: Annotations) -> None:
        """Replace the annotations of a slide; they count from the next batch.

        Parameters
        ----------
        number
            Of the slide, from 0.
        annotations
            All of its annotations, in pixels of its finest level.

        Raises
        ------
        AnnotationError
            If there is no such slide.
        """
        if not 0 <= number < len(self._images):
            raise AnnotationError(
                f"Slide {number} was annotated; there are {len(self._images)}, "
                "counted from 0."
            )
        with self._guard:
            self._marks[number] = annotations
            self._changed = True

    def snapshot(self) -> MuViTSegmenter:
        """Return a copy of the model as it is, in evaluation mode, on the CPU.

        It is that behind the last whole step; statistics of batch normalisation are
        taken anew from the last batches. Training goes on; only the moment in which a
        step changes the weights is waited for.
        """
        with self._weights_guard:
            weights = self._average.shadow or self._first
            weights = {k: v.detach().to("cpu", copy=True) for k, v in weights.items()}
            kept = self._batches.all()
        network = MuViTSegmenter(copy.copy(self.config))
        network.load_state_dict(weights)
        network.to(self.device)
        batches = [
            (pixels.to(self.device), boxes.to(self.device)) for pixels, boxes in kept
        ]
        # With more threads than cores are free it takes twenty times as long.
        with threads(self.training_config.num_threads):
            renew_statistics(network, batches)
        return network.to("cpu").eval()

    def save(self, out: str | Path) -> Path:
        """Write the model as it is to a folder; see `save_model`."""
        facts = {"config": self.training_config.to_dict(), "steps": self.steps}
        return save_model(self.snapshot(), out, training=facts)

    def hard_places(self, most: int = 8) -> list[HardPlace]:
        """Return where the last crops were wrong most, from the thread of `run`."""
        return self._hard.worst(most)

    def run(
        self,
        on_progress: ProgressFn = ignore_progress,
        should_stop: StopFn = never_stop,
    ) -> None:
        """Train until the limits of the configuration, or a stop; may be called again.

        Without any annotation it waits for one.

        Parameters
        ----------
        on_progress
            Called after every step, from this thread. What it takes does not count
            as time of the training, so that it may wait, or look at a `snapshot`.
        should_stop
            Asked often; ends the run within 2 s, between two steps.

        Raises
        ------
        Cancelled
            If it was stopped.
        MuvitError
            For annotations that do not fit.
        """
        budget = Budget(self.training_config)
        budget.start()
        begun = self.steps
        note, said = self._memory.batch.note, False
        with (
            threads(self.training_config.num_threads),
            stoppable(self._segmenter, should_stop),
        ):
            while not budget.exhausted(self.steps - begun):
                check_stop(should_stop)
                dataset = self._awaited(on_progress, should_stop)
                if note and not said:
                    said = True
                    on_progress(
                        Progress(stage="prepare", done=1, total=1, message=note)
                    )
                metrics = self._advised_step(dataset)
                event = progress_event(budget, self.steps - begun, metrics)
                spent = budget.elapsed
                on_progress(event)
                budget.start(spent)

    def _awaited(
        self, on_progress: ProgressFn, should_stop: StopFn
    ) -> SegmentationDataset:
        """Samples of the annotations, once there is one."""
        said = ""
        while True:
            dataset = self._current(on_progress, should_stop)
            if dataset is not None:
                return dataset
            text = f"Waiting for annotations. {self._lacking}".rstrip()
            if text != said:
                on_progress(Progress(stage="prepare", done=0, total=1, message=text))
                said = text
            time.sleep(WAIT_SECONDS)
            check_stop(should_stop)

    def _current(
        self, on_progress: ProgressFn, should_stop: StopFn
    ) -> SegmentationDataset | None:
        """Samples of the annotations as they are now; None without any."""
        with self._guard:
            changed, self._changed = self._changed, False
            marks = list(self._marks)
        if not changed:
            return self._dataset
        self._lacking = ""
        try:
            self._dataset = self._built(marks, on_progress, should_stop)
        except NothingAnnotatedError as error:
            # Such as strokes that were all erased again.
            self._dataset, self._lacking = None, str(error)
        except BaseException:
            # A stop, or annotations that do not fit: the next look begins anew.
            with self._guard:
                self._changed = True
            raise
        return self._dataset

    def _built(
        self, marks: Sequence[Annotations], on_progress: ProgressFn, should_stop: StopFn
    ) -> SegmentationDataset | None:
        """Samples of these annotations; None without any."""
        self._marked = marked = [n for n, m in enumerate(marks) if m.items]
        if not marked:
            return None
        data = prepare(
            [self._images[n] for n in marked],
            [marks[n] for n in marked],
            self.config,
            self.training_config.seed,
            should_stop,
            known=[self._known.get(n) for n in marked],
        )
        slides = []
        for n, slide in zip(marked, data.slides, strict=True):
            if n not in self._known:
                (slide,) = keep_coarse_levels(
                    [slide], data.config, None, on_progress, should_stop
                )
            slides.append(slide)
            self._known[n] = Known(marks[n], slide)
        self._asked = data.config
        counts = np.sum([slide.index.counts for slide in slides], axis=0)
        weights = class_weights(
            data.config, counts.tolist(), self.training_config.foreground_weight
        )
        self._module.weights.copy_(weights)
        sampler = CropSampler(
            slides, data.config, foreground_share=self.training_config.foreground_share,
            seed=self.training_config.seed,
        )  # fmt: skip
        return SegmentationDataset(
            sampler, data.config, augmentation=augmentation_of(self.training_config)
        )

    def _advised_step(self, dataset: SegmentationDataset) -> dict[str, float]:
        """Take a step, with advice where memory runs out."""
        with advised(self._memory):
            return self._step(dataset)

    def _step(self, dataset: SegmentationDataset) -> dict[str, float]:
        """Take a step, in as many passes as memory asks for."""
        first = self.steps * self.training_config.batch_size
        share = min(1.0, (self.steps + 1) / WARMUP_STEPS)
        for group in self._optimiser.param_groups:
            group["lr"] = group["peak"] * share
        module = self._module.train()
        module.remember_buffers()
        self._optimiser.zero_grad(set_to_none=True)
        size, loss = self._memory.batch.micro_batch, 0.0
        self._passes = []
        found: list[NDArray[np.int64]] = []
        try:
            for number in range(self._memory.batch.accumulate):
                start = first + number * size
                part, counts = self._pass(dataset, range(start, start + size))
                loss += part
                found.append(counts)
        except BaseException:
            module.undo_half_step()
            raise
        module.configure_gradient_clipping(self._optimiser)
        self._optimiser.step()
        # What a snapshot shows; it must not see half of it.
        with self._weights_guard:
            self._average.update()
            for batch in self._passes:
                self._batches.add(*batch)
            self._first = {}
            self.steps += 1
        self._recent.append(np.sum(found, axis=0))
        return {"loss": loss, **self._figures()}

    def _pass(
        self, dataset: SegmentationDataset, indices: Sequence[int]
    ) -> tuple[float, NDArray[np.int64]]:
        """Add the gradients of some crops; returns their share of the loss.

        Also their (K + 1, K + 1) pixels, true label by predicted label.
        """
        batch = default_collate([dataset[i] for i in indices])
        self._passes.append((batch.pixels, batch.bboxes))
        batch = CropBatch(*(part.to(self.device) for part in batch))
        with torch.autocast(
            self.device.type,
            torch.bfloat16,
            enabled=self.training_config.precision == "bf16-mixed",
        ):
            loss, logits = self._module.losses(batch, 0)
        loss = loss / self._memory.batch.accumulate
        loss.backward()
        found = logits.detach()
        self._note_errors(dataset, indices, found, batch)
        return float(loss.detach()), _confusion(found, batch)

    def _note_errors(
        self,
        dataset: SegmentationDataset,
        indices: Sequence[int],
        logits: torch.Tensor,
        batch: CropBatch,
    ) -> None:
        """Remember how much of each crop was wrong."""
        labels = batch.labels.long()
        known = (labels > 0).flatten(1).sum(dim=1)
        wrong = (labels > 0) & (logits.max(dim=1).indices + 1 != labels)
        shares = wrong.flatten(1).sum(dim=1) / known.clamp(min=1)
        for sample, share in zip(indices, shares.tolist(), strict=True):
            drawn = dataset.sampler.draw(sample)
            slide = dataset.sampler.slides[drawn.slide]
            self._hard.add(
                self._marked[drawn.slide], slide.pyramid, drawn.crop.boxes[0], share
            )

    def _figures(self) -> dict[str, float]:
        """Dice of the recent batches, each before it was learned from."""
        config = self.config
        dice = dice_from_confusion(np.sum(self._recent, axis=0))
        known = [d for k in config.foreground if math.isfinite(d := dice[k - 1])]
        figures = {"mDSC": float(np.mean(known))} if known else {}
        for name, value in zip(config.names, dice, strict=True):
            if math.isfinite(value):
                figures[f"Dice {name}"] = float(value)
        return figures


def _confusion(logits: torch.Tensor, batch: CropBatch) -> NDArray[np.int64]:
    classes = logits.shape[1] + 1
    pairs = batch.labels.long() * classes + logits.max(dim=1).indices + 1
    counts = torch.bincount(pairs.flatten(), minlength=classes**2)
    return counts.view(classes, classes).cpu().numpy().astype(np.int64)
