"""Linear probe of an encoder, level by level.

Reference: MuViT (arXiv 2602.24222), section 4.6 and Table 7.

Shapes: n crops, B batch, L levels, N spatial axes, d features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import AnnotationError
from ..model.kinds import plain_kind
from ..progress import StopFn, check_stop, never_stop
from .probe import fit_linear_probe, pooled_features, roc_auc_ovr
from .tables import (
    factors_text,
    finite,
    folded_table,
    markdown_list,
    markdown_table,
    number,
    short,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..model.encoder import MuViTEncoder

LEAST_FOREGROUND = 0.01
"""Share of a crop's annotated pixels from which on its class is not the background."""
Levels = tuple[float, ...]
"""Scale factors of the levels that an encoder sees."""


@dataclass(frozen=True, eq=False, slots=True)
class CropFeatures:
    """Features of crops whose class is known."""

    by_levels: Mapping[Levels, NDArray[np.float32]]
    """(n, d) for each set of levels; d is the token width times the levels."""
    labels: NDArray[np.int64]
    """(n,) from 1."""
    skipped: int
    """Crops that have no class."""

    def counts(self, num_classes: int) -> tuple[int, ...]:
        """Crops of each class."""
        found = np.bincount(self.labels, minlength=num_classes + 1)[1:]
        return tuple(int(v) for v in found)


@dataclass(frozen=True, slots=True)
class LinearProbeRow:
    """What some of the levels tell."""

    levels: Levels
    """Scale factors of the levels that the encoder saw, and no others."""
    auc: float
    """Mean of ``class_auc`` over the classes that can be scored."""
    class_auc: tuple[float, ...]
    """Area under the ROC curve of each class against the rest; NaN for one that the
    training or the test crops lack."""
    accuracy: float
    """Share of right classes, averaged over the classes (balanced accuracy)."""
    untrained: bool = False
    """Of an encoder with random weights, as a yardstick."""

    @property
    def title(self) -> str:
        """Levels, and whether it is the yardstick."""
        return factors_text(self.levels) + (" untrained" if self.untrained else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearProbeResult:
    """How well a linear classifier on frozen features tells classes of crops apart."""

    model: str
    """Name of the model folder."""
    kind: str
    """What it holds: ``MuViTMAE``, ``MuViTSegmenter`` or ``MuViTEncoder``."""
    class_names: tuple[str, ...]
    """K names."""
    rule: str
    """What the class of a crop is."""
    rows: tuple[LinearProbeRow, ...]
    """One a set of levels."""
    train_images: tuple[str, ...]
    """Names."""
    test_images: tuple[str, ...]
    """Names."""
    train_crops: tuple[int, ...]
    """Crops of each class."""
    test_crops: tuple[int, ...]
    """Crops of each class."""
    skipped: int
    """Crops without a class."""
    seed: int
    """Of the crops."""
    notes: tuple[str, ...] = ()
    """What the reader should know."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; what is not defined is None."""
        names = self.class_names
        return {
            "probe": "linear",
            "model": self.model,
            "kind": self.kind,
            "rule": self.rule,
            "levels": [
                {
                    "scale_factors": list(row.levels),
                    "untrained": row.untrained,
                    "roc_auc": finite(row.auc),
                    "balanced_accuracy": finite(row.accuracy),
                    "class_roc_auc": dict(
                        zip(names, map(finite, row.class_auc), strict=True)
                    ),
                }
                for row in self.rows
            ],
            "train": _crops(names, self.train_images, self.train_crops),
            "test": _crops(names, self.test_images, self.test_crops),
            "crops_without_a_class": self.skipped,
            "seed": self.seed,
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """Return a text table: one line a set of levels."""
        return folded_table([[short(cell) for cell in row] for row in self._rows()])

    def markdown(self) -> str:
        """Return all of it as a Markdown page."""
        facts = [
            f"model: {self.model} ({plain_kind(self.kind)}), frozen",
            f"class of a crop: {self.rule}",
            f"trained on {sum(self.train_crops)} crops of {len(self.train_images)} "
            f"images, tested on {sum(self.test_crops)} of {len(self.test_images)} "
            f"others; {self.skipped} crops without a class are left out",
            "features of a crop: the mean of the tokens of each level, levels side by "
            "side; [1] alone means that the encoder saw no other level",
            f"seed: {self.seed}",
            *self.notes,
        ]
        crops = [("class", "training crops", "test crops")]
        for name, train, test in zip(
            self.class_names, self.train_crops, self.test_crops, strict=True
        ):
            crops.append((name, str(train), str(test)))
        parts = [
            "# Linear probe", markdown_list(facts),
            "## ROC-AUC, each class against the rest", markdown_table(self._rows()),
            "## Crops", markdown_table(crops),
            "## Images",
            markdown_list([
                f"training: {', '.join(self.train_images)}",
                f"test: {', '.join(self.test_images)}",
            ]),
        ]  # fmt: skip
        return "\n\n".join(parts) + "\n"

    def figure(self) -> Figure:
        """Return a plot: ROC-AUC by levels, and of each class."""
        from .probe_plots import linear_figure

        return linear_figure(self)

    def _rows(self) -> list[tuple[str, ...]]:
        head = ("levels", "ROC-AUC", "balanced accuracy", *self.class_names)
        return [
            head,
            *(
                (r.title, number(r.auc), number(r.accuracy), *map(number, r.class_auc))
                for r in self.rows
            ),
        ]


def _crops(
    names: Sequence[str], images: Sequence[str], counts: Sequence[int]
) -> dict[str, Any]:
    crops = dict(zip(names, counts, strict=True))
    return {"images": list(images), "crops": crops}


def level_sets(scale_factors: Sequence[float]) -> tuple[Levels, ...]:
    """Each level alone, then from the finest on, one more at a time, up to all.

    ``(1, 8, 32)`` gives [1], [8], [32], [1, 8] and [1, 8, 32].
    """
    factors = tuple(scale_factors)
    growing = (factors[:count] for count in range(2, len(factors) + 1))
    return (*((factor,) for factor in factors), *growing)


def majority_label(labels: Tensor, background: int | None = None) -> int:
    """The class of a crop: the label of most annotated pixels, 0 without any.

    Not that of its centre: the features are means over the crop, so what fills it is
    what they can tell. The background counts only where there is next to nothing else,
    because objects such as cells never fill a crop. Of equals it is the smallest.

    Parameters
    ----------
    labels
        (*spatial) of one crop, 0 = not annotated.
    background
        Label of the background; None: there is none.
    """
    counts = torch.bincount(labels.flatten().long())
    counts[0] = 0
    total = int(counts.sum())
    if background is not None and background < len(counts):
        rest = counts.clone()
        rest[background] = 0
        if int(rest.sum()) >= max(1, LEAST_FOREGROUND * total):
            counts = rest
    return int(counts.argmax()) if total else 0


def crop_features(
    encoder: MuViTEncoder,
    batches: Iterable[Sequence[Tensor]],
    sets: Sequence[Levels],
    should_stop: StopFn = never_stop,
) -> CropFeatures:
    """Run a frozen encoder on crops, once for each set of its levels.

    Parameters
    ----------
    encoder
        Left as it is; see `MuViTEncoder.extract_levels`.
    batches
        Pixels (B, L, C, *spatial), world boxes (B, L, 2, N) on the encoder's device,
        and the classes (B,) from 1; crops of class 0 are skipped.
    sets
        Scale factors of the levels to be seen.
    should_stop
        Asked before each run.

    Raises
    ------
    ConfigError
        If the encoder has no such level.
    AnnotationError
        If no crop has a class.
    Cancelled
        If ``should_stop`` said so.
    """
    factors = encoder.config.scale_factors
    smaller = {levels: encoder.extract_levels(levels) for levels in sets}
    found: dict[Levels, list[NDArray[np.float32]]] = {levels: [] for levels in sets}
    labels, skipped = [], 0
    for pixels, bboxes, classes in batches:
        known = classes > 0
        skipped += int((~known).sum())
        if not bool(known.any()):
            continue
        labels.append(classes[known].cpu().numpy().astype(np.int64))
        for levels, part in smaller.items():
            check_stop(should_stop)
            kept = [factors.index(f) for f in levels]
            features = pooled_features(
                part, pixels[known][:, kept], bboxes[known][:, kept]
            )
            found[levels].append(features.cpu().numpy())
    if not labels:
        raise AnnotationError(
            f"None of {skipped} crops has a class; annotate more, or draw more crops."
        )
    by_levels = {levels: np.concatenate(parts) for levels, parts in found.items()}
    return CropFeatures(by_levels, np.concatenate(labels), skipped)


def score_levels(
    train: CropFeatures,
    test: CropFeatures,
    num_classes: int,
    *,
    l2: float = 1.0,
    untrained: bool = False,
    should_stop: StopFn = never_stop,
) -> tuple[LinearProbeRow, ...]:
    """Fit and score a probe for each set of levels.

    Parameters
    ----------
    train, test
        With the same sets of levels. Test crops of a class that no training crop has
        are left out.
    num_classes
        K.
    l2
        See `fit_linear_probe`.
    untrained
        Marks the rows.
    should_stop
        Asked before each fit and at each of its steps.

    Raises
    ------
    AnnotationError
        If the training crops have one class only, or the test crops none of theirs.
    ConfigError
        If ``l2`` cannot be.
    Cancelled
        If ``should_stop`` said so.
    """
    known = np.unique(train.labels)
    if len(known) < 2:
        raise AnnotationError(
            f"All {len(train.labels)} training crops are of one class; at least two "
            "are needed. Give more images or draw more crops."
        )
    kept = np.isin(test.labels, known)
    if not kept.any():
        raise AnnotationError(
            "The test crops have none of the classes of the training crops."
        )
    rows = []
    for levels, features in train.by_levels.items():
        check_stop(should_stop)
        probe = fit_linear_probe(features, train.labels, l2=l2, should_stop=should_stop)
        chances = probe.predict_proba(test.by_levels[levels][kept])
        truth = test.labels[kept]
        mean, areas = roc_auc_ovr(chances, truth, probe.classes)
        by_class = np.full(num_classes, np.nan)
        by_class[probe.classes - 1] = areas
        right = probe.classes[chances.argmax(axis=1)] == truth
        accuracy = float(np.mean([right[truth == k].mean() for k in np.unique(truth)]))
        class_auc = tuple(float(v) for v in by_class)
        rows.append(LinearProbeRow(levels, mean, class_auc, accuracy, untrained))
    return tuple(rows)
