"""Memory of a training: estimated before its first step, and the batch made to fit.

Weights, gradients and the optimiser's moments are counted; what a step makes beside
them is found on torch's ``meta`` device (see `memory_meter`) and multiplied by what
allocators lose, which was measured (benchmarks/README.md).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..config import ModelConfig, TrainingConfig
from ..errors import ConfigError, MuvitError
from ..model.mae import MuViTMAE
from ..model.segmenter import MuViTSegmenter
from ..training_config import Precision
from .distributed import own_device
from .free_memory import free_memory
from .memory_meter import Model, meta_model, step_bytes, weight_bytes

__all__ = [
    "FittedBatch",
    "MemoryEstimate",
    "MemoryPlan",
    "advised",
    "estimate_memory",
    "fit_batch",
    "free_memory",
    "memory_advice",
    "plan_memory",
]  # fmt: skip

SAFE_SHARE = 0.8
"""Of what is free, a training is made to fit into; the rest is for the slides' pixels
and for others."""
HOPELESS = 2.0
"""So many times what is free, by the estimate, do not fit, whatever it is off by."""
LOST = {"cpu": 1.65, "cuda": 1.2, "mps": 1.65}
"""What a step takes over what lives at its peak: gaps between tensors, and what kernels
take for themselves. Measured with the GNU C library; on GPUs it is a guess."""
AT_LEAST = {"cpu": 30_000_000, "cuda": 300_000_000, "mps": 100_000_000}
"""Bytes of kernels and libraries whatever the network is."""
PROBE = 4
"""Crops of the pass of which the rest follows; a single one is laid out differently."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """What a training needs on one device, in bytes."""

    weights: int
    """Of the network, with its running statistics."""
    gradients: int
    """Of what is trained."""
    optimiser: int
    """Two moments of AdamW."""
    average: int
    """A copy of the weights that is averaged; 0 without."""
    fixed: int
    """What a step makes whatever the batch is, libraries included."""
    activations: int
    """What a step makes for each nested crop."""
    remedies: tuple[str, ...] = ()
    """What would need less, for messages."""

    def total(self, batch: int) -> int:
        """Bytes at the peak of a step with so many crops in a pass."""
        kept = self.weights + self.gradients + self.optimiser + self.average
        return kept + self.fixed + batch * self.activations


def estimate_memory(
    network: Model | type[Model],
    config: ModelConfig | None = None,
    *,
    precision: Precision = "32-true",
    freeze_encoder: bool = False,
    ema: bool = False,
    device: str = "cpu",
    distributed: bool = False,
) -> MemoryEstimate:
    """Estimate what a training needs. Nothing is computed, which takes a second or two.

    Parameters
    ----------
    network
        `MuViTSegmenter` or `MuViTMAE`, or one of them.
    config
        Of the network. None: its own.
    precision
        As Lightning calls it.
    freeze_encoder
        Whether the decoder of a segmenter is trained only.
    ema
        Whether an average of the weights is kept.
    device
        Kind of device: ``cpu``, ``cuda`` or ``mps``.
    distributed
        Whether several devices train together: each then keeps its gradients twice.

    Raises
    ------
    ConfigError
        If the network cannot be built.
    """
    kind = network if isinstance(network, type) else type(network)
    if config is None:
        if isinstance(network, type):
            raise ConfigError("A kind of network was given without a configuration.")
        config = network.config
    segments = issubclass(kind, MuViTSegmenter)
    return _estimate(
        segments, config, precision, freeze_encoder and segments, ema, device,
        distributed,
    )  # fmt: skip


@functools.lru_cache(maxsize=32)
def _estimate(
    segments: bool,
    config: ModelConfig,
    precision: Precision,
    freeze_encoder: bool,
    ema: bool,
    device: str,
    distributed: bool,
) -> MemoryEstimate:
    kind = MuViTSegmenter if segments else MuViTMAE
    model = meta_model(kind, config, freeze_encoder)
    trained = weight_bytes(model, trainable=True)
    each = step_bytes(model, PROBE, precision, device == "cuda") / PROBE
    lost = LOST.get(device, LOST["cpu"])
    weights = weight_bytes(model)
    # Autocast keeps the weights in 16 bits from the forward to the backward pass.
    short = 0 if precision == "32-true" else weights // 2
    return MemoryEstimate(
        weights=weights,
        gradients=(2 if distributed else 1) * trained,
        optimiser=2 * trained,
        average=weights if ema else 0,
        fixed=short + AT_LEAST.get(device, AT_LEAST["cpu"]),
        activations=round(lost * each),
        remedies=_remedies(segments, config, precision, freeze_encoder),
    )


def _remedies(
    segments: bool, config: ModelConfig, precision: Precision, freeze_encoder: bool
) -> tuple[str, ...]:
    """What would need less memory, of what is not done yet."""
    found = ["a smaller --preset"]
    if len(config.scale_factors) > 1:
        found.insert(0, "fewer --levels")
    if config.crop_size > 2 * max(config.patch):
        found.insert(0, "a smaller --crop")
    if segments and not freeze_encoder:
        found.append("a frozen encoder (--freeze)")
    if precision == "32-true":
        found.append("mixed precision (--precision bf16-mixed)")
    return tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedBatch:
    """A batch split into passes that fit into memory."""

    micro_batch: int
    """Crops of a pass."""
    accumulate: int
    """Passes of a step; together they have the crops that were asked for."""
    note: str = ""
    """What the user should know."""


def fit_batch(
    estimate: MemoryEstimate,
    batch_size: int,
    free: int,
    *,
    accumulate: int | None = None,
    smallest: int = 1,
) -> FittedBatch:
    """Split a batch into as few passes as the free memory allows.

    Parameters
    ----------
    estimate
        What a crop needs.
    batch_size
        Crops of a step on this device.
    free
        Bytes that are free on it; see `free_memory`. The weights are not there yet.
    accumulate
        Passes that the user asked for, which are taken as they are unless they are
        far too few. None: as many as are needed.
    smallest
        Crops that a pass needs at least; see `smallest_pass`.

    Raises
    ------
    ConfigError
        If not even the smallest pass fits, or the passes asked for are far too large,
        with what would help.
    """
    room = SAFE_SHARE * free
    if accumulate is not None:
        micro = max(1, batch_size // accumulate)
        return FittedBatch(
            micro_batch=micro, accumulate=accumulate,
            note=_tight(estimate, micro, room, free),
        )  # fmt: skip
    sizes = [n for n in range(batch_size, 0, -1) if batch_size % n == 0]
    sizes = [n for n in sizes if n >= min(smallest, batch_size)]
    for micro in sizes:
        if estimate.total(micro) <= room:
            return _fitted(estimate, batch_size, micro, free)
    raise _too_large(estimate, sizes[-1], free, smallest=True)


def _too_large(
    estimate: MemoryEstimate, crops: int, free: int, *, smallest: bool = False
) -> ConfigError:
    """Say that so many crops a pass do not fit, and what would."""
    what = "one nested crop" if crops == 1 else f"{crops} nested crops"
    remedies, field = estimate.remedies, "crop_size"
    if crops > 1 and not smallest:
        # The user chose the passes: that comes first.
        remedies, field = ("more passes (--accumulate)", *remedies), "accumulate"
    return ConfigError(
        f"Training on {what} at a time needs about {_size(estimate.total(crops))} of "
        f"memory, more than four fifths of the {_size(free)} that are free. Take "
        f"{_listed(remedies)}.",
        field,
    )


def _fitted(
    estimate: MemoryEstimate, batch_size: int, micro: int, free: int
) -> FittedBatch:
    passes = batch_size // micro
    note = ""
    if passes > 1:
        note = (
            f"{batch_size} crops at a time need about "
            f"{_size(estimate.total(batch_size))} of memory, more than four fifths of "
            f"the {_size(free)} that are free, so each step takes {passes} passes of "
            f"{_crops(micro)}."
        )
    return FittedBatch(micro_batch=micro, accumulate=passes, note=note)


def _tight(estimate: MemoryEstimate, micro: int, room: float, free: int) -> str:
    """What to say of a number of passes that the user asked for."""
    needed = estimate.total(micro)
    if needed <= room:
        return ""
    if needed > HOPELESS * free:
        raise _too_large(estimate, micro, free)
    return (
        f"{_crops(micro)} a pass need about {_size(needed)} of memory, more than four "
        f"fifths of the {_size(free)} that are free; "
        "if memory runs out, let the number of passes be chosen."
    )


def smallest_pass(config: ModelConfig) -> int:
    """Crops that a pass needs: batch norm cannot be trained on one value a channel."""
    by_batch = config.decoder != "pyramid" or config.pyramid_norm == "batch"
    one_value = all(edge == config.crop_size for edge in config.patch)
    return 2 if by_batch and one_value else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """How a run fits into the memory of its devices."""

    estimate: MemoryEstimate
    free: int
    """Bytes that each device has free."""
    batch: FittedBatch
    """The share of one device."""

    @property
    def needed(self) -> int:
        """Bytes that each device will need."""
        return self.estimate.total(self.batch.micro_batch)


def plan_memory(
    network: Model, training: TrainingConfig, device: torch.device
) -> MemoryPlan:
    """Estimate a run and fit its batch; call it before the weights are on the device.

    Parameters
    ----------
    network
        What will be trained.
    training
        Batch, precision, devices and what else matters.
    device
        Where it will run.

    Raises
    ------
    ConfigError
        If not even one crop fits.
    """
    estimate = estimate_memory(
        network,
        precision=training.precision,
        freeze_encoder=training.freeze_encoder,
        ema=training.ema > 0,
        device=device.type,
        distributed=training.world_size > 1,
    )
    free = free_memory(own_device(training, device))
    if device.type != "cuda":
        # All processes of a machine share it.
        free //= training.devices
    smallest = 1
    if isinstance(network, MuViTSegmenter):
        smallest = smallest_pass(network.config)
    batch = fit_batch(
        estimate, training.batch_size // training.world_size, free,
        accumulate=training.accumulate, smallest=smallest,
    )  # fmt: skip
    return MemoryPlan(estimate=estimate, free=free, batch=batch)


_SIGNS = (
    "out of memory", "not enough memory", "can't allocate memory", "alloc_failed",
    "defaultcpuallocator",
)  # fmt: skip
"""What torch says, in lower case, when memory runs out on any device."""
_WORKER_SIGNS = ("is killed by signal: killed", "out of shared memory", "bus error")
"""What it says of a process that reads crops."""


@contextlib.contextmanager
def advised(plan: MemoryPlan) -> Iterator[None]:
    """Raise `memory_advice` in place of the error where memory runs out within."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        advice = memory_advice(
            error, estimate=plan.estimate, micro_batch=plan.batch.micro_batch
        )
        if advice is None:
            raise
        raise advice from error


def memory_advice(
    error: BaseException,
    *,
    estimate: MemoryEstimate | None = None,
    micro_batch: int | None = None,
) -> MuvitError | None:
    """Turn an error of torch or numpy into advice where memory has run out.

    Parameters
    ----------
    error
        What was raised.
    estimate
        Of the run, for what would help.
    micro_batch
        Crops of a pass.

    Returns
    -------
    MuvitError or None
        To be raised ``from`` the error; None where it is another one.
    """
    if isinstance(error, MuvitError) or not isinstance(
        error, (MemoryError, RuntimeError)
    ):
        return None
    text = str(error).lower()
    if "dataloader worker" in text and any(sign in text for sign in _WORKER_SIGNS):
        return ConfigError(
            "A process that reads crops was killed, most likely because memory ran "
            "out; take fewer --workers, or none.",
            "num_workers",
        )
    typed = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    if not typed and not any(sign in text for sign in _SIGNS):
        return None
    told = ""
    if estimate is not None and micro_batch is not None:
        needed = _size(estimate.total(micro_batch))
        told = f" at {_crops(micro_batch)} a pass (estimated: {needed})"
    ways = list(estimate.remedies) if estimate else ["a smaller --crop"]
    if micro_batch is None or micro_batch > 1:
        ways.insert(0, "a smaller --batch or more passes (--set accumulate=N)")
    return ConfigError(f"Memory ran out{told}. Take {_listed(ways)}.", "batch_size")


def _size(count: float) -> str:
    """Bytes for people."""
    if count < 0.1 * 2**30:
        return f"{count / 2**20:.0f} MiB"
    return f"{count / 2**30:.1f} GiB"


def _crops(count: int) -> str:
    return "1 crop" if count == 1 else f"{count} crops"


def _listed(parts: Sequence[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} or {last}" if first else last
