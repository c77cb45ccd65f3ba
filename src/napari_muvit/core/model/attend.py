"""Scaled dot-product attention by the fastest kernel for where the tokens are.

Shapes: B batch, H heads, T queries, S keys, E head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .cpu_attention import blocked_attention, blocks_are_faster

SMALLEST = 256
"""Keys from which on the blocked kernel wins over torch's."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend from all queries to all keys.

    Torch's fused kernels, but for a CPU that has faster matrix products than those
    use (see `cpu_attention`): there ours takes half of the time, and is differentiable
    once.

    Parameters
    ----------
    query
        (B, H, T, E).
    key, value
        (B, H, S, E).

    Returns
    -------
    Tensor
        (B, H, T, E).
    """
    if query.device.type == "meta":
        # As the fused kernels do it: for shapes, operations and memory.
        out: Tensor = _Fused.apply(query, key, value)  # type: ignore[no-untyped-call]
        return out
    if _blocked_is_faster(query, key, value):
        return blocked_attention(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


def _blocked_is_faster(query: Tensor, key: Tensor, value: Tensor) -> bool:
    return (
        query.device.type == "cpu"
        and query.dtype == key.dtype == value.dtype
        and query.shape[:2] == key.shape[:2]
        and query.shape[3] == key.shape[3]
        and key.shape == value.shape
        and key.shape[2] >= SMALLEST
        and query.shape[2] > 0
        # Torch's kernel would round to the type of the autocast.
        and not (query.dtype == torch.float32 and torch.is_autocast_enabled("cpu"))
        and not torch.compiler.is_compiling()
        and blocks_are_faster(query.dtype)
    )


class _Fused(torch.autograd.Function):
    """What a fused kernel keeps for its backward pass: no scores."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(query, key, value)
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
