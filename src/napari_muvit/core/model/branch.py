"""How the tokens of several levels enter the paper's decoders.

Reference: MuViT (arXiv 2602.24222), section B.2 (encoder layers projected to the
decoder's width) and Table S1: both decoders grow by 1.645 M parameters a coarser level,
more than nothing and less than a decoder of their own. Taken here as a small branch a
level: three 1x1 projections, a double 3x3 convolution and a 1x1 convolution on the
level's own patch grid (1.641 M at the paper's widths), whose result is handed to the
next finer level at its place through world coordinates.

Shapes: B batch, L levels, N spatial axes, D token width, F decoder width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .layers import ConvBlock, conv
from .world import sample_at


def skip_layers(depth: int) -> tuple[int, ...]:
    """Encoder layers that feed the decoder: first, middle, last; (0, 5, 11) of 12."""
    return tuple(sorted({0, (depth - 1) // 2, depth - 1}))


class LevelBranch(nn.Module):
    """One level's tokens of several layers, projected and fused on the patch grid."""

    def __init__(self, config: ModelConfig, num_layers: int) -> None:
        super().__init__()
        width, ndim = config.decoder_dim, config.ndim
        self.projections = nn.ModuleList(
            conv(ndim, config.embed_dim, width) for _ in range(num_layers)
        )
        self.block = ConvBlock(ndim, width, width)
        self.out = conv(ndim, width, width)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(B, D, *grid) a layer to the fused map and the projections, (B, F, *grid)."""
        projected = [p(m) for p, m in zip(self.projections, maps, strict=True)]
        fused = self.block(torch.stack(projected).sum(dim=0))
        return self.out(fused), projected


class LevelBranches(nn.Module):
    """A `LevelBranch` a level; coarser ones are added to the next finer one.

    Parameters
    ----------
    config
        Levels and widths are used.
    layers
        Encoder layers whose tokens are fused.
    """

    def __init__(self, config: ModelConfig, layers: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            LevelBranch(config, len(layers)) for _ in config.scale_factors
        )

    def forward(
        self, bboxes: Tensor, maps: Sequence[Tensor], first: int = 0
    ) -> list[tuple[Tensor, list[Tensor]]]:
        """Fuse all levels, coarse to fine.

        Parameters
        ----------
        bboxes
            (B, L, 2, N) world boxes.
        maps
            (B, L, D, *grid) for each of the layers.
        first
            The finest of the levels that are given; coarser ones all are.

        Returns
        -------
        list of (fused, projected)
            Finest level first: (B, F, *grid) with all coarser levels in it, and the
            projections of each layer, (B, F, *grid). A position outside the coarser
            box takes that box's nearest edge value.
        """
        found: list[tuple[Tensor, list[Tensor]]] = []
        grid = maps[0].shape[3:]
        for level in reversed(range(len(self.branches) - first)):
            fused, projected = self.branches[first + level]([m[:, level] for m in maps])
            if found:
                coarser, place = found[0][0], bboxes[:, level]
                fused = fused + sample_at(coarser, bboxes[:, level + 1], place, grid)
            found.insert(0, (fused, projected))
        return found
