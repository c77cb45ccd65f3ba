"""Scaled dot-product attention by the fastest kernel for where the tokens are.

Shapes: B batch, H heads, T queries, S keys, E head width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, H, T, E), (B, H, S, E) twice to (B, H, T, E)."""
    return F.scaled_dot_product_attention(query, key, value)
