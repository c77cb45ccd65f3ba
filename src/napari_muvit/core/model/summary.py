"""How large a network is: parameters by part, arithmetic, memory. Nothing is computed.

Reference: MuViT (arXiv 2602.24222), Table S1 (parameters by part) and Fig. S4 (cost by
input size and levels).

All figures come from the network itself, built and run on torch's ``meta`` device,
which knows shapes and no numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..config import ModelConfig
from .encoder import MuViTEncoder
from .mae import MuViTMAE
from .segmenter import MuViTSegmenter


@dataclass(frozen=True, slots=True)
class PartSize:
    """A row of the table of parameters."""

    part: str
    parameters: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network takes for one nested crop, in float32."""

    parameters: int
    flops: int
    """Floating point operations of a forward pass; a training step takes three times
    as many."""
    activation_bytes: int
    """What a training step keeps of each crop between forward and backward pass."""


def parameter_table(config: ModelConfig) -> tuple[PartSize, ...]:
    """Parameters of every part, as in Table S1.

    Raises
    ------
    ConfigError
        If the network cannot be built.
    """
    with torch.device("meta"):
        segmenter, mae = MuViTSegmenter(config), MuViTMAE(config)
    encoder = segmenter.encoder
    rows = {
        "patch and level embeddings": _count(encoder) - _count(encoder.blocks)
        - _count(encoder.ropes),
        "transformer layers": _count(encoder.blocks),
        "RoPE frequencies": _count(encoder.ropes),
        "encoder": _count(encoder),
        "MAE decoders": _count(mae) - _count(mae.encoder),
        "encoder + MAE decoders": _count(mae),
        f"{config.decoder} decoder": _count(segmenter.decoder),
        f"encoder + {config.decoder} decoder": _count(segmenter),
    }  # fmt: skip
    return tuple(PartSize(part, count) for part, count in rows.items())


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def segmentation_cost(config: ModelConfig) -> Cost:
    """Cost of segmenting one nested crop of ``config.crop_size``."""
    with torch.device("meta"):
        model = MuViTSegmenter(config)
    return _cost(model, model.level_logits, config)


def encoder_cost(config: ModelConfig) -> Cost:
    """Cost of the encoder alone."""
    with torch.device("meta"):
        model = MuViTEncoder(config)
    return _cost(model, model.forward, config)


def _cost(
    model: nn.Module, run: Callable[[Tensor, Tensor], object], config: ModelConfig
) -> Cost:
    levels, spatial = len(config.scale_factors), (config.crop_size,) * config.ndim
    x = torch.empty(1, levels, config.in_channels, *spatial, device="meta")
    bboxes = torch.empty(1, levels, 2, config.ndim, device="meta")
    own = {_key(p) for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _key(tensor) not in own:
            storage = tensor.untyped_storage()
            kept[_key(tensor)] = storage.nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        run(x, bboxes)
    return Cost(
        parameters=_count(model),
        flops=counter.get_total_flops(),
        activation_bytes=sum(kept.values()),
    )


def _key(tensor: Tensor) -> int:
    """What names a tensor's memory; on ``meta`` all addresses are 0."""
    return int(tensor.untyped_storage()._cdata)
