"""Training and validation samples: no labelled pixel in both."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import TrainingConfig
from ..data.datasets import SegmentationDataset
from ..data.sampling import CropSampler, HoldOut, TrainingSlide, hold_out
from ..progress import StopFn, never_stop
from .prepare import (
    ImageSource,
    LabelSource,
    PreparedData,
    open_annotations,
    open_images,
    prepare,
)
from .samples import VALIDATION_SEED_OFFSET, augmentation_of


def prepare_validation(
    images: Sequence[ImageSource],
    annotations: Sequence[LabelSource],
    data: PreparedData,
    seed: int,
    should_stop: StopFn = never_stop,
) -> tuple[TrainingSlide, ...]:
    """Open the validation slides, with the same checks as the training slides."""
    if not len(images) and not len(annotations):
        return ()
    pyramids = open_images(images, should_stop) if len(images) else []
    zero = data.config.zero_is_background
    marks = open_annotations(
        annotations,
        pyramids,
        zero_is_background=zero,
        classes=data.config.names,
        purpose="validation",
    )
    return prepare(pyramids, marks, data.config, seed, should_stop).slides


def hold_outs_of(
    data: PreparedData, validation: Sequence[TrainingSlide], config: TrainingConfig
) -> list[HoldOut | None]:
    """Choose what is held out of each slide; nothing with validation slides."""
    if validation:
        return [None] * len(data.slides)
    edge = data.config.crop_size * data.config.scale_factors[0]
    return [
        hold_out(slide.index, edge, config.validation_share, config.seed)
        for slide in data.slides
    ]


def build_datasets(
    data: PreparedData, validation: Sequence[TrainingSlide], config: TrainingConfig
) -> tuple[SegmentationDataset, SegmentationDataset]:
    """Training and validation samples, no label in both."""
    outs = hold_outs_of(data, validation, config)

    def sampler(
        slides: Sequence[TrainingSlide],
        seed: int,
        held: Sequence[HoldOut | None] | None,
        held_only: bool,
    ) -> CropSampler:
        return CropSampler(
            slides,
            data.config,
            foreground_share=config.foreground_share,
            seed=seed,
            hold_outs=held,
            held_only=held_only,
        )

    training = SegmentationDataset(
        sampler(data.slides, config.seed, outs, False),
        data.config,
        augmentation=augmentation_of(config),
        hold_outs=outs,
    )
    seed = config.seed + VALIDATION_SEED_OFFSET
    if validation:
        return training, SegmentationDataset(
            sampler(validation, seed, None, False), data.config
        )
    split = [(s, o) for s, o in zip(data.slides, outs, strict=True) if o is not None]
    if not split:
        # Too little annotated to hold anything out: the curve shows the training fit.
        return training, SegmentationDataset(
            sampler(data.slides, seed, None, False), data.config
        )
    slides, held = [s for s, _ in split], [o for _, o in split]
    return training, SegmentationDataset(
        sampler(slides, seed, held, True), data.config, hold_outs=held, held_only=True
    )
