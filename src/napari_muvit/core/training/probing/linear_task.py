"""Which crops a linear probe is trained and tested on, and what their classes are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...config import ModelConfig
from ...data.cache_settings import CacheSettings
from ...data.pyramid import Pyramid
from ...errors import AnnotationError, ConfigError
from ...evaluation.linear_probe import LEAST_FOREGROUND
from ...progress import ProgressFn, StopFn
from ..prepare import (
    LabelSource,
    Slide,
    keep_coarse_levels,
    model_config_for,
    open_annotations,
    prepare,
    prepare_unlabelled,
)
from .data import ClassifiedCrops, labelled_crops, plain_crops

TEST_SEED = 104_729
"""Keeps the places of test crops apart from those of training crops."""
MAJORITY = "the label of most of its annotated pixels (finest level)"
BUT = f"; the background only where less than {100 * LEAST_FOREGROUND:g} % is another"
"""Added to that where there is a background."""
GROUP = "the group of its image"


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ProbeTask:
    """What is to be told apart, and how it is looked at."""

    images: Sequence[Pyramid]
    """Training images, then test images."""
    trained: int
    """How many of them are training images; all: some are held out."""
    config: ModelConfig
    """Of the encoder."""
    counts: tuple[int, int]
    """Crops of a training and of a test image."""
    seed: int
    cache: CacheSettings | None
    on_progress: ProgressFn
    should_stop: StopFn

    def sides(
        self, groups: Sequence[int] | None
    ) -> tuple[list[int], list[int], list[str]]:
        """Return the training and the test images by index, and what to say of it."""
        everything = range(len(self.images))
        if self.trained < len(self.images):
            train, test = everything[: self.trained], everything[self.trained :]
            return [*train], [*test], self._twice()
        chosen = held_out(groups, len(self.images), self.seed)
        names = ", ".join(self.images[index].name for index in chosen)
        rest = [index for index in everything if index not in chosen]
        return rest, chosen, [f"No test images were given; held out for it: {names}"]

    def _twice(self) -> list[str]:
        """Say which images would be tested on what the probe was trained on."""
        paths = [image.path for image in self.images]
        known = set(paths[: self.trained]) - {None}
        found = [i.name for i in self.images[self.trained :] if i.path in known]
        return [
            f"{name} is a training and a test image, so the figures are too good."
            for name in found
        ]

    def with_coarse_levels(self, slides: Sequence[Slide]) -> tuple[Slide, ...]:
        """Slides with the coarse levels that they lack."""
        return keep_coarse_levels(
            slides, self.config, self.cache, self.on_progress, self.should_stop
        )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ClassedCrops:
    """Crops of training and of test images, each with a class."""

    train: ClassifiedCrops
    test: ClassifiedCrops
    class_names: tuple[str, ...]
    rule: str
    notes: tuple[str, ...]


def crops_by_group(
    task: ProbeTask, groups: Sequence[str], test_groups: Sequence[str]
) -> ClassedCrops:
    """Each image has a class (the paper's KPIS probe)."""
    given = [str(name).strip() for name in (*groups, *test_groups)]
    if len(groups) != task.trained:
        raise ConfigError(
            f"{task.trained} images and {len(groups)} groups were given; one group an "
            "image is needed, in the same order."
        )
    if "" in given:
        raise ConfigError("A group without a name was given.")
    names = tuple(dict.fromkeys(given))
    if len(set(given[: len(groups)])) < 2:
        raise ConfigError(
            f"All training images are of the group {given[0]}; two groups are needed "
            "to tell them apart."
        )
    numbers = [names.index(name) + 1 for name in given]
    train, test, said = task.sides(numbers)
    slides, config, notes = prepare_unlabelled(
        task.images, task.config, should_stop=task.should_stop
    )
    kept = task.with_coarse_levels(slides)

    def crops(side: Sequence[int], seed: int, count: int) -> ClassifiedCrops:
        samples = plain_crops([kept[i] for i in side], config, seed)
        return ClassifiedCrops(samples, count, [numbers[i] for i in side])

    return ClassedCrops(
        train=crops(train, task.seed, task.counts[0]),
        test=crops(test, task.seed + TEST_SEED, task.counts[1]),
        class_names=names,
        rule=GROUP,
        notes=(*notes, *said),
    )


def crops_by_label(
    task: ProbeTask,
    labels: Sequence[LabelSource],
    test_labels: Sequence[LabelSource],
    classes: Sequence[str] | None,
    zero_is_background: bool,
) -> ClassedCrops:
    """Each crop has the class of most of its pixels."""
    train, test, said = task.sides(None)
    first, second = task.images[: task.trained], task.images[task.trained :]
    marks = open_annotations(
        labels, first, zero_is_background=zero_is_background, classes=classes,
        purpose="training",
    )  # fmt: skip
    names = classes or next((m.class_names for m in marks if m.class_names), None)
    if second:
        marks += open_annotations(
            test_labels, second, zero_is_background=zero_is_background, classes=names,
            purpose="the test",
        )  # fmt: skip
    # Only for the classes that the labels have.
    told = model_config_for(
        "tiny", task.images, marks, classes=classes,
        zero_is_background=zero_is_background,
    )  # fmt: skip
    config = dataclasses.replace(
        task.config, num_classes=told.num_classes, class_names=told.names,
        class_colors=told.colors, background=told.background, num_queries=None,
        level_heads=False,
    )  # fmt: skip
    data = prepare(task.images, marks, config, task.seed, task.should_stop)
    slides = task.with_coarse_levels(data.slides)

    def crops(side: Sequence[int], seed: int, count: int, name: str) -> ClassifiedCrops:
        samples = labelled_crops([slides[i] for i in side], data.config, seed)
        if not samples:
            raise AnnotationError(f"None of the {name} images is annotated.")
        return ClassifiedCrops(samples, count, background=told.background)

    found = ClassedCrops(
        train=crops(train, task.seed, task.counts[0], "training"),
        test=crops(test, task.seed + TEST_SEED, task.counts[1], "test"),
        class_names=told.names,
        rule=MAJORITY + (BUT if told.background else ""),
        notes=data.notes,
    )
    used = {*found.train.names, *found.test.names}
    bare = [image.name for image in task.images if image.name not in used]
    more = [f"Without any annotation, so left out: {', '.join(bare)}"] if bare else []
    return dataclasses.replace(found, notes=(*data.notes, *said, *more))


def held_out(groups: Sequence[int] | None, count: int, seed: int) -> list[int]:
    """Choose a quarter of the images, at least one, for the test.

    Parameters
    ----------
    groups
        Group of each image: a quarter of each group that has two images. None: a
        quarter of all.
    count
        Number of images.
    seed
        Of the choice.

    Returns
    -------
    list of int
        Ascending indices.

    Raises
    ------
    ConfigError
        If no image can be spared.
    """
    rng = np.random.default_rng(seed)
    kinds = np.asarray(groups if groups is not None else [0] * count)
    chosen: list[int] = []
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        if len(members) > 1:
            spared = rng.permutation(members)[: max(1, len(members) // 4)]
            chosen += [int(v) for v in spared]
    if not chosen:
        each = "each group has one image" if groups is not None else "one was given"
        raise ConfigError(
            "A linear probe is tested on other images than it is trained on, but "
            f"{each}; give more images, or test images."
        )
    return sorted(chosen)
