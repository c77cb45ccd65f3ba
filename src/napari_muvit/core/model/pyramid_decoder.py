"""Pyramid decoder: convolutions at every stride, tokens, and the context skip.

Ours, not the paper's: this arrangement learns to use context within minutes. Each
level has its own U-shaped decoder (shared batch statistics would mix scales), its own
head, and hands its full-resolution features to the next finer level, which samples
them at its own place through world coordinates. Nothing in a coarse level's
convolutions depends on the fine crop.

Shapes: B batch, L levels, C channels, D token width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .layers import ConvBlock, check_ndim, conv, upsample
from .world import sample_at


class LevelDecoder(nn.Module):
    """One level: pyramid down, tokens added at the patch grid, pyramid back up."""

    def __init__(self, config: ModelConfig, has_context: bool, has_head: bool) -> None:
        super().__init__()
        ndim, widths = config.ndim, config.pyramid_channels
        self.stem = ConvBlock(ndim, config.in_channels, widths[0], count=1)
        self.down = nn.ModuleList(
            ConvBlock(ndim, a, b, stride=2) for a, b in pairwise(widths)
        )
        self.tokens = conv(ndim, config.embed_dim, widths[-1], 1)
        self.bottom = ConvBlock(ndim, widths[-1], widths[-1], count=1)
        self.up = nn.ModuleList(
            ConvBlock(ndim, a + b, b, count=1) for b, a in pairwise(widths)
        )
        self.context = conv(ndim, widths[0], widths[0], 1) if has_context else None
        self.last = ConvBlock(ndim, widths[0], widths[0], count=1)
        self.head = conv(ndim, widths[0], config.num_classes, 1) if has_head else None

    def forward(
        self, pixels: Tensor, tokens: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Decode one level.

        Parameters
        ----------
        pixels
            (B, C, *spatial).
        tokens
            (B, D, *grid).
        context
            (B, widths[0], *spatial) features of the next coarser level, sampled at
            this level's box, or None.

        Returns
        -------
        features, logits
            (B, widths[0], *spatial) and (B, K, *spatial) or None without a head.
        """
        skips = [self.stem(pixels)]
        for stage in self.down:
            skips.append(stage(skips[-1]))
        current = self.bottom(skips.pop() + self.tokens(tokens))
        for stage in reversed(self.up):
            current = stage(torch.cat((upsample(current, 2), skips.pop()), dim=1))
        if self.context is not None and context is not None:
            current = current + self.context(context)
        current = self.last(current)
        return current, None if self.head is None else self.head(current)


class PyramidDecoder(nn.Module):
    """A `LevelDecoder` a level, coarse to fine, as a cascade."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check_ndim(config.ndim, "pyramid")
        self.layers: tuple[int, ...] = (config.depth - 1,)
        self.context_skip = bool(config.context_skip)
        levels = len(config.scale_factors)
        used = levels if self.context_skip or config.level_heads else 1
        self.levels = nn.ModuleList(
            LevelDecoder(
                config,
                has_context=self.context_skip and level < levels - 1,
                has_head=level == 0 or bool(config.level_heads),
            )
            for level in range(used)
        )

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
            (B, L, D, *grid) of the last encoder layer, one entry.

        Returns
        -------
        tuple of Tensor
            Logits (B, K, *spatial), finest level first; coarser ones with level heads.
        """
        logits: list[Tensor] = []
        features: Tensor | None = None
        shape = x.shape[3:]
        for level in range(len(self.levels) - 1, -1, -1):
            context = None
            if features is not None and self.context_skip:
                context = sample_at(
                    features, bboxes[:, level + 1], bboxes[:, level], shape
                )
            features, scores = self.levels[level](
                x[:, level], maps[0][:, level], context
            )
            if scores is not None:
                logits.insert(0, scores)
        return tuple(logits)
