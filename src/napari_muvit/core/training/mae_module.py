"""The Lightning module of pretraining: masked autoencoding of nested crops.

Reference: MuViT (arXiv 2602.24222), section 3.3 and supplement A.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..config import TrainingConfig
from ..data.datasets import PixelBatch
from ..model.mae import MAEOutput, MuViTMAE
from ..model.masking import TokenMask, draw_mask
from .base_module import Metrics, TrainingModule, Validation

TRAINING, VALIDATION = 0, 1
"""Two streams of random numbers, so that a mask depends on nothing but its place."""


class PretrainModule(TrainingModule):
    """A masked autoencoder with its loss.

    Masks follow from seed and step alone, not from how the crops of a step are shared
    among passes and devices, and a resumed run draws those that it would have drawn.

    Parameters
    ----------
    mae
        Trained in place.
    training
        Rates, schedule and batch.
    """

    def __init__(self, mae: MuViTMAE, training: TrainingConfig) -> None:
        super().__init__(mae, training)
        self.mae = mae
        self.passes = 1
        """Passes of a step."""
        self.validation_crops = training.validation_crops
        self._forward = self.compiled(mae.forward)

    def parts(self) -> Sequence[tuple[Sequence[nn.Module], float]]:
        """One rate for all of it, as in the paper."""
        return [([self.mae], self.training_config.learning_rate)]

    def losses(self, batch: PixelBatch, index: int) -> tuple[Tensor, MAEOutput]:
        """Loss of the hidden patches, and the output."""
        draw = self._step_mask if self.training else self._validation_mask
        mask = draw(batch, index)
        output = self._forward(batch.pixels, batch.bboxes, mask)
        return output.loss, output

    def _step_mask(self, batch: PixelBatch, index: int) -> TokenMask:
        """Return this pass's rows of the masks of the whole step."""
        config = self.training_config
        whole = self._draw(batch, config.batch_size, (TRAINING, self.steps_done))
        part = index % self.passes * self.together.world + self.together.rank
        size = len(batch.pixels)
        rows = slice(part * size, (part + 1) * size)
        return TokenMask(visible=whole.visible[rows], hidden=whole.hidden[rows])

    def _validation_mask(self, batch: PixelBatch, index: int) -> TokenMask:
        """Return the masks of these samples, the same at every validation."""
        world = self.together.world
        size = self.training_config.batch_size // (self.passes * world)
        rows = torch.arange(len(batch.pixels), device=batch.pixels.device)
        rows = (index * size + rows) * world + self.together.rank
        # Shares are rounded up, so that all processes have equally many: twice is room
        # enough, and the draw the same for any number of processes.
        count = 2 * self.validation_crops
        whole = self._draw(batch, count, (VALIDATION, 0))
        rows = rows % count
        return TokenMask(visible=whole.visible[rows], hidden=whole.hidden[rows])

    def _draw(self, batch: PixelBatch, count: int, key: tuple[int, int]) -> TokenMask:
        config = self.mae.config
        device = batch.pixels.device
        state = np.random.SeedSequence([self.training_config.seed, *key])
        generator = torch.Generator(device=device)
        generator.manual_seed(int(state.generate_state(1, np.uint64)[0] >> 1))
        patches = 1
        for size, edge in zip(batch.pixels.shape[3:], config.patch, strict=True):
            patches *= size // edge
        return draw_mask(
            count,
            batch.pixels.shape[1],
            patches,
            ratio=config.mask_ratio,
            shares=config.mask_shares,
            generator=generator,
            device=device,
        )

    def validation_step(self, batch: PixelBatch, index: int) -> None:
        """Add up the errors of each level."""
        loss, output = self.losses(batch, index)
        crops = len(batch.pixels)
        levels = output.level_losses.double()
        # However the crops are shared among batches, each hidden patch counts the same.
        hidden = output.mask.hidden.unflatten(1, (len(levels), -1)).sum((0, 2))
        known = levels.isfinite() * hidden.double()
        self.sums.add("loss", loss.double() * crops)
        self.sums.add("crops", torch.tensor(float(crops), dtype=torch.float64))
        self.sums.add("levels", levels.nan_to_num(0.0, 0.0, 0.0) * known)
        self.sums.add("known", known)

    def take_validation(self) -> Validation:
        """Return and forget the mean error, of all levels and of each."""
        found = {k: self.together.sum(v) for k, v in self.sums.values.items()}
        self.sums.values.clear()
        metrics: Metrics = {"val_loss": float(found["loss"] / found["crops"])}
        for number, factor in enumerate(self.mae.config.scale_factors):
            if found["known"][number] > 0:
                error = found["levels"][number] / found["known"][number]
                metrics[f"error {factor:g}"] = float(error)
        return Validation(metrics=metrics)
