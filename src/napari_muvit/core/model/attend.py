"""Scaled dot-product attention by the fastest kernel for where the tokens are.

Shapes: B batch, H heads, T queries, S keys, E head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .cpu_attention import blocked_attention, blocks_are_faster

SMALLEST = 256
"""Keys from which on the blocked kernel wins over torch's."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend from all queries to all keys.

    Torch's fused kernels, but for a CPU that has faster matrix products than those
    use (see `cpu_attention`): there ours takes half of the time.

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
    if _blocked_is_faster(query, key):
        return blocked_attention(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


def _blocked_is_faster(query: Tensor, key: Tensor) -> bool:
    return (
        query.device.type == "cpu"
        and key.shape[2] >= SMALLEST
        and not torch.compiler.is_compiling()
        and blocks_are_faster(query.dtype)
    )
