"""How to train: what a user can choose, with checks, in and out of JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .checks import JsonConfig, require, whole

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
Schedule = Literal["one_cycle", "cosine", "constant"]
Logger = Literal["none", "tensorboard", "wandb"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig(JsonConfig):
    """How to pretrain or fine-tune. Training ends at whichever limit comes first."""

    epochs: int | None = None
    """Limit in epochs; an epoch is ``steps_per_epoch`` steps, then a validation."""
    steps: int | None = None
    """Limit in optimiser steps."""
    minutes: float | None = None
    """Limit in minutes of wall time, validation included."""
    steps_per_epoch: int | None = None
    """Steps between two validations. None: an eighth of the limit, at most 256."""
    early_stop: int | None = None
    """End after this many validations in a row without a better one. None: never."""
    batch_size: int = 16
    """Nested crops a step, on all devices together."""
    accumulate: int | None = None
    """Passes into which the crops of a step are split, to need less memory. None: as
    many as the free memory asks for."""
    learning_rate: float = 2e-3
    """Peak rate of the decoder."""
    encoder_learning_rate: float = 6e-4
    """Peak rate of the MuViT encoder."""
    weight_decay: float = 1e-2
    """AdamW weight decay, of the weights of layers."""
    clip_norm: float = 5.0
    """Largest gradient norm."""
    schedule: Schedule = "one_cycle"
    """``one_cycle``: the rate rises in the warm-up, then falls by half a cosine to 1 %.
    ``cosine``: the same, down to zero (paper, without warm-up). ``constant``: it stays
    after the warm-up."""
    warmup: float = 0.15
    """Share of the run in which the rate rises."""
    ema: float = 0.0
    """Decay of an average of the weights, which is validated and kept in place of
    them; 0: off. Over the first steps it looks back less far."""
    dice_weight: float = 1.0
    """Lambda of CE + lambda Dice (paper, section 3.4)."""
    foreground_weight: float = 2.0
    """Largest weight of a rare foreground class in the cross-entropy (paper: x2 for
    KPIS)."""
    level_weight: float = 1.0
    """Weight of each coarser level's loss against the finest, with level heads."""
    foreground_share: float = 0.5
    """Share of crops drawn so that they hold a foreground pixel; classes equally."""
    flips: bool = True
    """Flip and transpose the whole nested crop at random."""
    upright: bool = False
    """Flip left and right only: for tissue that always lies the same way up, such as
    sections of an organ, where up and down tell regions apart."""
    intensity_jitter: float = 0.1
    """Largest random change of a nested crop's contrast, as a share; 0: off."""
    stain_jitter: float = 0.0
    """Largest random change of the amount of each stain, as a share; RGB only."""
    box_shift: float = 0.0
    """Largest random error of the place that the model is told of each coarser level,
    as a share of its crop's edge (paper: by an amount that it does not say)."""
    box_scale: float = 0.0
    """Largest random error of the size that it is told of each level, as a share."""
    validation_share: float = 0.15
    """Share of the annotated area held out when no validation slides are given."""
    validation_crops: int = 64
    """Crops of a validation; fewer where that would cost over 10 % of ``minutes``."""
    freeze_encoder: bool = False
    """Train the decoder only."""
    labelled_slides: int | None = None
    """Train on so many of the slides, evenly spread over their order; an ablation.
    None: all."""
    seed: int = 0
    """Same seed, same crops and same loss curve on the same machine."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    precision: Precision = "32-true"
    """Lightning's name: ``32-true``, ``bf16-mixed``, ``16-mixed``. ``auto``: bf16-mixed
    on devices that compute in bfloat16, else 32-true."""
    devices: int = 1
    """Devices of this kind on each machine."""
    num_nodes: int = 1
    """Machines."""
    strategy: str = "auto"
    """How several devices train together, as Lightning names it: ``auto``, ``ddp``,
    ``ddp_find_unused_parameters_true``, ..."""
    compile: bool = False
    """Compile the network with ``torch.compile``: the first step takes a minute or
    more, the others less. A stop waits for the end of a step."""
    logger: Logger = "none"
    """Where curves go beside the CSV file: ``tensorboard`` or ``wandb``."""
    checkpoint_minutes: float = 5.0
    """Longest time between two states to resume from; each validation leaves one."""
    num_threads: int | None = None
    """CPU threads of torch; None: as torch chooses."""
    num_workers: int = 0
    """Processes that read crops beside the training; 0: it reads them itself. The
    crops are the same."""

    def __post_init__(self) -> None:
        self.check_types()
        whole(self.num_workers, 0, "num_workers")
        for name in (
            "epochs", "steps", "steps_per_epoch", "num_threads", "early_stop",
            "accumulate", "labelled_slides",
        ):  # fmt: skip
            if getattr(self, name) is not None:
                whole(getattr(self, name), 1, name)
        for name in ("batch_size", "validation_crops", "devices", "num_nodes"):
            whole(getattr(self, name), 1, name)
        whole(self.seed, 0, "seed")
        require(
            self.seed < 2**32,
            f"seed is {self.seed}; less than 2**32 is needed.",
            "seed",
        )
        require(
            bool(self.strategy.strip()), "strategy is empty; auto is a choice.",
            "strategy",
        )  # fmt: skip
        self._check_limits()
        self._check_numbers()
        self._check_split()

    def _check_limits(self) -> None:
        require(
            self.minutes is None or (math.isfinite(self.minutes) and self.minutes > 0),
            f"minutes is {self.minutes}; a positive number is needed.",
            "minutes",
        )
        require(
            any(v is not None for v in (self.epochs, self.steps, self.minutes)),
            "Training has no end: give epochs, steps or minutes.",
            "epochs",
        )

    def _check_numbers(self) -> None:
        for name in (
            "learning_rate", "encoder_learning_rate", "clip_norm", "checkpoint_minutes",
        ):  # fmt: skip
            value = getattr(self, name)
            require(
                math.isfinite(value) and value > 0,
                f"{name} is {value}; a positive number is needed.",
                name,
            )
        for name in ("warmup", "foreground_share", "intensity_jitter"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} is {value}; 0 to 1 is needed.", name)
        for name in (
            "weight_decay", "dice_weight", "foreground_weight", "level_weight",
        ):  # fmt: skip
            value = getattr(self, name)
            require(
                math.isfinite(value) and value >= 0,
                f"{name} is {value}; zero or a positive number is needed.",
                name,
            )
        for name in ("validation_share", "ema"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} is {value}; 0 to below 1 is needed.", name)

    def _check_split(self) -> None:
        parts = (self.accumulate or 1) * self.world_size
        require(
            self.batch_size % parts == 0,
            f"A batch of {self.batch_size} crops cannot be shared evenly by "
            f"{self.world_size} devices in {self.accumulate or 1} passes each; "
            f"{parts} has to divide it.",
            "batch_size",
        )

    @property
    def world_size(self) -> int:
        """Devices on all machines together."""
        return self.devices * self.num_nodes
