"""Linear probe of a frozen encoder on slides with labels, or in groups.

Reference: MuViT (arXiv 2602.24222), section 4.6 and Table 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from ...config import ModelConfig
from ...data.cache_settings import CacheSettings
from ...errors import ConfigError
from ...evaluation.linear_probe import (
    CropFeatures,
    LinearProbeResult,
    LinearProbeRow,
    crop_features,
    level_sets,
    score_levels,
)
from ...model.device import resolve_device
from ...model.encoder import MuViTEncoder
from ...model.mae import MuViTMAE
from ...model.segmenter import MuViTSegmenter
from ...progress import ProgressFn, StopFn, ignore_progress, never_stop
from ..prepare import ImageSource, LabelSource, open_images
from .data import Meter, check_counts, open_model, say
from .linear_task import ClassedCrops, ProbeTask, crops_by_group, crops_by_label

GROUP_CROPS = (5, 10)
"""Crops of a training and of a test image where images have a class (paper)."""
LABEL_CROPS = (32, 32)
"""The same where crops have one."""


def probe_linear(
    model: MuViTEncoder | MuViTMAE | MuViTSegmenter | str | Path,
    images: Sequence[ImageSource],
    labels: Sequence[LabelSource] = (),
    *,
    groups: Sequence[str] = (),
    test_images: Sequence[ImageSource] = (),
    test_labels: Sequence[LabelSource] = (),
    test_groups: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    zero_is_background: bool = False,
    crops: int | None = None,
    test_crops: int | None = None,
    untrained: bool = False,
    l2: float = 1.0,
    batch_size: int = 16,
    device: str = "auto",
    seed: int = 0,
    cache: CacheSettings | None = None,
    on_progress: ProgressFn = ignore_progress,
    should_stop: StopFn = never_stop,
) -> LinearProbeResult:
    """Fit a linear classifier on features of a frozen encoder, and test it.

    The class of a crop is that of most of its annotated pixels (see `majority_label`),
    or the group of its image. Done for each level alone (the encoder sees no other),
    then from the finest level on with one more at a time, up to all.

    Parameters
    ----------
    model
        An encoder, a model that has one, or a folder of any of them.
    images
        Slides to train on.
    labels
        One an image, as for `finetune`; or none, and ``groups``.
    groups
        Name of the group of each image; or none, and ``labels``.
    test_images, test_labels, test_groups
        The same to test on. Without them a quarter of the images (of each group) is
        held out.
    classes, zero_is_background
        See `open_annotations`.
    crops, test_crops
        Crops of each training and test image; None: 5 and 10 with groups (paper),
        else 32 and 32.
    untrained
        Also probe an encoder of the same form with random weights, as a yardstick.
    l2
        See `fit_linear_probe`.
    batch_size
        Crops in one run.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    seed
        Of crops, held-out images and random weights.
    cache
        Where coarse levels are kept that the slides lack; None: as the environment
        says.
    on_progress, should_stop
        See `napari_muvit.core.progress`.

    Raises
    ------
    MuvitError
        `CheckpointError`, `PyramidError`, `AnnotationError`, `ConfigError` or
        `DeviceError` for what the user can mend; `Cancelled` if ``should_stop`` said
        so.
    """
    usual = GROUP_CROPS if len(groups) else LABEL_CROPS
    counts = (
        usual[0] if crops is None else crops,
        usual[1] if test_crops is None else test_crops,
    )
    check_counts(seed, crops=counts[0], test_crops=counts[1], batch_size=batch_size)
    _check_kind(labels, groups, test_images, test_labels, test_groups)
    where = resolve_device(device)
    probed = open_model(model, MuViTEncoder)
    training = open_images(images)
    task = ProbeTask(
        images=[*training, *(open_images(test_images) if len(test_images) else [])],
        trained=len(training), config=probed.config, counts=counts, seed=seed,
        cache=cache, on_progress=on_progress, should_stop=should_stop,
    )  # fmt: skip
    if len(groups):
        found = crops_by_group(task, groups, test_groups)
    else:
        found = crops_by_label(task, labels, test_labels, classes, zero_is_background)
    notes = list(found.notes)
    if probed.config.boxes == "naive":
        notes.append(f"{probed.name} was trained with naive boxes, and gets them here.")
    say(on_progress, notes)
    passes = 1 + untrained
    total = passes * (len(found.train) + len(found.test))
    meter = Meter(on_progress, should_stop, total)
    look = partial(
        _look, found=found, meter=meter, where=where, batch_size=batch_size, l2=l2
    )
    rows, train, test = look(probed.model)
    if untrained:
        yardstick = _random_encoder(probed.config, seed)
        rows += look(yardstick, untrained=True)[0]
    count = len(found.class_names)
    notes += _unknown(found.class_names, train.counts(count), test.counts(count))
    return LinearProbeResult(
        model=probed.name,
        kind=probed.kind,
        class_names=found.class_names,
        rule=found.rule,
        rows=rows,
        train_images=found.train.names,
        test_images=found.test.names,
        train_crops=train.counts(count),
        test_crops=test.counts(count),
        skipped=train.skipped + test.skipped,
        seed=seed,
        notes=tuple(notes),
    )


def _check_kind(
    labels: Sequence[LabelSource],
    groups: Sequence[str],
    test_images: Sequence[ImageSource],
    test_labels: Sequence[LabelSource],
    test_groups: Sequence[str],
) -> None:
    """Refuse labels and groups together, and a test of the other kind."""
    if bool(len(labels)) == bool(len(groups)):
        given = "Labels and groups" if len(labels) else "Neither labels nor groups"
        raise ConfigError(f"{given} were given; a linear probe needs one of the two.")
    kind, other = ("groups", test_labels) if len(groups) else ("labels", test_groups)
    same = test_groups if len(groups) else test_labels
    if len(other) or len(same) != len(test_images):
        raise ConfigError(
            f"{len(test_images)} test images, {len(test_labels)} test labels and "
            f"{len(test_groups)} test groups were given; since the training images "
            f"have {kind}, each test image needs one of the test {kind}."
        )


def _unknown(
    names: Sequence[str], train: Sequence[int], test: Sequence[int]
) -> list[str]:
    """Say which classes cannot be scored."""
    lone = [
        f"{name} ({'no training crop' if test[k] else 'no test crop'})"
        for k, name in enumerate(names)
        if bool(train[k]) != bool(test[k])
    ]
    return [f"Without a score, and left out of the mean: {', '.join(lone)}"] * (
        len(lone) > 0
    )


def _look(
    encoder: MuViTEncoder,
    *,
    found: ClassedCrops,
    meter: Meter,
    where: torch.device,
    batch_size: int,
    l2: float,
    untrained: bool = False,
) -> tuple[tuple[LinearProbeRow, ...], CropFeatures, CropFeatures]:
    """Read all crops, see them by an encoder, fit and score."""
    sets = level_sets(encoder.config.scale_factors)
    encoder = encoder.to(where)
    train, test = (
        crop_features(
            encoder, meter.batches(crops, batch_size, where), sets, meter.should_stop
        )
        for crops in (found.train, found.test)
    )
    rows = score_levels(
        train, test, len(found.class_names), l2=l2, untrained=untrained,
        should_stop=meter.should_stop,
    )  # fmt: skip
    return rows, train, test


def _random_encoder(config: ModelConfig, seed: int) -> MuViTEncoder:
    """Return an encoder with its first weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MuViTEncoder(config)
