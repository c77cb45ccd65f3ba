"""MuViT encoder: nested crops of several scales in one token sequence.

Reference: MuViT (arXiv 2602.24222), sections 3.1 and 3.2, Table S1.

Shapes: B batch, L levels, C channels, N spatial axes, P patch edge, g patches along
an axis, n = g ** N patches a level, T = L * n tokens, D token width.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import ConfigError
from .rope import AxialRope, patch_centres, relative_to_origin
from .transformer import Block, Rotation


def patchify(x: Tensor, patch_size: int) -> Tensor:
    """(B, L, C, g*P, ...) to (B, L, n, C * P ** N), patches in row-major order."""
    ndim = x.ndim - 3
    grid = [s // patch_size for s in x.shape[3:]]
    split = x.reshape(*x.shape[:3], *(v for g in grid for v in (g, patch_size)))
    grid_axes = [3 + 2 * a for a in range(ndim)]
    pixel_axes = [4 + 2 * a for a in range(ndim)]
    ordered = split.permute(0, 1, *grid_axes, 2, *pixel_axes)
    return ordered.reshape(x.shape[0], x.shape[1], math.prod(grid), -1)


class MuViTEncoder(nn.Module):
    """Vision transformer over all levels, tied together by world-coordinate RoPE.

    Parameters
    ----------
    config
        The fields on levels, patches, width and RoPE are used.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim, levels = config.embed_dim, len(config.scale_factors)
        pixels = config.in_channels * config.patch_size**config.ndim
        self.patch_embeddings = nn.ModuleList(
            nn.Sequential(nn.Linear(pixels, dim), nn.LayerNorm(dim))
            for _ in range(levels)
        )
        self.level_embedding = nn.Parameter(torch.empty(levels, dim))
        nn.init.trunc_normal_(self.level_embedding, std=0.02)
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.ropes = nn.ModuleList(self._make_ropes(config))

    @staticmethod
    def _make_ropes(config: ModelConfig) -> list[AxialRope]:
        counts = {"none": 0, "fixed": 1, "shared": 1, "per_layer": config.depth}
        return [
            AxialRope(
                config.embed_dim // config.num_heads,
                config.ndim,
                config.rotary_base,
                learnable=config.rotary_mode != "fixed",
            )
            for _ in range(counts[config.rotary_mode])
        ]

    def forward(self, x: Tensor, bboxes: Tensor) -> Tensor:
        """Encode nested crops.

        Parameters
        ----------
        x
            (B, L, C, *spatial) normalised pixels, finest level first.
        bboxes
            (B, L, 2, N) world boxes ((lower...), (upper...)).

        Returns
        -------
        Tensor
            (B, T, D) tokens, finest level first, row-major in a level.

        Raises
        ------
        ConfigError
            If shapes or boxes do not fit the configuration.
        """
        return self.intermediate_tokens(x, bboxes, {self.config.depth - 1})[-1]

    def compute_features(self, x: Tensor, bboxes: Tensor) -> Tensor:
        """Tokens of the last layer as maps, (B, L, D, *grid)."""
        grid = self._grid(x)
        return self.as_maps(self.forward(x, bboxes), grid)

    def as_maps(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """(B, T, D) to (B, L, D, *grid)."""
        levels = len(self.config.scale_factors)
        maps = tokens.unflatten(1, (levels, math.prod(grid))).transpose(2, 3)
        mapped: Tensor = maps.unflatten(3, grid)
        return mapped

    def intermediate_tokens(
        self, x: Tensor, bboxes: Tensor, layers: Collection[int]
    ) -> list[Tensor]:
        """Tokens behind each of the given layers (counted from 0), in layer order."""
        self._check(x, bboxes)
        grid = self._grid(x)
        patches = patchify(x, self.config.patch_size)
        embedded = [
            embed(patches[:, level]) + self.level_embedding[level]
            for level, embed in enumerate(self.patch_embeddings)
        ]
        tokens = torch.cat(embedded, dim=1)
        rotations = self._rotations(bboxes, grid)
        starts = None
        if self.config.attention == "coarse_to_fine":
            starts = [level * math.prod(grid) for level in range(len(embedded))]
        kept = []
        for index, block in enumerate(self.blocks):
            rotation = rotations[min(index, len(rotations) - 1)] if rotations else None
            tokens = block(tokens, rotation, starts)
            if index in layers:
                kept.append(tokens)
        return kept

    def _rotations(self, bboxes: Tensor, grid: tuple[int, ...]) -> list[Rotation]:
        if not len(self.ropes):
            return []
        centres = patch_centres(relative_to_origin(bboxes), grid).flatten(1, 2)
        return [rope(centres) for rope in self.ropes]

    def _grid(self, x: Tensor) -> tuple[int, ...]:
        return tuple(s // self.config.patch_size for s in x.shape[3:])

    def _check(self, x: Tensor, bboxes: Tensor) -> None:
        config = self.config
        levels, ndim = len(config.scale_factors), config.ndim
        if x.ndim != 3 + ndim or tuple(x.shape[1:3]) != (levels, config.in_channels):
            raise ConfigError(
                f"Pixels of shape {tuple(x.shape)} were given; this model reads "
                f"(batch, {levels} levels, {config.in_channels} channels) and "
                f"{ndim} spatial axes."
            )
        if any(s % config.patch_size or s == 0 for s in x.shape[3:]):
            raise ConfigError(
                f"A crop of {tuple(x.shape[3:])} pixels is no multiple of the patch "
                f"edge {config.patch_size}.",
                "crop_size",
            )
        if tuple(bboxes.shape) != (x.shape[0], levels, 2, ndim):
            raise ConfigError(
                f"Boxes of shape {tuple(bboxes.shape)} were given; "
                f"{(x.shape[0], levels, 2, ndim)} is needed: ((lower), (upper)) of "
                "each level of each sample."
            )
        # On an accelerator this check would wait for the device in every step.
        if bboxes.device.type == "cpu" and not bool(
            (torch.isfinite(bboxes).all()) & (bboxes[:, :, 1] > bboxes[:, :, 0]).all()
        ):
            raise ConfigError(
                "A box has edges that are not finite, or a lower edge above its upper "
                "edge."
            )
