"""Which tokens a masked autoencoder sees.

Reference: MuViT (arXiv 2602.24222), section 3.3 and supplement A.2: three quarters of
all tokens are hidden, and the visible ones are shared among the levels by a draw from
Dirichlet(0.5), here one for each sample. The total is the same for each sample, so a
batch has no padding.

Shapes: B batch, L levels, n patches a level, T = L * n tokens, V visible tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import MaskShares
from ..errors import ConfigError


@dataclass(frozen=True, eq=False, slots=True)
class TokenMask:
    """A partition of the tokens of each sample."""

    visible: Tensor
    """(B, V) int64 indices of the tokens that are seen, ascending."""
    hidden: Tensor
    """(B, T) bool: which tokens are to be predicted."""


def mask_from_hidden(hidden: Tensor) -> TokenMask:
    """Make a mask of (B, T) booleans, the same number of them true in each row.

    Raises
    ------
    ConfigError
        If the rows differ in number, or nothing is visible or hidden.
    """
    if hidden.ndim != 2 or hidden.dtype != torch.bool or not len(hidden):
        raise ConfigError(
            f"A mask of shape {tuple(hidden.shape)} and type {hidden.dtype} was given; "
            "(batch, tokens) booleans are needed.",
            "mask_ratio",
        )
    counts = hidden.sum(dim=1)
    total, tokens = int(counts[0]), hidden.shape[1]
    if not bool((counts == total).all()) or not 0 < total < tokens:
        raise ConfigError(
            f"A mask that hides {counts.tolist()} of {tokens} tokens was given; each "
            "sample needs the same number, at least one hidden and one visible.",
            "mask_ratio",
        )
    return _partition(hidden, tokens - total)


def check_mask(mask: TokenMask, batch: int, tokens: int) -> None:
    """Raise `ConfigError` for a mask of another batch or of other crops."""
    if tuple(mask.hidden.shape) != (batch, tokens) or len(mask.visible) != batch:
        raise ConfigError(
            f"A mask of {tuple(mask.hidden.shape)} was given for {batch} crops of "
            f"{tokens} tokens each; make one of that shape."
        )


def draw_mask(
    batch: int,
    levels: int,
    patches: int,
    *,
    ratio: float = 0.75,
    shares: MaskShares = "dirichlet",
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> TokenMask:
    """Draw a mask for each sample.

    Parameters
    ----------
    batch, levels, patches
        B, L and n.
    ratio
        Share of all tokens that is hidden.
    shares
        How the visible tokens are shared among the levels; see `ModelConfig`.
    generator
        Source of the numbers, on ``device``; None: torch's own.
    device
        Where the mask is to be.

    Raises
    ------
    ConfigError
        If the ratio leaves nothing visible or nothing hidden.
    """
    tokens = levels * patches
    # 10 * (1 - 0.9) is 0.9999999999999998.
    visible = math.floor(tokens * (1 - ratio) + 1e-9)
    if not 0 < visible < tokens:
        raise ConfigError(
            f"mask_ratio {ratio} of {tokens} tokens leaves {visible} visible; at least "
            "one hidden and one visible token are needed. Use larger crops.",
            "mask_ratio",
        )
    order = torch.rand(batch, levels, patches, generator=generator, device=device)
    if shares == "uniform":
        kept = order.flatten(1).argsort(dim=1).argsort(dim=1) < visible
    else:
        counts = _counts(batch, levels, patches, visible, shares, generator, order)
        rank = order.argsort(dim=2).argsort(dim=2)
        kept = (rank < counts[:, :, None]).flatten(1)
    return _partition(~kept, visible)


def _partition(hidden: Tensor, visible: int) -> TokenMask:
    # A stable sort puts the visible tokens first, in their order, without a
    # data-dependent shape that a GPU would have to wait for.
    order = hidden.to(torch.uint8).argsort(dim=1, stable=True)
    return TokenMask(visible=order[:, :visible], hidden=hidden)


def _counts(
    batch: int,
    levels: int,
    patches: int,
    visible: int,
    shares: MaskShares,
    generator: torch.Generator | None,
    like: Tensor,
) -> Tensor:
    """Visible tokens of each level, (B, L), of the given sum and at most n each."""
    if shares == "equal":
        wanted = torch.ones(batch, levels, device=like.device)
    else:
        # The square of a normal number is Gamma(1/2) up to a factor, and Gamma numbers
        # over their sum are a Dirichlet draw: so this is Dirichlet(1/2).
        normal = torch.randn(batch, levels, generator=generator, device=like.device)
        wanted = normal.square()
    # Equal weights in the last digits decide where a draw gives a level next to none.
    wanted = (wanted + 1e-6) / (wanted + 1e-6).sum(dim=1, keepdim=True)
    counts = _fill(wanted * visible, patches, visible)
    return _round(counts, visible)


def _fill(counts: Tensor, most: int, total: int) -> Tensor:
    """Clip each row at ``most``; what is cut off goes to the others, in proportion."""
    for _ in range(counts.shape[1] - 1):
        full = counts >= most
        room = total - most * full.sum(dim=1, keepdim=True)
        rest = counts.masked_fill(full, 0)
        scale = room / rest.sum(dim=1, keepdim=True).clamp(min=1e-9)
        counts = torch.where(full, torch.full_like(counts, most), rest * scale)
    return counts.clamp(max=most)


def _round(counts: Tensor, total: int) -> Tensor:
    """Round rows to whole numbers of the given sum: the largest remainders go up."""
    whole = counts.floor().long()
    missing = total - whole.sum(dim=1, keepdim=True)
    rank = (counts - whole).argsort(dim=1, descending=True).argsort(dim=1)
    return whole + (rank < missing)
