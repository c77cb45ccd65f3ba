"""UNETR decoder: encoder tokens of several layers back to full resolution.

Reference: MuViT (arXiv 2602.24222), sections 3.4 and B.2, Table S1; UNETR
(arXiv 2103.10504).

Each stage enlarges by two and applies two 3x3 convolutions; tokens of earlier layers
join by addition behind 1x1 convolutions, and the last skip comes from the pixels.
Table S1 leaves 1.645 M parameters a coarser level: here a small branch that projects
the coarse level's tokens, convolves them on their own grid and hands them over at the
finer crop's place through world coordinates.

Shapes: B batch, L levels, C channels, D token width, F decoder width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import ConfigError
from .layers import ConvBlock, check_ndim, conv, upsample
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
            conv(ndim, config.embed_dim, width, 1) for _ in range(num_layers)
        )
        self.block = ConvBlock(ndim, width, width)
        self.out = conv(ndim, width, width, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(B, D, *grid) a layer to the fused map and the projections, (B, F, *grid)."""
        projected = [p(m) for p, m in zip(self.projections, maps, strict=True)]
        fused = self.block(torch.stack(projected).sum(dim=0))
        return self.out(fused), projected


class UNETRDecoder(nn.Module):
    """The paper's UNETR decoder.

    Parameters
    ----------
    config
        Patch edge (a power of two), widths, levels and classes are used.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check_ndim(config.ndim, "unetr")
        stages = config.patch_size.bit_length() - 1
        if 2**stages != config.patch_size:
            raise ConfigError(
                f"patch_size is {config.patch_size}; the unetr decoder doubles the "
                "resolution at each stage and needs a power of two.",
                "patch_size",
            )
        if config.context_skip or config.level_heads:
            raise ConfigError(
                "context_skip and level_heads need the pyramid decoder; choose "
                "decoder pyramid, or leave them out.",
                "context_skip",
            )
        width, ndim = config.decoder_dim, config.ndim
        self.layers = skip_layers(config.depth)
        self.patch_size = config.patch_size
        self.branches = nn.ModuleList(
            LevelBranch(config, len(self.layers)) for _ in config.scale_factors
        )
        self.bottleneck = ConvBlock(ndim, width, width)
        self.stages = nn.ModuleList(
            ConvBlock(ndim, width, width) for _ in range(stages)
        )
        # Stages but the last are joined by an earlier layer each, as far as there are.
        self.num_skips = max(0, min(len(self.layers), stages) - 1)
        self.image_skip = conv(ndim, config.in_channels, width, 1)
        self.head = conv(ndim, width, config.num_classes, 1)

    def forward(
        self, x: Tensor, bboxes: Tensor, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Decode.

        Parameters
        ----------
        x
            (B, L, C, *spatial) pixels.
        bboxes
            (B, L, 2, N) world boxes.
        maps
            (B, L, D, *grid) for each of ``self.layers``.

        Returns
        -------
        tuple of Tensor
            One entry: the finest level's logits (B, K, *spatial).
        """
        current: Tensor | None = None
        projected: list[Tensor] = []
        grid = maps[0].shape[3:]
        for level in range(len(self.branches) - 1, -1, -1):
            fused, projected = self.branches[level]([m[:, level] for m in maps])
            if current is not None:
                fused = fused + sample_at(
                    current, bboxes[:, level + 1], bboxes[:, level], grid
                )
            current = fused
        if current is None:
            raise ConfigError("A model needs at least one level.", "scale_factors")
        current = self.bottleneck(current)
        for index, stage in enumerate(self.stages):
            current = stage(upsample(current, 2))
            factor = 2 ** (index + 1)
            if index < self.num_skips and index < len(self.stages) - 1:
                earlier = projected[len(self.layers) - 2 - index]
                current = current + upsample(earlier, factor)
        current = current + self.image_skip(x[:, 0])
        return (self.head(current),)
