"""The coarse levels of a nested crop, computed once for all fine crops inside it.

Reference: ours, not the paper's (MuViT, arXiv 2602.24222, lets all levels see each
other). With ``coarse_to_fine`` and ``within_level`` attention a coarse level's tokens,
and with the pyramid and the UNETR decoder its features, do not depend on the fine crop.
So they are kept: each layer's keys and values, if fine tokens see them, and what the
next coarser level hands to the decoder of the finest. A fine crop then costs what a
model of the fine level alone costs, and a look at the kept tokens.

Shapes: B batch, L levels, M = L - 1 coarser levels, C channels, N spatial axes,
S tokens of the coarser levels, T tokens of the fine level, H heads, E head width,
D token width, W decoder width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from .mask2former import Mask2FormerDecoder
from .patches import grid_of, patchify
from .reach import reach_of_levels
from .rope import patch_positions, relative_to_origin
from .world import PlacedMaps

if TYPE_CHECKING:
    from .encoder import MuViTEncoder
    from .pyramid_decoder import PyramidDecoder
    from .segmenter import MuViTSegmenter
    from .transformer import Block
    from .unetr import UNETRDecoder


@dataclass(frozen=True, eq=False, slots=True)
class SharedContext:
    """What the coarser levels of B nested crops say to fine crops inside them."""

    origin: Tensor
    """(B, N) lower corner of the coarsest box, world pixels, as it was given."""
    boxes: Tensor
    """(B, M, 2, N) boxes of the coarser levels from there, float32."""
    keys: tuple[Tensor, ...]
    """(B, S, H, E) of each layer, rotated; none where fine tokens see no others."""
    values: tuple[Tensor, ...]
    """(B, S, H, E) of each layer, or none."""
    handed: tuple[Tensor, ...]
    """(B, W, *grid) that the decoder of the next coarser level hands to the finest."""
    logits: tuple[Tensor, ...]
    """(B, K, *spatial) of the coarser levels that have heads, finest of them first."""

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        parts = [self.boxes, *self.keys, *self.values, *self.handed, *self.logits]
        return sum(part.nbytes for part in parts)


def compute_context(model: MuViTSegmenter, x: Tensor, bboxes: Tensor) -> SharedContext:
    """Compute what the coarser levels say.

    Parameters
    ----------
    model
        Its configuration ``shares_context``; in evaluation mode.
    x
        (B, M, C, *spatial) normalised pixels of the coarser levels, finest first; or
        of the coarsest ones of them alone, which depend on no other.
    bboxes
        (B, M, 2, N) their world boxes.

    Raises
    ------
    ConfigError
        If the model's coarse levels depend on the fine crop.
    """
    decoder = _decoder(model)
    encoder, config = model.encoder, model.config
    grid = grid_of(x, config.patch)
    local = relative_to_origin(bboxes, "coarse_to_fine")
    first = len(config.scale_factors) - x.shape[1]
    tokens = _embedded(encoder, x, first)
    positions = patch_positions(local, grid, config.rotary_position).flatten(1, 2)
    count = tokens.shape[1] // x.shape[1]
    reach = reach_of_levels(config.attention, [count] * x.shape[1])
    keys, values, maps = [], [], []
    for layer, (block, rotation) in enumerate(
        zip(_blocks(encoder), encoder.ropes(positions), strict=True)
    ):
        query, key, value = block.attention.project(block.norm1(tokens), rotation)
        if config.attention == "coarse_to_fine":
            keys.append(key)
            values.append(value)
        tokens = block.finish(tokens, block.attention.mix(query, key, value, reach))
        if layer in decoder.layers:
            levels = tokens.unflatten(1, (x.shape[1], count)).transpose(2, 3)
            maps.append(levels.unflatten(3, grid))
    handed, logits = decoder.coarse(x, local, maps, first)
    return SharedContext(
        bboxes[:, -1, 0], local, tuple(keys), tuple(values), handed, tuple(logits)
    )


def segment_within(
    model: MuViTSegmenter, x: Tensor, bboxes: Tensor, contexts: Sequence[SharedContext]
) -> Tensor:
    """Segment fine crops inside contexts that are there already.

    Parameters
    ----------
    model
        The one that made the contexts, in evaluation mode.
    x
        (B, C, *spatial) normalised pixels of the finest level.
    bboxes
        (B, 2, N) their world boxes, in the coordinates of the contexts' boxes.
    contexts
        One a crop, each of a batch of one.

    Returns
    -------
    Tensor
        (B, K, *spatial) logits: those of the whole model on the same nested crops, but
        for rounding.
    """
    decoder = _decoder(model)
    encoder, config = model.encoder, model.config
    grid = grid_of(x[:, None], config.patch)
    origin = torch.cat([c.origin for c in contexts])
    local = (bboxes - origin[:, None]).float()
    tokens = _embedded(encoder, x[:, None], first=0)
    positions = patch_positions(local[:, None], grid, config.rotary_position)
    rotations = encoder.ropes(positions.flatten(1, 2))
    maps = []
    for layer, (block, rotation) in enumerate(
        zip(_blocks(encoder), rotations, strict=True)
    ):
        query, key, value = block.attention.project(block.norm1(tokens), rotation)
        if config.attention == "coarse_to_fine":
            key = torch.cat((key, torch.cat([c.keys[layer] for c in contexts])), dim=1)
            value = torch.cat(
                (value, torch.cat([c.values[layer] for c in contexts])), dim=1
            )
        tokens = block.finish(tokens, block.attention.mix(query, key, value, None))
        if layer in decoder.layers:
            maps.append(tokens.transpose(1, 2).unflatten(2, grid))
    source = torch.cat([c.boxes[:, 0] for c in contexts])
    placed = PlacedMaps([c.handed for c in contexts], source, local)
    return decoder.finest(x, maps, placed)


def _embedded(encoder: MuViTEncoder, x: Tensor, first: int) -> Tensor:
    """(B, levels * n, D) tokens of some of the levels, from ``first`` on."""
    patches = patchify(x, encoder.config.patch)
    embedded = []
    for place in range(x.shape[1]):
        tokens = encoder.patch_embeddings[first + place](patches[:, place])
        if encoder.level_embedding is not None:
            tokens = tokens + encoder.level_embedding[first + place]
        embedded.append(tokens)
    return torch.cat(embedded, dim=1)


def _blocks(encoder: MuViTEncoder) -> Iterator[Block]:
    """Its layers, as what they are to the type checker."""
    return (cast("Block", block) for block in encoder.blocks)


def _decoder(model: MuViTSegmenter) -> PyramidDecoder | UNETRDecoder:
    decoder, config = model.decoder, model.config
    if not config.shares_context or isinstance(decoder, Mask2FormerDecoder):
        raise ConfigError(
            "Context can be shared by models with coarse_to_fine or within_level "
            "attention, the pyramid or UNETR decoder and true boxes; this one has "
            f"{config.attention}, {config.decoder} and {config.boxes} boxes.",
            "attention",
        )
    return decoder
