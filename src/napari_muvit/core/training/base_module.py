"""What pretraining and fine-tuning share: optimiser, schedule, clipping, validation."""

from __future__ import annotations

import contextlib
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import TrainingConfig
from ..errors import ConfigError
from ..model.mae import MuViTMAE
from ..model.segmenter import MuViTSegmenter
from .distributed import Together
from .schedule import rate_share

Network = MuViTSegmenter | MuViTMAE
Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Validation:
    """What a validation found."""

    metrics: Metrics
    """``val_loss``, and ``mDSC`` with ``Dice NAME`` or ``error LEVEL``."""
    confusion: NDArray[np.int64] | None = None
    """(K + 1, K + 1) pixels, true label by predicted label; None in pretraining."""


@dataclass(slots=True)
class _Sums:
    """Numbers of a validation, added up over its batches."""

    values: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        value = value.detach().cpu()
        self.values[name] = self.values[name] + value if name in self.values else value


class TrainingModule(L.LightningModule):
    """A network with its loss.

    Parameters
    ----------
    network
        Trained in place.
    training
        Rates and schedule.
    """

    def __init__(self, network: Network, training: TrainingConfig) -> None:
        super().__init__()
        self.network = network
        self.training_config = training
        self.together = Together()
        self.first_step = 0
        """Steps that were done in an earlier part of the run."""
        self.last_loss = math.nan
        """Of the last step: the mean over its passes and all processes."""
        self._pass_losses: list[Tensor] = []
        self.last_rate = math.nan
        self.skipped = 0
        """Steps that were not taken, as their gradients were no numbers."""
        self.sums = _Sums()
        self._buffers_before: list[Tensor] = []

    @property
    def steps_done(self) -> int:
        """Optimiser steps of the whole run."""
        trainer = self._trainer
        return self.first_step + (0 if trainer is None else trainer.global_step)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a function of the network where that was asked for."""
        if not self.training_config.compile:
            return function
        return torch.compile(function)

    @abstractmethod
    def losses(self, batch: Any, index: int) -> tuple[Tensor, Any]:
        """Loss of a batch, and what a validation needs beside it."""

    @abstractmethod
    def take_validation(self) -> Validation:
        """Return and forget what the last validation found."""

    def training_step(self, batch: Any, index: int) -> Tensor:
        """One pass's loss."""
        loss, _ = self.losses(batch, index)
        self._pass_losses.append(loss.detach())
        return loss

    def end_step(self) -> None:
        """Settle the step's loss; all processes have to."""
        losses, self._pass_losses = self._pass_losses, []
        if losses:
            mean = torch.stack(losses).double().mean()
            self.last_loss = float(self.together.sum(mean)) / self.together.world

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm; without gradients that are numbers, make no step.

        A loss of zero made out of NaN would still have gradients of NaN. All processes
        have the same gradients here, so they all skip the step or none does.
        """
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.training_config.clip_norm)
        if not math.isfinite(float(norm)):
            self.skipped += 1
            optimizer.zero_grad(set_to_none=True)
            self.undo_half_step()

    def parts(self) -> Sequence[tuple[Sequence[nn.Module], float]]:
        """Return modules with their peak rates."""
        training = self.training_config
        encoder = [] if training.freeze_encoder else [self.network.encoder]
        rest = [m for n, m in self.network.named_children() if n != "encoder"]
        return [
            (encoder, training.encoder_learning_rate),
            (rest, training.learning_rate),
        ]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW with a rate for the encoder and one for the rest."""
        training = self.training_config
        groups = [
            group
            for modules, rate in self.parts()
            for group in _groups(modules, rate, training.weight_decay)
        ]
        # One pass over memory a step. With a loss scale it would undo the scale itself,
        # after the gradients were clipped.
        scaled = training.precision == "16-mixed"
        fused = self.device.type in ("cpu", "cuda") and not scaled
        return torch.optim.AdamW(groups, fused=fused)

    def set_rate(self, fraction: float) -> None:
        """Set the learning rates for a finished share of the run."""
        optimiser: Any = self.optimizers()
        training = self.training_config
        share = rate_share(fraction, training.schedule, training.warmup)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share
        self.last_rate = max(g["lr"] for g in optimiser.param_groups)

    def remember_buffers(self) -> None:
        """Keep the running statistics, to undo a step that is stopped half-way."""
        self._buffers_before = [b.detach().clone() for b in self.network.buffers()]

    def undo_half_step(self) -> None:
        """Put the running statistics back as `remember_buffers` found them."""
        with torch.no_grad():
            for buffer, before in zip(
                self.network.buffers(), self._buffers_before, strict=False
            ):
                buffer.copy_(before)


def _groups(
    modules: Sequence[nn.Module], rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups: the weights of layers decay, nothing else does."""
    parameters = [
        (name, p)
        for m in modules
        for name, p in m.named_parameters()
        if p.requires_grad
    ]
    groups = [
        ([p for name, p in parameters if decays(name, p)], weight_decay),
        ([p for name, p in parameters if not decays(name, p)], 0.0),
    ]
    return [
        {"params": params, "lr": rate, "peak": rate, "weight_decay": decay}
        for params, decay in groups
        if params
    ]


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix of a layer.

    Biases, norms and frequencies are not, nor are level embeddings, mask tokens and
    queries: these are vectors, one beside the other, that layers read.
    """
    return parameter.ndim > 1 and name.endswith("weight")


def check_compiler(config: TrainingConfig) -> None:
    """Refuse to compile where torch cannot.

    Raises
    ------
    ConfigError
        With what is missing.
    """
    if not config.compile:
        return
    # What goes wrong depends on the platform, down to a missing C++ compiler.
    with contextlib.suppress(Exception):
        torch.compile(lambda x: x * 2 + 1)(torch.ones(2))
        return
    raise ConfigError(
        "torch.compile does not work on this machine: it needs a C++ compiler, and "
        "Triton on a GPU. Leave --compile out.",
        "compile",
    )
