"""Which token may attend to which: all to all, or by level.

Reference: MuViT (arXiv 2602.24222), section 3.2 (all levels attend to all). The
restricted arrangements are not in the paper:

- ``coarse_to_fine``: a token sees its own and coarser levels. What is computed for a
  coarse level then does not depend on the fine crop, so it can be computed once for all
  fine crops in it, exactly.
- ``fine_to_coarse``: a token sees its own and finer levels. (The authors' package calls
  this "causal"; coarse tokens see the fine crop, not the other way round.)
- ``within_level``: a token sees its own level only.

Shapes: B batch, H heads, T tokens, E head width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Attention as Arrangement
from .attend import attend

_ALLOWED: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "coarse_to_fine": torch.le,
    "fine_to_coarse": torch.ge,
    "within_level": torch.eq,
}
"""Given the levels of a query and a key (0 is the finest): whether it may look."""


@dataclass(frozen=True, eq=False, slots=True)
class Spans:
    """Tokens in level order: what each level sees is one contiguous range.

    A call a level without a mask, which keeps the fused kernels.
    """

    ranges: tuple[tuple[int, int, int, int], ...]
    """(first query, last query, first key, last key) of each level, ends excluded."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, H, T, E) three times to (B, H, T, E)."""
        parts = [
            attend(query[:, :, a:b], key[:, :, c:d], value[:, :, c:d])
            for a, b, c, d in self.ranges
        ]
        return torch.cat(parts, dim=2)


@dataclass(frozen=True, eq=False, slots=True)
class Mask:
    """Any tokens, as a masked autoencoder keeps them."""

    allowed: Tensor
    """(B, 1, T, T) bool: whether a query (row) sees a key (column)."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, H, T, E) three times to (B, H, T, E)."""
        return F.scaled_dot_product_attention(query, key, value, attn_mask=self.allowed)


Reach = Spans | Mask


def reach_of_levels(arrangement: Arrangement, counts: Sequence[int]) -> Spans | None:
    """Reach of whole levels of ``counts`` tokens each, finest first; None: all."""
    if arrangement == "joint":
        return None
    ends = [sum(counts[: level + 1]) for level in range(len(counts))]
    starts = [0, *ends[:-1]]
    ranges = []
    for start, end in zip(starts, ends, strict=True):
        lower = 0 if arrangement == "fine_to_coarse" else start
        upper = ends[-1] if arrangement == "coarse_to_fine" else end
        ranges.append((start, end, lower, upper))
    return Spans(tuple(ranges))


def reach_of_tokens(arrangement: Arrangement, levels: Tensor) -> Mask | None:
    """Reach of tokens of the given levels (B, T), 0 is the finest; None: all."""
    if arrangement == "joint":
        return None
    allowed = _ALLOWED[arrangement](levels[:, :, None], levels[:, None, :])
    return Mask(allowed[:, None])
