"""Memory of a training step, found on torch's ``meta`` device: nothing is computed.

A forward and a backward pass run on tensors that have shapes and no numbers. Every
tensor that an operation makes is counted while it lives, so the peak has what autograd
keeps and what is there for a moment only. What a kernel takes for itself is not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..config import ModelConfig
from ..model.live_bytes import LiveBytes
from ..model.losses import segmentation_loss
from ..model.mae import MuViTMAE
from ..model.segmenter import MuViTSegmenter
from ..training_config import Precision

Model = MuViTSegmenter | MuViTMAE

_SHORT: frozenset[Callable[..., Any]] = frozenset(
    {F.linear, torch.conv2d, torch.conv3d, torch.matmul, Tensor.matmul,
     Tensor.__matmul__}
)  # fmt: skip
"""What autocast computes in 16 bits, of what our networks use."""
_LONG_ON_GPU: frozenset[Callable[..., Any]] = frozenset({F.layer_norm, F.group_norm})
"""What autocast computes in 32 bits on a GPU; on a CPU it stays as it comes."""


class MetaAutocast(TorchFunctionMode):
    """What ``torch.autocast`` does to types, on ``meta``, where it does nothing.

    Parameters
    ----------
    short
        The type of 16 bits.
    on_gpu
        Whether to follow a GPU's list of operations or a CPU's.
    """

    def __init__(self, short: torch.dtype, on_gpu: bool) -> None:
        super().__init__()
        self.short = short
        self.long: frozenset[Callable[..., Any]] = (
            _LONG_ON_GPU if on_gpu else frozenset()
        )
        # As autocast, it casts a weight once a pass.
        self._cast: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        to = self.short if func in _SHORT else None
        to = torch.float32 if func in self.long else to
        if to is None:
            return func(*args, **kwargs)
        return func(
            *(self._as(to, value) for value in args),
            **{name: self._as(to, value) for name, value in kwargs.items()},
        )

    def _as(self, dtype: torch.dtype, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype == dtype:
            return value
        if not value.is_leaf or dtype != self.short or not value.requires_grad:
            return value.to(dtype)
        if id(value) not in self._cast:
            self._cast[id(value)] = value, value.to(dtype)
        return self._cast[id(value)][1]


def step_bytes(
    model: Model, batch: int, precision: Precision = "32-true", on_gpu: bool = False
) -> int:
    """Peak of what a training step makes beside weights and gradients, in bytes.

    Parameters
    ----------
    model
        On ``meta``, its frozen parts frozen.
    batch
        Crops of a pass.
    precision
        As Lightning calls it.
    on_gpu
        Where it will run; matters in mixed precision.
    """
    meter = LiveBytes([*model.parameters(), *model.buffers()])
    with torch.device("meta"), meter:
        for parameter in model.parameters():
            # There from the start, as in all steps but the first.
            trained = parameter.requires_grad
            parameter.grad = torch.empty_like(parameter) if trained else None
        gradients = meter.now
        inputs = _empty_batch(model.config, batch)
        if precision == "32-true":
            loss = step_loss(model, *inputs)
        else:
            short = torch.bfloat16 if precision == "bf16-mixed" else torch.float16
            with MetaAutocast(short, on_gpu):
                loss = step_loss(model, *inputs)
        loss.backward()
    return meter.peak - gradients


def _empty_batch(config: ModelConfig, batch: int) -> tuple[Tensor, Tensor]:
    """Pixels and boxes of no numbers."""
    levels, spatial = len(config.scale_factors), (config.crop_size,) * config.ndim
    pixels = torch.empty(batch, levels, config.in_channels, *spatial)
    return pixels, torch.empty(batch, levels, 2, config.ndim)


def step_loss(model: Model, pixels: Tensor, bboxes: Tensor) -> Tensor:
    """Loss of a training step on labels whose values do not matter.

    Parameters
    ----------
    model
        On any device, which has to be torch's default.
    pixels
        (B, L, C, *spatial).
    bboxes
        (B, L, 2, N).
    """
    if isinstance(model, MuViTMAE):
        return model(pixels, bboxes).loss  # type: ignore[no-any-return]
    config, batch, spatial = model.config, len(pixels), pixels.shape[3:]
    weights = torch.ones(config.num_classes)
    labels = torch.ones(batch, *spatial, dtype=torch.uint8)
    levels = model.level_logits(pixels, bboxes)
    coarse = torch.ones(batch, len(levels) - 1, config.num_classes, *spatial)
    losses = [
        segmentation_loss(
            scores, target, class_weights=weights, dice_weight=1.0,
            dice_labels=config.foreground,
        )
        for scores, target in zip(levels, [labels, *coarse.unbind(1)], strict=True)
    ]  # fmt: skip
    return torch.stack(losses).sum()


def meta_model(kind: type[Model], config: ModelConfig, frozen: bool) -> Model:
    """Build a network without numbers, its encoder frozen where that is asked for."""
    with torch.device("meta"):
        model = kind(config)
    if frozen and isinstance(model, MuViTSegmenter):
        model.encoder.requires_grad_(requires_grad=False)
    return model


def weight_bytes(model: nn.Module, trainable: bool = False) -> int:
    """Bytes of all weights and buffers, or of what is trained only."""
    if trainable:
        return sum(p.nbytes for p in model.parameters() if p.requires_grad)
    tensors = [*model.parameters(), *model.buffers()]
    return sum(t.nbytes for t in tensors)
