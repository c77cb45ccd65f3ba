"""Probes of trained models: what it is worth to them where their crops lie.

References: MuViT (arXiv 2602.24222), Table 2 and Fig. S3.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...data.cache_settings import CacheSettings
from ...errors import ConfigError
from ...evaluation.box_noise import BoxNoiseResult, box_noise_curve
from ...evaluation.mae_error import (
    MAEArm,
    MAEErrorResult,
    mae_errors,
    mean_and_error,
    summarise,
)
from ...model.device import resolve_device
from ...model.mae import MuViTMAE
from ...model.segmenter import MuViTSegmenter
from ...progress import (
    ProgressFn,
    StopFn,
    check_stop,
    ignore_progress,
    never_stop,
)
from ..prepare import (
    ImageSource,
    LabelSource,
    keep_coarse_levels,
    open_annotations,
    open_images,
    prepare,
    prepare_unlabelled,
)
from .data import (
    CropsOfEach,
    Meter,
    Probed,
    check_alike,
    check_counts,
    labelled_crops,
    open_model,
    plain_crops,
    say,
)

if TYPE_CHECKING:
    from torch import Tensor

SIGMAS = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
"""Noise on boxes that is looked at, pixels of the finest level."""
MAE_CROPS = 100
"""Crops of an image for the reconstruction error (paper)."""
BOX_CROPS = 32
"""Crops of an image for the noise on boxes."""


def probe_mae(
    model: MuViTMAE | str | Path,
    images: Sequence[ImageSource],
    *,
    naive_model: MuViTMAE | str | Path | None = None,
    crops: int = MAE_CROPS,
    batch_size: int = 16,
    device: str = "auto",
    seed: int = 0,
    cache: CacheSettings | None = None,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> MAEErrorResult:
    """Measure the reconstruction error by level, with true and with naive boxes.

    Parameters
    ----------
    model
        A masked autoencoder or its folder; it gets true boxes, then naive ones.
    images
        Slides that it was not trained on.
    naive_model
        One that was trained with naive boxes, of the same levels and crops; it gets
        naive boxes. This is the comparison of the paper's Table 2.
    crops
        Crops of each image, anywhere or where there is tissue.
    batch_size
        Crops in one run.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    seed
        Of crops and masks; they are the same for each column, and for any batch size.
    cache
        Where coarse levels are kept that the slides lack; None: as the environment
        says.
    on_progress, should_stop
        See `napari_muvit.core.progress`.

    Raises
    ------
    MuvitError
        `CheckpointError`, `PyramidError`, `ConfigError` or `DeviceError` for what the
        user can mend; `Cancelled` if ``should_stop`` said so.
    """
    check_counts(seed, crops=crops, batch_size=batch_size)
    where = resolve_device(device)
    probed = open_model(model, MuViTMAE)
    others = [] if naive_model is None else [open_model(naive_model, MuViTMAE)]
    for other in others:
        check_alike(probed, other)
    config = dataclasses.replace(probed.config, boxes="true")
    slides, config, notes = prepare_unlabelled(
        open_images(images), config, should_stop=should_stop
    )
    notes = (*notes, *_mae_notes(probed, others))
    say(on_progress, notes)
    slides = keep_coarse_levels(slides, config, cache, on_progress, should_stop)
    arms = [
        MAEArm(probed.name, probed.model.to(where), "true"),
        MAEArm(probed.name, probed.model, "naive"),
        *(MAEArm(o.name, o.model.to(where), "naive") for o in others),
    ]
    dataset = CropsOfEach(plain_crops(slides, config, seed), crops)
    meter = Meter(on_progress, should_stop, len(dataset))
    batches = meter.batches(dataset, batch_size, where)
    errors, guesses = mae_errors(arms, batches, seed=seed, should_stop=should_stop)
    rows, counted = summarise(arms, errors)
    patch = "a patch's own spread" if config.normalise_target else "normalised pixels"
    return MAEErrorResult(
        scale_factors=config.scale_factors,
        rows=rows,
        guess=mean_and_error(guesses)[0],
        crops=counted,
        images=dataset.names,
        mask_ratio=config.mask_ratio,
        unit=patch,
        seed=seed,
        notes=notes,
    )


def _mae_notes(probed: Probed, others: Sequence[Probed]) -> list[str]:
    notes = []
    if probed.config.boxes == "naive":
        notes.append(f"{probed.name} was trained with naive boxes: to it the true ones "
                     "are the wrong ones.")  # fmt: skip
    notes += [
        f"{other.name} was trained with true boxes; for the comparison of the paper a "
        "model that was trained with naive boxes is needed."
        for other in others
        if other.config.boxes != "naive"
    ]
    if len(probed.config.scale_factors) == 1:
        notes.append("The model has one level, so its boxes tell it nothing.")
    return notes


def probe_boxes(
    model: MuViTSegmenter | str | Path,
    images: Sequence[ImageSource],
    labels: Sequence[LabelSource],
    *,
    sigmas: Sequence[float] = SIGMAS,
    crops: int = BOX_CROPS,
    batch_size: int = 16,
    device: str = "auto",
    seed: int = 0,
    cache: CacheSettings | None = None,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> BoxNoiseResult:
    """Measure how Dice falls with noise on the boxes that a segmenter is told.

    Parameters
    ----------
    model
        A segmenter or its folder.
    images, labels
        As for `finetune`; slides that it was not trained on. Classes are those of the
        model.
    sigmas
        Standard deviations of the shift of each level's box, world pixels.
    crops
        Crops of each image, at annotated places.
    batch_size
        Crops in one run.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    seed
        Of crops and noise.
    cache
        See `probe_mae`.
    on_progress, should_stop
        See `napari_muvit.core.progress`.

    Raises
    ------
    MuvitError
        For what the user can mend; `Cancelled` if ``should_stop`` said so.
    """
    check_counts(seed, crops=crops, batch_size=batch_size)
    if not len(sigmas) or not all(0 <= sigma < math.inf for sigma in sigmas):
        raise ConfigError(
            f"The sigmas are {list(sigmas)}; at least one is needed, each of them "
            "zero or a positive number.",
            "sigmas",
        )
    where = resolve_device(device)
    probed = open_model(model, MuViTSegmenter)
    # Labels of coarse levels are not looked at.
    config = dataclasses.replace(probed.config, level_heads=False)
    pyramids = open_images(images)
    marks = open_annotations(
        labels,
        pyramids,
        zero_is_background=config.zero_is_background,
        classes=config.names,
        purpose="the probe",
    )
    data = prepare(pyramids, marks, config, seed, should_stop)
    notes = list(data.notes)
    if config.boxes == "naive":
        notes.append(f"{probed.name} gets naive boxes; the noise is upon those.")
    if len(config.scale_factors) == 1:
        notes.append("The model has one level, so its boxes tell it nothing.")
    say(on_progress, notes)
    slides = keep_coarse_levels(data.slides, config, cache, on_progress, should_stop)
    dataset = CropsOfEach(labelled_crops(slides, data.config, seed), crops)
    segmenter = probed.model.to(where).eval()

    def scores(pixels: Tensor, bboxes: Tensor) -> Tensor:
        check_stop(should_stop)
        logits: Tensor = segmenter(pixels, bboxes)
        return logits

    meter = Meter(on_progress, should_stop, len(dataset))
    batches = (
        (batch[0], batch[1], batch[2])
        for batch in meter.batches(dataset, batch_size, where)
    )
    rows = box_noise_curve(
        scores, batches, sigmas, background=config.background, seed=seed
    )
    return BoxNoiseResult(
        model=probed.name,
        class_names=config.names,
        class_colors=config.colors,
        background=config.background,
        scale_factors=config.scale_factors,
        crop_size=config.crop_size,
        rows=rows,
        crops=len(dataset),
        images=dataset.names,
        seed=seed,
        notes=tuple(notes),
    )
