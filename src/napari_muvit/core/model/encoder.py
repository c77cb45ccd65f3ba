"""MuViT encoder: nested crops of several scales in one token sequence.

Reference: MuViT (arXiv 2602.24222), sections 3.1 and 3.2, Table S1.

Shapes: B batch, L levels, C channels, N spatial axes, P pixels of a patch, g patches
along an axis, n patches a level, T = L * n tokens, V visible tokens, D token width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import ConfigError
from .inputs import check_inputs
from .linear import Linear
from .patches import grid_of, patchify
from .reach import Reach, reach_of_levels, reach_of_tokens
from .rope import WorldRope, patch_positions, relative_to_origin
from .transformer import Block


class MuViTEncoder(nn.Module):
    """Vision transformer over all levels, tied together by world-coordinate RoPE.

    One class for two, three and four spatial axes. Boxes may be nested or disjoint.

    Parameters
    ----------
    config
        The fields on levels, patches, width, RoPE and attention are used.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim, levels = config.embed_dim, len(config.scale_factors)
        pixels = config.in_channels * math.prod(config.patch)
        self.patch_embeddings = nn.ModuleList(
            nn.Sequential(Linear(pixels, dim), nn.LayerNorm(dim)) for _ in range(levels)
        )
        self.level_embedding: nn.Parameter | None = None
        if config.level_embedding:
            self.level_embedding = nn.Parameter(torch.empty(levels, dim))
            nn.init.trunc_normal_(self.level_embedding, std=0.02)
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.ropes = WorldRope(config, config.head_dim, config.depth)

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
        """Tokens of the last layer as maps, (B, L, D, *grid); see `forward`."""
        return self.as_maps(self.forward(x, bboxes), grid_of(x, self.config.patch))

    def as_maps(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """(B, T, D) to (B, L, D, *grid)."""
        levels = len(self.config.scale_factors)
        maps = tokens.unflatten(1, (levels, math.prod(grid))).transpose(2, 3)
        mapped: Tensor = maps.unflatten(3, tuple(grid))
        return mapped

    def intermediate_tokens(
        self, x: Tensor, bboxes: Tensor, layers: Collection[int]
    ) -> list[Tensor]:
        """Tokens (B, T, D) behind each of the given layers (from 0), in layer order."""
        check_inputs(x, bboxes, self.config, next(self.parameters()).dtype)
        grid = grid_of(x, self.config.patch)
        tokens = self.embed(patchify(x, self.config.patch))
        counts = [math.prod(grid)] * len(self.patch_embeddings)
        reach = reach_of_levels(self.config.attention, counts)
        return self._run(tokens, self.positions(bboxes, grid), reach, layers)

    def encode_visible(
        self, patches: Tensor, positions: Tensor, visible: Tensor
    ) -> Tensor:
        """Encode some of the patches alone, for masked autoencoding (section 3.3).

        Parameters
        ----------
        patches
            (B, L, n, P) of all levels.
        positions
            (B, T, N) of all patches; see `positions`.
        visible
            (B, V) indices into the T tokens.

        Returns
        -------
        Tensor
            (B, V, D).
        """
        index = visible[:, :, None]
        tokens = self.embed(patches).take_along_dim(index, dim=1)
        positions = positions.take_along_dim(index, dim=1)
        reach = reach_of_tokens(self.config.attention, visible // patches.shape[2])
        return self._run(tokens, positions, reach, {self.config.depth - 1})[-1]

    def embed(self, patches: Tensor) -> Tensor:
        """(B, L, n, P) pixels to (B, T, D) tokens, before the first layer."""
        embedded = [
            embed(patches[:, level])
            for level, embed in enumerate(self.patch_embeddings)
        ]
        if self.level_embedding is not None:
            embedded = [
                e + v for e, v in zip(embedded, self.level_embedding, strict=True)
            ]
        return torch.cat(embedded, dim=1)

    def positions(self, bboxes: Tensor, grid: Sequence[int]) -> Tensor:
        """Where the tokens are, (B, T, N) world pixels from the sample's origin."""
        local = relative_to_origin(bboxes, self.config.attention)
        return patch_positions(local, grid, self.config.rotary_position).flatten(1, 2)

    def _run(
        self,
        tokens: Tensor,
        positions: Tensor,
        reach: Reach | None,
        layers: Collection[int],
    ) -> list[Tensor]:
        kept = []
        rotations = self.ropes(positions)
        for index, (block, rotation) in enumerate(
            zip(self.blocks, rotations, strict=True)
        ):
            tokens = block(tokens, rotation, reach)
            if index in layers:
                kept.append(tokens)
        return kept

    def extract_levels(self, scale_factors: Sequence[float]) -> MuViTEncoder:
        """Return an encoder of some of the levels, its weights those of this one.

        A pretrained [1, 8, 32, 64] gives its [1, 8] (supplement A.3).

        Raises
        ------
        ConfigError
            If this encoder lacks one of the factors.
        """
        config = restricted(self.config, scale_factors)
        kept = [self.config.scale_factors.index(f) for f in config.scale_factors]
        smaller = MuViTEncoder(config)
        weights = select_levels(self.state_dict(), kept)
        smaller.load_state_dict(weights)
        smaller.requires_grad_(any(p.requires_grad for p in self.parameters()))
        like = next(self.parameters())
        return smaller.to(like.device, like.dtype).train(self.training)


def restricted(config: ModelConfig, scale_factors: Sequence[float]) -> ModelConfig:
    """Return the configuration with some of its levels only.

    Raises
    ------
    ConfigError
        If a factor is not one of the configuration's.
    """
    missing = [f for f in scale_factors if f not in config.scale_factors]
    if missing:
        raise ConfigError(
            f"The levels {', '.join(f'{f:g}' for f in missing)} were asked for; this "
            f"model has {', '.join(f'{f:g}' for f in config.scale_factors)}.",
            "scale_factors",
        )
    # A level that is left alone has nothing to take context from.
    several = len(scale_factors) > 1
    return dataclasses.replace(
        config,
        scale_factors=tuple(sorted(scale_factors)),
        context_skip=several and config.context_skip,
        level_heads=several and config.level_heads,
    )


def select_levels(
    weights: Mapping[str, Tensor], kept: Sequence[int]
) -> dict[str, Tensor]:
    """Weights of an encoder with the levels ``kept`` only, in that order.

    Parameters
    ----------
    weights
        Of an encoder, named as in its ``state_dict``.
    kept
        Indices of levels.
    """
    chosen: dict[str, Tensor] = {}
    for name, value in weights.items():
        parts = name.split(".")
        if parts[0] == "level_embedding":
            chosen[name] = value[list(kept)]
        elif parts[0] != "patch_embeddings":
            chosen[name] = value
        elif int(parts[1]) in kept:
            parts[1] = str(kept.index(int(parts[1])))
            chosen[".".join(parts)] = value
    return chosen
