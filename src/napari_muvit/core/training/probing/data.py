"""Crops for probes: so many of each slide, in order, the same for a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...checks import whole
from ...config import ModelConfig
from ...data.datasets import MAEDataset, SegmentationDataset
from ...data.loading import make_loader
from ...data.sampling import CropSampler, PlainSlide, TrainingSlide, UniformSampler
from ...errors import CheckpointError, ConfigError
from ...evaluation.linear_probe import majority_label
from ...model import reference
from ...model.checkpoint import is_model_folder, load_model, read_header
from ...model.encoder import MuViTEncoder
from ...model.kinds import wrong_kind
from ...model.mae import MuViTMAE
from ...model.segmenter import MuViTSegmenter
from ...progress import Progress, ProgressFn, StopFn, check_stop

FOREGROUND_SHARE = 0.5
"""Share of labelled crops that are drawn around a foreground pixel, the classes of a
slide equally often; the rest are drawn around any annotated pixel."""
SEED_STEP = 1_000_003
"""Between the seeds of two slides."""


class CropsOfEach(Dataset[Any]):
    """So many crops of each of several slides, one slide after the other.

    Parameters
    ----------
    slides
        Samples of each slide by index.
    count
        Crops of each.
    """

    def __init__(
        self,
        slides: Sequence[MAEDataset] | Sequence[SegmentationDataset],
        count: int,
    ) -> None:
        self.slides: tuple[MAEDataset | SegmentationDataset, ...] = tuple(slides)
        self.count = count

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the slides."""
        return tuple(crops.sampler.slides[0].pyramid.name for crops in self.slides)

    def __len__(self) -> int:
        return len(self.slides) * self.count

    def __getitem__(self, index: int) -> Any:
        """Read one crop."""
        slide, sample = divmod(index, self.count)
        return self.slides[slide][sample]


class ClassifiedCrops(CropsOfEach):
    """The same, each crop with one class: pixels, boxes, class from 1 (0: none).

    Parameters
    ----------
    slides, count
        See `CropsOfEach`.
    classes
        Class of each slide; None: that of each crop, see `majority_label`.
    background
        Label of the background, for that.
    """

    def __init__(
        self,
        slides: Sequence[MAEDataset] | Sequence[SegmentationDataset],
        count: int,
        classes: Sequence[int] | None = None,
        background: int | None = None,
    ) -> None:
        super().__init__(slides, count)
        self.classes = classes
        self.background = background

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Read one crop and find its class."""
        crop = super().__getitem__(index)
        if self.classes is not None:
            label = self.classes[index // self.count]
        else:
            label = majority_label(crop.labels, self.background)
        return crop.pixels, crop.bboxes, torch.tensor(label)


def plain_crops(
    slides: Sequence[PlainSlide], config: ModelConfig, seed: int
) -> list[MAEDataset]:
    """Crops of each slide, anywhere or where there is tissue."""
    return [
        MAEDataset(
            UniformSampler([slide], config, seed=seed + SEED_STEP * number), config
        )
        for number, slide in enumerate(slides)
    ]


def labelled_crops(
    slides: Sequence[TrainingSlide], config: ModelConfig, seed: int
) -> list[SegmentationDataset]:
    """Crops of each slide that has annotations, at annotated places."""
    found = []
    for number, slide in enumerate(slides):
        sampler = CropSampler(
            [slide],
            config,
            foreground_share=FOREGROUND_SHARE,
            seed=seed + SEED_STEP * number,
        )
        if not sampler.empty:
            found.append(SegmentationDataset(sampler, config))
    return found


class Meter:
    """Counts crops, and reports them as progress.

    Parameters
    ----------
    on_progress
        Called after each batch.
    should_stop
        Asked before each batch.
    total
        Crops of the whole piece of work.
    """

    def __init__(
        self, on_progress: ProgressFn, should_stop: StopFn, total: int
    ) -> None:
        self.on_progress = on_progress
        self.should_stop = should_stop
        self.total = total
        self.done = 0

    def batches(
        self, dataset: CropsOfEach, batch_size: int, device: torch.device
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield batches in order, on a device.

        Raises
        ------
        Cancelled
            If ``should_stop`` said so.
        """
        starts = range(0, len(dataset), batch_size)
        order = [
            list(range(start, min(start + batch_size, len(dataset))))
            for start in starts
        ]
        check_stop(self.should_stop)
        for batch in make_loader(dataset, batch_sampler=order):
            check_stop(self.should_stop)
            yield tuple(part.to(device) for part in batch)
            self.done += len(batch[0])
            self.on_progress(
                Progress(
                    stage="evaluate", done=self.done, total=self.total, unit="crop"
                )
            )
            check_stop(self.should_stop)


def say(on_progress: ProgressFn, notes: Sequence[str]) -> None:
    """Report what the user should know."""
    for note in notes:
        on_progress(Progress(stage="prepare", done=1, total=1, message=note))


def check_counts(seed: int, **counts: int) -> None:
    """Raise `ConfigError` for a count below 1, or a seed below 0."""
    for name, value in counts.items():
        whole(value, 1, name)
    whole(seed, 0, "seed")


@dataclass(frozen=True, eq=False, slots=True)
class Probed:
    """A model that is looked at."""

    name: str
    """Of its folder."""
    kind: str
    """``MuViTMAE``, ``MuViTSegmenter`` or ``MuViTEncoder``."""
    model: Any
    """The module, in evaluation mode where it was loaded here."""
    config: ModelConfig
    """Its configuration."""


def open_model(model: Any, kind: type[Any]) -> Probed:
    """Take a model, or load one from its folder.

    Parameters
    ----------
    model
        A module, compiled or not, or a model folder of this or of the authors' package.
    kind
        `MuViTMAE`, `MuViTSegmenter`, or `MuViTEncoder`, which is taken out of each.

    Raises
    ------
    CheckpointError
        If it is of another kind.
    """
    if isinstance(model, (str, Path)):
        return _open_folder(Path(model), kind)
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, (MuViTEncoder, MuViTMAE, MuViTSegmenter)):
        raise CheckpointError(
            f"A {type(model).__name__} was given; a model or its folder is needed."
        )
    held = type(model).__name__
    if kind is MuViTEncoder and not isinstance(model, MuViTEncoder):
        model = model.encoder
    if not isinstance(model, kind):
        raise wrong_kind("The given model", held, kind.__name__)
    return Probed("the given model", held, model, model.config)


def _open_folder(folder: Path, kind: type[Any]) -> Probed:
    name = folder.absolute().name
    if is_model_folder(folder) or not reference.is_reference_folder(folder):
        held = read_header(folder).kind
        model = load_model(folder, kind)
        return Probed(name, held, model, model.config)
    held = reference.read_reference_header(folder).kind
    if kind is MuViTEncoder:
        encoder = reference.load_reference_encoder(folder).eval()
        return Probed(name, held, encoder, encoder.config)
    if held != kind.__name__:
        raise wrong_kind(str(folder), held, kind.__name__)
    mae = reference.load_reference_checkpoint(folder).eval()
    return Probed(name, held, mae, mae.config)


def check_alike(first: Probed, second: Probed) -> None:
    """Raise `ConfigError` unless two models can look at the same crops."""
    for name in (
        "ndim", "in_channels", "scale_factors", "crop_size", "patch", "pixel_size",
        "normalisation", "normalise_target",
    ):  # fmt: skip
        one, other = getattr(first.config, name), getattr(second.config, name)
        if one != other:
            raise ConfigError(
                f"{first.name} has {name} {one}, but {second.name} has {other}; to be "
                "compared on the same crops they need the same.",
                name,
            )
