"""The Lightning module of fine-tuning: loss, validation Dice, optimiser, schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import ModelConfig, TrainingConfig
from ..data.datasets import CropBatch
from ..model.losses import segmentation_loss
from ..model.segmenter import MuViTSegmenter


def one_cycle(fraction: float, warmup: float) -> float:
    """Share of the peak rate: a linear rise, then half a cosine down to 1 %."""
    if warmup > 0 and fraction < warmup:
        return 0.04 + 0.96 * fraction / warmup
    along = (fraction - warmup) / max(1e-9, 1 - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))


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


class FineTuneModule(L.LightningModule):
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
        super().__init__()
        self.segmenter = segmenter
        self.training_config = training
        self.weights: Tensor
        self.register_buffer(
            "weights",
            class_weights(segmenter.config, counts, training.foreground_weight),
            persistent=False,
        )
        self.last_loss = math.nan
        self._confusion: Tensor | None = None
        self._val_losses: list[float] = []

    def _losses(self, batch: CropBatch) -> tuple[Tensor, Tensor]:
        """Total loss, and the finest level's logits."""
        logits = self.segmenter.level_logits(batch.pixels, batch.bboxes)
        targets: Sequence[Tensor] = [batch.labels, *batch.coarse_shares.unbind(dim=1)]
        losses = [
            segmentation_loss(
                scores,
                target,
                class_weights=self.weights,
                dice_weight=self.training_config.dice_weight,
                dice_labels=self.segmenter.config.foreground,
            )
            for scores, target in zip(logits, targets, strict=True)
        ]
        share = self.training_config.level_weight
        coarse = sum(losses[1:], start=torch.zeros_like(losses[0]))
        total = (losses[0] + share * coarse) / (1 + share * (len(losses) - 1))
        return total, logits[0]

    def training_step(self, batch: CropBatch, _index: int) -> Tensor | None:
        """One step's loss; None, which leaves the weights alone, if it is no number.

        A loss of zero made out of NaN would still have gradients of NaN.
        """
        loss, _ = self._losses(batch)
        self.last_loss = float(loss.detach())
        return loss if math.isfinite(self.last_loss) else None

    def validation_step(self, batch: CropBatch, _index: int) -> None:
        """Count pixels of each true and predicted label."""
        loss, logits = self._losses(batch)
        self._val_losses.append(float(loss))
        classes = logits.shape[1] + 1
        # max is several times faster than argmax over a middle axis on a CPU.
        predicted = logits.max(dim=1).indices + 1
        pairs = batch.labels.long() * classes + predicted
        counts = torch.bincount(pairs.flatten(), minlength=classes**2)
        counts = counts.view(classes, classes).cpu()
        self._confusion = (
            counts if self._confusion is None else self._confusion + counts
        )

    def take_validation(self) -> tuple[float, NDArray[np.int64]]:
        """Return and forget the mean loss and the confusion matrix.

        (K + 1, K + 1), true label by predicted label; row 0 is not annotated.
        """
        classes = self.segmenter.config.num_classes + 1
        confusion = self._confusion
        if confusion is None:
            confusion = torch.zeros(classes, classes, dtype=torch.int64)
        loss = float(np.mean(self._val_losses)) if self._val_losses else math.nan
        self._confusion, self._val_losses = None, []
        return loss, confusion.numpy()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW with a rate for the encoder and one for the decoder."""
        training = self.training_config
        encoder = [] if training.freeze_encoder else [self.segmenter.encoder]
        groups = [
            *_groups(encoder, training.encoder_learning_rate, training.weight_decay),
            *_groups(
                [self.segmenter.decoder], training.learning_rate, training.weight_decay
            ),
        ]
        # One pass over memory a step. Lightning does not clip the gradients of a fused
        # optimiser in mixed precision, with a loss scale or without.
        fused = self.device.type in ("cpu", "cuda") and (
            training.precision == "32-true"
        )
        return torch.optim.AdamW(groups, fused=fused)

    def set_rate(self, fraction: float) -> None:
        """Set the learning rates for a finished share of the run."""
        optimiser: Any = self.optimizers()
        share = one_cycle(fraction, self.training_config.warmup)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share


def _groups(
    modules: Sequence[nn.Module], rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups: matrices decay, biases, norms and frequencies do not."""
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    groups = [
        ([p for p in parameters if p.ndim > 1], weight_decay),
        ([p for p in parameters if p.ndim <= 1], 0.0),
    ]
    return [
        {"params": params, "lr": rate, "peak": rate, "weight_decay": decay}
        for params, decay in groups
        if params
    ]
