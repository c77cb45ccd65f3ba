"""Pyramid decoder: convolutions at every stride, tokens, and the context skip.

Reference: ours, not the paper's (MuViT, arXiv 2602.24222, is the encoder below it): an
arrangement that learns to use context within minutes. Each level has its own U-shaped
decoder (shared batch statistics would mix scales), its own head, and hands its
full-resolution features to the next finer level, which samples them at its own place
through world coordinates. Nothing in a coarse level's convolutions depends on the
fine crop.

Shapes: B batch, L levels, C channels, N spatial axes, D token width, W decoder width at
a stride, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .layers import ConvBlock, check_ndim, conv, stage_factors, upsample
from .world import PlacedMaps, sample_at

Context = Callable[[Sequence[int]], Tensor]
"""(B, W, *shape) of the next coarser level at this level's place, at a given shape."""

TOKEN_GAIN = 0.1
"""First weights of the tokens' projection against those of any other convolution."""


class TokenEntry(nn.Module):
    """Encoder tokens for the convolutions: normed, projected, quiet at first.

    An untrained encoder says nothing yet: at full weight its tokens would disturb the
    convolutions in the first hundreds of steps (docs/concepts/learning.md).
    """

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.embed_dim)
        self.project = conv(config.ndim, config.embed_dim, width)
        with torch.no_grad():
            for parameter in self.project.parameters():
                parameter.mul_(TOKEN_GAIN)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, D, *grid) to (B, W, *grid)."""
        normed = self.norm(tokens.movedim(1, -1)).movedim(-1, 1)
        return self.project(normed)  # type: ignore[no-any-return]


class LevelDecoder(nn.Module):
    """One level: pyramid down, tokens added at the patch grid, pyramid back up."""

    def __init__(self, config: ModelConfig, has_context: bool, has_head: bool) -> None:
        super().__init__()
        ndim, widths, norm = config.ndim, config.pyramid_channels, config.pyramid_norm
        self.factors = stage_factors(config.patch, "pyramid")
        self.stem = ConvBlock(ndim, config.in_channels, widths[0], count=1, norm=norm)
        self.down = nn.ModuleList(
            ConvBlock(ndim, a, b, stride=stride, norm=norm)
            for (a, b), stride in zip(
                pairwise(widths), reversed(self.factors), strict=True
            )
        )
        self.tokens = TokenEntry(config, widths[-1])
        self.bottom = ConvBlock(ndim, widths[-1], widths[-1], count=1, norm=norm)
        self.up = nn.ModuleList(
            ConvBlock(ndim, a + b, b, count=1, norm=norm)
            for a, b in pairwise(reversed(widths))
        )
        # By stage: 0 is the patch grid, the last one full resolution.
        stages = [len(widths) - s.bit_length() for s in config.context_strides]
        self.context = nn.ModuleDict(
            {
                str(stage): conv(ndim, widths[0], widths[len(widths) - 1 - stage])
                for stage in sorted(stages if has_context else [])
            }
        )
        self.last = ConvBlock(ndim, widths[0], widths[0], count=1, norm=norm)
        self.head = conv(ndim, widths[0], config.num_classes) if has_head else None

    def forward(
        self, pixels: Tensor, tokens: Tensor, context: Context | PlacedMaps | None
    ) -> tuple[Tensor, Tensor | None]:
        """Decode one level.

        Parameters
        ----------
        pixels
            (B, C, *spatial).
        tokens
            (B, D, *grid).
        context
            Features of the next coarser level at this level's place, what `projected`
            made of them, or None.

        Returns
        -------
        features, logits
            (B, W, *spatial) and (B, K, *spatial), or None without a head.
        """
        skips = [self.stem(pixels)]
        for stage in self.down:
            skips.append(stage(skips[-1]))
        current = skips.pop() + self.tokens(tokens)
        current = self.bottom(self._with_context(current, 0, context))
        for index, (stage, factor) in enumerate(
            zip(self.up, self.factors, strict=True), start=1
        ):
            joined = torch.cat((upsample(current, factor), skips.pop()), dim=1)
            current = self._with_context(stage(joined), index, context)
        current = self.last(current)
        return current, None if self.head is None else self.head(current)

    def projected(self, features: Tensor) -> tuple[Tensor, ...]:
        """(B, W, *spatial) of the next coarser level to what each stage adds of it."""
        return tuple(project(features) for project in self.context.values())

    def _with_context(
        self, features: Tensor, stage: int, context: Context | PlacedMaps | None
    ) -> Tensor:
        if context is None or str(stage) not in self.context:
            return features
        if isinstance(context, PlacedMaps):
            return context.add_to(features, list(self.context).index(str(stage)))
        seen: Tensor = self.context[str(stage)](context(features.shape[2:]))
        return features + seen


class PyramidDecoder(nn.Module):
    """A `LevelDecoder` a level, coarse to fine, as a cascade.

    Parameters
    ----------
    config
        Patch (edges that are powers of two), widths, levels and classes are used.

    Raises
    ------
    ConfigError
        For four axes, or a patch that cannot be halved down.
    """

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
        features, logits = self._coarser(x[:, 1:], bboxes[:, 1:], maps[0][:, 1:])
        context: Context | None = None
        if features is not None:
            context = context_of(features, bboxes[:, 1], bboxes[:, 0])
        _, scores = self.levels[0](x[:, 0], maps[0][:, 0], context)
        return (scores, *logits)

    def coarse(
        self, x: Tensor, bboxes: Tensor, maps: Sequence[Tensor], first: int = 1
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """Decode the levels from ``first`` on, as in `forward`; they alone are given.

        Returns
        -------
        maps, logits
            (B, W, *spatial) of the next coarser level for `finest`, and the logits of
            those levels that have heads. No maps where the next coarser level is not
            given.
        """
        features, logits = self._coarser(x, bboxes, maps[0], first)
        if features is None or first > 1:
            return (), logits
        return cast("LevelDecoder", self.levels[0]).projected(features), logits

    def finest(self, x: Tensor, maps: Sequence[Tensor], coarser: PlacedMaps) -> Tensor:
        """Decode the finest level, (B, C, *spatial) and (B, D, *grid) to its logits."""
        return self.levels[0](x, maps[0], coarser)[1]  # type: ignore[no-any-return]

    def _coarser(
        self, x: Tensor, bboxes: Tensor, maps: Tensor, first: int = 1
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Features for the finest level, if it takes any, and coarser logits."""
        logits: list[Tensor] = []
        context: Context | None = None
        features: Tensor | None = None
        for level in reversed(range(len(self.levels) - first)):
            features, scores = self.levels[first + level](
                x[:, level], maps[:, level], context
            )
            if scores is not None:
                logits.insert(0, scores)
            if self.context_skip and level:
                context = context_of(features, bboxes[:, level], bboxes[:, level - 1])
        return (features if self.context_skip else None), logits


def context_of(features: Tensor, source: Tensor, target: Tensor) -> Context:
    """Offer a level's features at the place of the next finer one; see `sample_at`."""

    def at(shape: Sequence[int]) -> Tensor:
        return sample_at(features, source, target, shape)

    return at
