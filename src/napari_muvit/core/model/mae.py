"""MuViT-MAE: masked autoencoding of nested crops.

Reference: MuViT (arXiv 2602.24222), section 3.3, supplement A.2 and Table S1; MAE
(arXiv 2111.06377).

The encoder sees a quarter of the tokens. A small decoder for each level fills in mask
tokens at the hidden places, looks at the visible tokens of all levels by
cross-attention with world RoPE in its first layer, and predicts the pixels of the
hidden patches.

Shapes: B batch, L levels, C channels, N spatial axes, P pixels of a patch, n patches a
level, T = L * n tokens, V visible tokens, D token width, M decoder width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import ConfigError
from ..model_checks import check_heads
from .encoder import MuViTEncoder
from .inputs import check_inputs
from .linear import Linear
from .masking import TokenMask, check_mask, draw_mask
from .patches import grid_of, patchify, unpatchify
from .rope import WorldRope
from .transformer import Block

TARGET_EPSILON = 1e-2
"""Added to a patch's standard deviation when targets are normalised."""


@dataclass(frozen=True, eq=False, slots=True)
class MAEOutput:
    """What a forward pass found."""

    loss: Tensor
    """Scalar: mean squared error over all hidden patches."""
    level_losses: Tensor
    """(L,) the same by level; NaN for a level without a hidden patch."""
    predicted: Tensor
    """(B, L, n, P) of every patch, normalised where the target is."""
    mask: TokenMask
    """What was hidden."""
    crop_losses: Tensor
    """(B, L) the same by crop and level; NaN without a hidden patch."""


@dataclass(frozen=True, eq=False, slots=True)
class Reconstruction:
    """Pictures of each level, all (B, L, C, *spatial)."""

    reconstruction: Tensor
    """The crop, its hidden patches as predicted."""
    masked_input: Tensor
    """The crop, its hidden patches replaced by ``fill``."""
    hidden: Tensor
    """Bool: the pixels of hidden patches."""


class LevelMAEDecoder(nn.Module):
    """The decoder of one level: a projection, then transformer layers.

    Parameters
    ----------
    config
        Widths, heads and RoPE are used.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.mae_dim
        self.project = nn.Sequential(
            Linear(config.embed_dim, dim), nn.GELU(), nn.LayerNorm(dim)
        )
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, config.mlp_ratio)
            for _ in range(config.mae_depth)
        )
        self.ropes = WorldRope(config, dim // config.num_heads, config.mae_depth)

    def forward(
        self, x: Tensor, positions: Tensor, context: Tensor, context_positions: Tensor
    ) -> Tensor:
        """Decode projected tokens.

        Parameters
        ----------
        x
            (B, n, M) of this level.
        positions
            (B, n, N).
        context
            (B, S, M) what the first layer attends to, of all levels.
        context_positions
            (B, S, N).

        Returns
        -------
        Tensor
            (B, n, M).
        """
        rotations = self.ropes(positions)
        context_rotation = self.ropes(context_positions)[0]
        x = cast("Block", self.blocks[0]).cross(
            x, context, rotations[0], context_rotation
        )
        for index in range(1, len(self.blocks)):
            x = self.blocks[index](x, rotations[index])
        return x


class MuViTMAE(nn.Module):
    """Encoder and a decoder for each level.

    Parameters
    ----------
    config
        The fields of the encoder, and those that begin with ``mae_`` or ``mask_``.

    Raises
    ------
    ConfigError
        If the heads do not divide ``mae_dim``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check_heads(config, config.mae_dim, "mae_dim")
        self.config = config
        self.encoder = MuViTEncoder(config)
        levels = len(config.scale_factors)
        self.mask_tokens = nn.Parameter(torch.empty(levels, config.embed_dim))
        nn.init.trunc_normal_(self.mask_tokens, std=0.02)
        self.decoders = nn.ModuleList(LevelMAEDecoder(config) for _ in range(levels))
        pixels = config.in_channels * math.prod(config.patch)
        self.head = Linear(config.mae_dim, pixels)

    def forward(
        self,
        x: Tensor,
        bboxes: Tensor,
        mask: TokenMask | None = None,
        generator: torch.Generator | None = None,
    ) -> MAEOutput:
        """Hide patches and predict them.

        Parameters
        ----------
        x
            (B, L, C, *spatial) normalised pixels, finest level first.
        bboxes
            (B, L, 2, N) world boxes ((lower...), (upper...)).
        mask
            What to hide; None: drawn as the configuration says.
        generator
            Source of the draw, on the device of ``x``.

        Raises
        ------
        ConfigError
            If shapes or boxes do not fit the configuration.
        """
        config = self.config
        check_inputs(x, bboxes, config, self.head.weight.dtype)
        if not len(x):
            raise ConfigError("An empty batch was given; at least one crop is needed.")
        patches = patchify(x, config.patch)
        if mask is None:
            mask = draw_mask(
                *patches.shape[:3], ratio=config.mask_ratio, shares=config.mask_shares,
                generator=generator, device=x.device,
            )  # fmt: skip
        check_mask(mask, len(x), patches.shape[1] * patches.shape[2])
        positions = self.encoder.positions(bboxes, grid_of(x, config.patch))
        encoded = self.encoder.encode_visible(patches, positions, mask.visible)
        predicted = self.head(self._decode(encoded, positions, mask))
        predicted = predicted.unflatten(1, patches.shape[1:3])
        loss, by_level, by_crop = _losses(predicted, self.target(patches), mask)
        return MAEOutput(loss, by_level, predicted, mask, by_crop)

    def _decode(self, encoded: Tensor, positions: Tensor, mask: TokenMask) -> Tensor:
        """(B, V, D) of the encoder to (B, T, M)."""
        levels = len(self.decoders)
        places = positions.unflatten(1, (levels, -1))
        if self.config.mae_context == "all":
            seen, seen_positions = self._with_mask_tokens(encoded, mask), positions
        else:
            index = mask.visible[:, :, None]
            seen, seen_positions = encoded, positions.take_along_dim(index, dim=1)
        decoded = []
        for level, module in enumerate(self.decoders):
            decoder = cast("LevelMAEDecoder", module)
            context = decoder.project(seen)
            if self.config.mae_context == "all":
                own = context.unflatten(1, (levels, -1))[:, level]
            else:
                token = decoder.project(self.mask_tokens[level])
                own = self._canvas(token, context, mask, level)
            decoded.append(decoder(own, places[:, level], context, seen_positions))
        return torch.cat(decoded, dim=1)

    def _with_mask_tokens(self, encoded: Tensor, mask: TokenMask) -> Tensor:
        """(B, V, D) to (B, T, D), each level's mask token at its hidden places."""
        patches = mask.hidden.shape[1] // len(self.mask_tokens)
        canvas = self.mask_tokens.repeat_interleave(patches, dim=0).to(encoded.dtype)
        index = mask.visible[:, :, None].expand_as(encoded)
        return canvas.expand(len(encoded), -1, -1).scatter(1, index, encoded)

    def _canvas(
        self, token: Tensor, context: Tensor, mask: TokenMask, level: int
    ) -> Tensor:
        """Place the projected (B, V, M) of one level among mask tokens, (B, n, M).

        The mask token (M,) was projected once, not at each of its places.
        """
        patches = mask.hidden.shape[1] // len(self.decoders)
        canvas = token.to(context.dtype).expand(len(context), patches + 1, -1)
        place = mask.visible - level * patches
        # Tokens of other levels go to a place behind the last one, which is cut off.
        place = place.where((place >= 0) & (place < patches), patches)
        index = place[:, :, None].expand_as(context)
        return canvas.scatter(1, index, context)[:, :patches]

    def target(self, patches: Tensor) -> Tensor:
        """What is to be predicted of (B, L, n, P) pixels: themselves, or normalised."""
        if not self.config.normalise_target:
            return patches
        mean, spread = _patch_statistics(patches)
        return (patches - mean) / spread

    @torch.no_grad()
    def reconstruct(
        self,
        x: Tensor,
        bboxes: Tensor,
        mask: TokenMask | None = None,
        generator: torch.Generator | None = None,
        fill: float = 0.5,
    ) -> Reconstruction:
        """Return pictures of what was hidden and what was predicted; see `forward`."""
        found = self.forward(x, bboxes, mask, generator)
        patches = patchify(x, self.config.patch)
        predicted = found.predicted.to(patches.dtype)
        if self.config.normalise_target:
            mean, spread = _patch_statistics(patches)
            predicted = predicted * spread + mean
        grid = grid_of(x, self.config.patch)
        hidden = found.mask.hidden.view(*patches.shape[:3], 1).expand_as(patches)
        return Reconstruction(
            *(
                unpatchify(part, grid, self.config.patch)
                for part in (
                    predicted.where(hidden, patches),
                    patches.masked_fill(hidden, fill),
                    hidden,
                )
            )
        )


def _patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each patch of (B, L, n, P), as (B, L, n, 1)."""
    spread, mean = torch.std_mean(patches, dim=-1, keepdim=True)
    return mean, spread + TARGET_EPSILON


def _losses(
    predicted: Tensor, target: Tensor, mask: TokenMask
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean squared error over the hidden patches of (B, L, n, P).

    Of all, by level (L,), and by crop and level (B, L).
    """
    errors = F.mse_loss(predicted.float(), target.float(), reduction="none").mean(-1)
    hidden = mask.hidden.view(errors.shape).to(errors.dtype)
    sums, counts = (errors * hidden).sum(dim=2), hidden.sum(dim=2)
    level_sums, level_counts = sums.sum(dim=0), counts.sum(dim=0)
    return (
        level_sums.sum() / level_counts.sum(),
        level_sums / level_counts,
        (sums / counts).detach(),
    )
