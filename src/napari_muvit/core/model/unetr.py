"""UNETR decoder: encoder tokens of several layers back to full resolution.

Reference: MuViT (arXiv 2602.24222), sections 3.4 and B.2, Table S1; UNETR
(arXiv 2103.10504).

Each stage enlarges by two and applies two 3x3 convolutions; tokens of earlier layers
join by addition behind 1x1 convolutions, and the last skip comes from the pixels.
Coarser levels enter through their `LevelBranch`. With level heads or the context skip
(not in the paper) each level has stages of its own, and with the skip a coarse level's
full-resolution features are added to the finer one's at its place.

Shapes: B batch, L levels, C channels, N spatial axes, D token width, F decoder width,
K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from ..config import ModelConfig
from .branch import LevelBranches, skip_layers
from .layers import ConvBlock, check_ndim, conv, cumulative, stage_factors, upsample
from .world import PlacedMaps, sample_at


class UNETRStages(nn.Module):
    """One level from the patch grid to its pixels."""

    def __init__(self, config: ModelConfig, has_context: bool, has_head: bool) -> None:
        super().__init__()
        width, ndim = config.decoder_dim, config.ndim
        self.factors = stage_factors(config.patch, "unetr")
        self.bottleneck = ConvBlock(ndim, width, width)
        self.stages = nn.ModuleList(ConvBlock(ndim, width, width) for _ in self.factors)
        self.image_skip = conv(ndim, config.in_channels, width)
        self.context = conv(ndim, width, width) if has_context else None
        self.head = conv(ndim, width, config.num_classes) if has_head else None

    def forward(
        self,
        pixels: Tensor,
        fused: Tensor,
        projected: Sequence[Tensor],
        context: Tensor | PlacedMaps | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Decode one level.

        Parameters
        ----------
        pixels
            (B, C, *spatial).
        fused
            (B, F, *grid) of all layers and coarser levels.
        projected
            (B, F, *grid) of each layer, the earliest first. The last is in ``fused``
            already; the others join stage by stage, deep ones first, as far as there
            are stages before the last, which the pixels join.
        context
            (B, F, *spatial) of the next coarser level at this one's place, that in the
            last of placed maps, behind the projection already, or None.

        Returns
        -------
        features, logits
            (B, F, *spatial) and (B, K, *spatial), or None without a head.
        """
        current = self.bottleneck(fused)
        earlier = list(projected[:-1])
        for index, enlarged in enumerate(cumulative(self.factors)):
            current = self.stages[index](upsample(current, self.factors[index]))
            if earlier and index < len(self.stages) - 1:
                current = current + upsample(earlier.pop(), enlarged)
        current = current + self.image_skip(pixels)
        if isinstance(context, PlacedMaps):
            current = context.add_to(current, -1)
        elif self.context is not None and context is not None:
            current = current + self.context(context)
        return current, None if self.head is None else self.head(current)


class UNETRDecoder(nn.Module):
    """The paper's UNETR decoder.

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
        check_ndim(config.ndim, "unetr")
        self.layers = skip_layers(config.depth)
        self.context_skip = bool(config.context_skip)
        self.branches = LevelBranches(config, self.layers)
        levels = len(config.scale_factors)
        used = levels if self.context_skip or config.level_heads else 1
        self.levels = nn.ModuleList(
            UNETRStages(
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
            (B, L, D, *grid) for each of ``self.layers``.

        Returns
        -------
        tuple of Tensor
            Logits (B, K, *spatial), finest level first; coarser ones with level heads.
        """
        branches = self.branches(bboxes, maps)
        features, logits = self._coarser(x[:, 1:], bboxes[:, 1:], branches[1:])
        context: Tensor | None = None
        if features is not None:
            context = sample_at(features, bboxes[:, 1], bboxes[:, 0], x.shape[3:])
        _, scores = self.levels[0](x[:, 0], *branches[0], context)
        return (scores, *logits)

    def coarse(
        self, x: Tensor, bboxes: Tensor, maps: Sequence[Tensor], first: int = 1
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """Decode the levels from ``first`` on, as in `forward`; they alone are given.

        Returns
        -------
        maps, logits
            Of the next coarser level for `finest`: (B, F, *grid) and, with the context
            skip, (B, F, *spatial); and the logits of those levels that have heads. No
            maps where the next coarser level is not given.
        """
        branches = self.branches(bboxes, maps, first)
        features, logits = self._coarser(x, bboxes, branches, first)
        if first > 1:
            return (), logits
        handed = (branches[0][0],)
        if features is None:
            return handed, logits
        project = cast("nn.Module", cast("UNETRStages", self.levels[0]).context)
        return (*handed, project(features)), logits

    def finest(self, x: Tensor, maps: Sequence[Tensor], coarser: PlacedMaps) -> Tensor:
        """Decode the finest level, (B, C, *spatial) and (B, D, *grid) to its logits."""
        fused, projected = self.branches.branches[0](maps)
        fused = coarser.add_to(fused, 0)
        context = coarser if self.context_skip else None
        logits: Tensor = self.levels[0](x, fused, projected, context)[1]
        return logits

    def _coarser(
        self,
        x: Tensor,
        bboxes: Tensor,
        branches: Sequence[tuple[Tensor, Sequence[Tensor]]],
        first: int = 1,
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Features for the finest level, if it takes any, and coarser logits."""
        logits: list[Tensor] = []
        features: Tensor | None = None
        for level in reversed(range(len(self.levels) - first)):
            context = None
            if features is not None and self.context_skip:
                source, target = bboxes[:, level + 1], bboxes[:, level]
                context = sample_at(features, source, target, x.shape[3:])
            features, scores = self.levels[first + level](
                x[:, level], *branches[level], context
            )
            if scores is not None:
                logits.insert(0, scores)
        return (features if self.context_skip else None), logits
