"""Pre-norm transformer layers with rotary attention over the tokens of all levels.

Reference: MuViT (arXiv 2602.24222), section 3.2 and Table S1.

Shapes: B batch, T tokens, S tokens attended to, D token width, H heads, E head width.
"""

from __future__ import annotations

from torch import Tensor, nn

from .attend import attend
from .linear import Linear, linear
from .reach import Reach
from .rope import Rotation, rotate


class Attention(nn.Module):
    """Multi-head attention; projections have no bias.

    Parameters
    ----------
    dim
        Token width D.
    num_heads
        Heads H; they divide D.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.out = Linear(dim, dim, bias=False)

    def forward(
        self, x: Tensor, rotation: Rotation | None = None, reach: Reach | None = None
    ) -> Tensor:
        """Attend among the tokens.

        Parameters
        ----------
        x
            (B, T, D).
        rotation
            Of the tokens, or None.
        reach
            Which token may attend to which; None: all to all.

        Returns
        -------
        Tensor
            (B, T, D).
        """
        return self.mix(*self.project(x, rotation), reach)

    def project(
        self, x: Tensor, rotation: Rotation | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) to rotated queries and keys, and values, (B, T, H, E) each."""
        heads = self.qkv(x).unflatten(-1, (3 * self.num_heads, -1))
        # Queries and keys turn alike, so in one go.
        turning, value = heads.split((2 * self.num_heads, self.num_heads), dim=2)
        query, key = rotate(turning, rotation).chunk(2, dim=2)
        return query, key, value

    def cross(
        self,
        x: Tensor,
        context: Tensor,
        rotation: Rotation | None = None,
        context_rotation: Rotation | None = None,
    ) -> Tensor:
        """Attend from (B, T, D) to (B, S, D), each with its own rotation."""
        dim = x.shape[-1]
        query = linear(x, self.qkv.weight[:dim]).unflatten(-1, (self.num_heads, -1))
        key, value = (
            linear(context, self.qkv.weight[dim:])
            .unflatten(-1, (2 * self.num_heads, -1))
            .chunk(2, dim=2)
        )
        query, key = rotate(query, rotation), rotate(key, context_rotation)
        return self.mix(query, key, value, None)

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, reach: Reach | None
    ) -> Tensor:
        """(B, T, H, E), (B, S, H, E) twice to (B, T, D)."""
        heads = [part.transpose(1, 2) for part in (query, key, value)]
        mixed = attend(*heads) if reach is None else reach.attend(*heads)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def feed_forward(dim: int, hidden: int) -> nn.Sequential:
    """Linear, GELU, linear."""
    return nn.Sequential(Linear(dim, hidden), nn.GELU(), Linear(hidden, dim))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = feed_forward(dim, int(dim * mlp_ratio))

    def forward(
        self, x: Tensor, rotation: Rotation | None = None, reach: Reach | None = None
    ) -> Tensor:
        """(B, T, D) to (B, T, D); see `Attention.forward`."""
        return self.finish(x, self.attention(self.norm1(x), rotation, reach))

    def finish(self, x: Tensor, seen: Tensor) -> Tensor:
        """Add what (B, T, D) tokens have seen, and the feed-forward of the sum."""
        x = x + seen
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]

    def cross(
        self,
        x: Tensor,
        context: Tensor,
        rotation: Rotation | None = None,
        context_rotation: Rotation | None = None,
    ) -> Tensor:
        """(B, T, D) that attend to (B, S, D) instead of to each other."""
        seen = self.attention.cross(self.norm1(x), context, rotation, context_rotation)
        return self.finish(x, seen)
