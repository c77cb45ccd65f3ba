"""Pre-norm transformer layer with rotary attention over the tokens of all levels.

Reference: MuViT (arXiv 2602.24222), section 3.2 and Table S1.

Shapes: B batch, T tokens, D token width, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .rope import rotate

Rotation = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Multi-head self-attention; projections have no bias."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None,
        level_starts: Sequence[int] | None = None,
    ) -> Tensor:
        """Attend.

        Parameters
        ----------
        x
            (B, T, D).
        rotation
            Cosine and sine of the RoPE angles, each (B, 1, T, E / 2), or None.
        level_starts
            First token of each level, finest level first. When given, a token attends
            to its own and coarser levels only; else all attend to all.

        Returns
        -------
        Tensor
            (B, T, D).
        """
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        if level_starts is None:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            mixed = self._coarse_to_fine(query, key, value, level_starts)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    @staticmethod
    def _coarse_to_fine(
        query: Tensor, key: Tensor, value: Tensor, starts: Sequence[int]
    ) -> Tensor:
        # Coarser levels lie behind, so what a level may see is one contiguous tail:
        # a call a level without a mask, which keeps the fused kernels.
        ends = [*starts[1:], query.shape[2]]
        parts = [
            F.scaled_dot_product_attention(
                query[:, :, start:end], key[:, :, start:], value[:, :, start:]
            )
            for start, end in zip(starts, ends, strict=True)
        ]
        return torch.cat(parts, dim=2)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)
        )

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None,
        level_starts: Sequence[int] | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D); see `Attention.forward`."""
        x = x + self.attention(self.norm1(x), rotation, level_starts)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]
