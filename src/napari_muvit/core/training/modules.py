"""The Lightning module of fine-tuning: loss, class weights, validation Dice.

Reference: MuViT (arXiv 2602.24222), section 3.4 and supplement A.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..config import ModelConfig, TrainingConfig
from ..data.datasets import CropBatch
from ..evaluation import dice_from_confusion
from ..model.losses import segmentation_loss
from ..model.segmenter import MuViTSegmenter
from .base_module import Metrics, TrainingModule, Validation


def class_weights(
    config: ModelConfig, counts: Sequence[int] | None, foreground_weight: float
) -> Tensor:
    """Weights of the classes in the cross-entropy, (K,), float32.

    The rarer a foreground class is against the most frequent class, the more it
    weighs: by the root of the ratio, at most ``foreground_weight``. The background
    weighs 1.

    Parameters
    ----------
    config
        Gives the number of classes and the background.
    counts
        (K + 1,) annotated pixels of each label; None: all foreground weighs the most.
    foreground_weight
        Largest weight.
    """
    weights = torch.full((config.num_classes,), foreground_weight)
    if counts is not None:
        found = torch.as_tensor(np.asarray(counts)[1:], dtype=torch.float64)
        ratio = (found.max() / found.clamp(min=1)).sqrt().float()
        weights = torch.minimum(weights, ratio)
    if config.background is not None:
        weights[config.background - 1] = 1.0
    return weights


class FineTuneModule(TrainingModule):
    """A segmenter with its loss.

    Parameters
    ----------
    segmenter
        Trained in place.
    training
        Rates, weights and schedule.
    counts
        (K + 1,) annotated pixels of each label, for the weights of rare classes.
    """

    def __init__(
        self,
        segmenter: MuViTSegmenter,
        training: TrainingConfig,
        counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__(segmenter, training)
        self.segmenter_config = segmenter.config
        self.weights: Tensor
        self.register_buffer(
            "weights",
            class_weights(segmenter.config, counts, training.foreground_weight),
            persistent=False,
        )
        self._level_logits = self.compiled(segmenter.level_logits)

    def losses(self, batch: CropBatch, _index: int) -> tuple[Tensor, Tensor]:
        """Total loss, and the finest level's logits."""
        logits = self._level_logits(batch.pixels, batch.bboxes)
        targets: Sequence[Tensor] = [batch.labels, *batch.coarse_shares.unbind(dim=1)]
        losses = [
            segmentation_loss(
                scores,
                target,
                class_weights=self.weights,
                dice_weight=self.training_config.dice_weight,
                dice_labels=self.segmenter_config.foreground,
            )
            for scores, target in zip(logits, targets, strict=True)
        ]
        share = self.training_config.level_weight
        coarse = sum(losses[1:], start=torch.zeros_like(losses[0]))
        total = (losses[0] + share * coarse) / (1 + share * (len(losses) - 1))
        return total, logits[0]

    def validation_step(self, batch: CropBatch, index: int) -> None:
        """Count pixels of each true and predicted label."""
        loss, logits = self.losses(batch, index)
        classes = logits.shape[1] + 1
        # max is several times faster than argmax over a middle axis on a CPU.
        predicted = logits.max(dim=1).indices + 1
        pairs = batch.labels.long() * classes + predicted
        counts = torch.bincount(pairs.flatten(), minlength=classes**2)
        # The last batch may be smaller.
        self.sums.add("loss", loss.double() * len(logits))
        self.sums.add("crops", torch.tensor(float(len(logits)), dtype=torch.float64))
        self.sums.add("confusion", counts.view(classes, classes))

    def take_validation(self) -> Validation:
        """Return and forget the mean loss, Dice and the confusion matrix."""
        found = {k: self.together.sum(v) for k, v in self.sums.values.items()}
        self.sums.values.clear()
        config = self.segmenter_config
        confusion = found["confusion"].numpy().astype(np.int64)
        dice = dice_from_confusion(confusion)
        metrics: Metrics = {"val_loss": float(found["loss"] / found["crops"])}
        foreground = [float(dice[k - 1]) for k in config.foreground]
        known = [d for d in foreground if math.isfinite(d)]
        if known:
            metrics["mDSC"] = sum(known) / len(known)
        for k, name in enumerate(config.names, start=1):
            if math.isfinite(float(dice[k - 1])):
                metrics[f"Dice {name}"] = float(dice[k - 1])
        return Validation(metrics=metrics, confusion=confusion)
