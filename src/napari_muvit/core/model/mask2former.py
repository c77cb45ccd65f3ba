"""Mask2Former decoder: learned queries, each of which answers with a mask.

Reference: MuViT (arXiv 2602.24222), sections 3.4 and B.2, Table S1; Mask2Former
(arXiv 2112.01527), here for semantic segmentation and without masked attention.

A pixel decoder enlarges the tokens (fused over layers and levels, see `branch`) to mask
features of full resolution. Queries attend to each other and to the tokens of all
levels; only the tokens are rotated by RoPE, so the origin of the world matters here: it
is the lower corner of the finest box. The dot product of a query's embedding with the
mask features is its mask, and a last convolution maps masks to classes.

Shapes: B batch, L levels, N spatial axes, T tokens of all levels, D token width,
F decoder width, M queries, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import ConfigError
from ..model_checks import check_heads
from .branch import LevelBranches, skip_layers
from .layers import ConvBlock, check_ndim, conv, stage_factors, upsample
from .linear import Linear
from .rope import Rotation, WorldRope, patch_positions
from .transformer import Attention, feed_forward

QUERY_LAYERS = 3
QUERY_MLP_RATIO = 4


class PixelDecoder(nn.Module):
    """(B, F, *grid) to mask features (B, F, *spatial)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, ndim = config.decoder_dim, config.ndim
        self.factors = stage_factors(config.patch, "mask2former")
        self.stages = nn.ModuleList(ConvBlock(ndim, width, width) for _ in self.factors)

    def forward(self, fused: Tensor) -> Tensor:
        """Enlarge and convolve, stage by stage."""
        for stage, factors in zip(self.stages, self.factors, strict=True):
            fused = stage(upsample(fused, factors))
        return fused


class QueryLayer(nn.Module):
    """Self-attention of the queries, cross-attention to the tokens, feed-forward."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.self_attention = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attention = Attention(dim, num_heads)
        self.norm3 = nn.LayerNorm(dim)
        self.mlp = feed_forward(dim, dim * QUERY_MLP_RATIO)

    def forward(
        self, queries: Tensor, tokens: Tensor, rotation: Rotation | None
    ) -> Tensor:
        """(B, M, F) queries refined by (B, T, F) tokens with their rotation."""
        queries = queries + self.self_attention(self.norm1(queries))
        queries = queries + self.cross_attention.cross(
            self.norm2(queries), tokens, context_rotation=rotation
        )
        return queries + self.mlp(self.norm3(queries))  # type: ignore[no-any-return]


class Mask2FormerDecoder(nn.Module):
    """The paper's Mask2Former decoder, 2D.

    Parameters
    ----------
    config
        Patch (edges that are powers of two), widths, levels, queries and classes are
        used.

    Raises
    ------
    ConfigError
        For three or four axes, and for options of other decoders.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check_ndim(config.ndim, "mask2former", available=(2,))
        check_heads(config, config.decoder_dim, "decoder_dim")
        if config.context_skip or config.level_heads:
            raise ConfigError(
                "The mask2former decoder has neither context_skip nor level_heads; "
                "leave them out, or choose decoder pyramid or unetr.",
                "context_skip" if config.context_skip else "level_heads",
            )
        width, queries = config.decoder_dim, config.num_queries or config.num_classes
        self.layers = skip_layers(config.depth)
        self.position = config.rotary_position
        self.branches = LevelBranches(config, self.layers)
        self.pixels = PixelDecoder(config)
        self.tokens = nn.Sequential(
            Linear(config.embed_dim, width), nn.LayerNorm(width)
        )
        self.queries = nn.Parameter(torch.empty(queries, width))
        nn.init.trunc_normal_(self.queries, std=0.02)
        self.refine = nn.ModuleList(
            QueryLayer(width, config.num_heads) for _ in range(QUERY_LAYERS)
        )
        self.ropes = WorldRope(config, width // config.num_heads, QUERY_LAYERS)
        self.norm = nn.LayerNorm(width)
        self.mask_embedding = nn.Sequential(
            Linear(width, width), nn.ReLU(inplace=True), Linear(width, width)
        )
        self.head = conv(config.ndim, queries, config.num_classes, 3)

    def forward(
        self, x: Tensor, bboxes: Tensor, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Decode.

        Parameters
        ----------
        x
            (B, L, C, *spatial) pixels; this decoder sees them through the tokens only.
        bboxes
            (B, L, 2, N) world boxes, relative to the lower corner of the finest one.
        maps
            (B, L, D, *grid) for each of ``self.layers``.

        Returns
        -------
        tuple of Tensor
            One entry: the finest level's logits (B, K, *spatial).
        """
        fused, _ = self.branches(bboxes, maps)[0]
        features = self.pixels(fused)
        grid = tuple(maps[-1].shape[3:])
        tokens = self.tokens(maps[-1].flatten(3).transpose(2, 3).flatten(1, 2))
        positions = patch_positions(bboxes, grid, self.position).flatten(1, 2)
        rotations = self.ropes(positions)
        queries = self.queries.expand(len(x), -1, -1)
        for layer, rotation in zip(self.refine, rotations, strict=True):
            queries = layer(queries, tokens, rotation)
        embedded = self.mask_embedding(self.norm(queries))
        masks = (embedded @ features.flatten(2)).unflatten(2, features.shape[2:])
        return (self.head(masks),)
