"""The coarse levels of a nested crop, computed once for all fine crops inside it.

Reference: ours, not the paper's (MuViT, arXiv 2602.24222, lets all levels see each
other). With ``coarse_to_fine`` attention a coarse level's tokens, and with the pyramid
decoder its features, do not depend on the fine crop. So they are kept: each layer's
keys and values, and the features of the next coarser level. A fine crop then costs what
a model of the fine level alone costs, and a look at the kept tokens.

Shapes: B batch, L levels, M = L - 1 coarser levels, C channels, N spatial axes,
S tokens of the coarser levels, T tokens of the fine level, H heads, E head width,
W decoder width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from .patches import grid_of, patchify
from .pyramid_decoder import Context, LevelDecoder, PyramidDecoder, context_of
from .reach import reach_of_levels
from .rope import patch_positions, relative_to_origin

if TYPE_CHECKING:
    from .encoder import MuViTEncoder
    from .segmenter import MuViTSegmenter
    from .transformer import Block


@dataclass(frozen=True, eq=False, slots=True)
class SharedContext:
    """What the coarser levels of B nested crops say to fine crops inside them."""

    origin: Tensor
    """(B, N) lower corner of the coarsest box, world pixels, as it was given."""
    boxes: Tensor
    """(B, M, 2, N) boxes of the coarser levels from there, float32."""
    keys: tuple[Tensor, ...]
    """(B, S, H, E) of each layer, rotated."""
    values: tuple[Tensor, ...]
    """(B, S, H, E) of each layer."""
    features: Tensor | None
    """(B, W, *spatial) of the next coarser level; None without the context skip."""
    logits: tuple[Tensor, ...]
    """(B, K, *spatial) of the coarser levels that have heads, finest of them first."""

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        parts = [self.boxes, *self.keys, *self.values, *self.logits]
        parts += [] if self.features is None else [self.features]
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
    tokens = _embedded(encoder, x, first=len(config.scale_factors) - x.shape[1])
    positions = patch_positions(local, grid, config.rotary_position).flatten(1, 2)
    count = tokens.shape[1] // x.shape[1]
    reach = reach_of_levels("coarse_to_fine", [count] * x.shape[1])
    keys, values = [], []
    for block, rotation in zip(_blocks(encoder), encoder.ropes(positions), strict=True):
        query, key, value = block.attention.project(block.norm1(tokens), rotation)
        keys.append(key)
        values.append(value)
        tokens = block.finish(tokens, block.attention.mix(query, key, value, reach))
    maps = tokens.unflatten(1, (x.shape[1], count)).transpose(2, 3)
    maps = maps.unflatten(3, grid)
    features, logits = _decode_coarse(decoder, x, local, maps)
    return SharedContext(
        bboxes[:, -1, 0], local, tuple(keys), tuple(values), features, tuple(logits)
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
    for index, (block, rotation) in enumerate(
        zip(_blocks(encoder), rotations, strict=True)
    ):
        query, key, value = block.attention.project(block.norm1(tokens), rotation)
        key = torch.cat((key, torch.cat([c.keys[index] for c in contexts])), dim=1)
        value = torch.cat(
            (value, torch.cat([c.values[index] for c in contexts])), dim=1
        )
        tokens = block.finish(tokens, block.attention.mix(query, key, value, None))
    context: Context | None = None
    if decoder.context_skip:
        features = torch.cat([c.features for c in contexts if c.features is not None])
        source = torch.cat([c.boxes[:, 0] for c in contexts])
        context = context_of(features, source, local)
    maps = tokens.transpose(1, 2).unflatten(2, grid)
    return cast("Tensor", _levels(decoder)[0](x, maps, context)[1])


def _decode_coarse(
    decoder: PyramidDecoder, x: Tensor, local: Tensor, maps: Tensor
) -> tuple[Tensor | None, list[Tensor]]:
    """Features for the finest level, and the coarser levels' logits."""
    logits: list[Tensor] = []
    context: Context | None = None
    features: Tensor | None = None
    first = len(decoder.levels) - x.shape[1]
    for place in reversed(range(x.shape[1] if first > 0 else 0)):
        features, scores = _levels(decoder)[first + place](
            x[:, place], maps[:, place], context
        )
        if scores is not None:
            logits.insert(0, scores)
        if decoder.context_skip and place > 0:
            context = context_of(features, local[:, place], local[:, place - 1])
    return (features if decoder.context_skip else None), logits


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


def _levels(decoder: PyramidDecoder) -> list[LevelDecoder]:
    return [cast("LevelDecoder", level) for level in decoder.levels]


def _decoder(model: MuViTSegmenter) -> PyramidDecoder:
    if not model.config.shares_context or not isinstance(model.decoder, PyramidDecoder):
        raise ConfigError(
            "Context can be shared by models with coarse_to_fine attention, the "
            f"pyramid decoder and true boxes; this one has {model.config.attention}, "
            f"{model.config.decoder} and {model.config.boxes} boxes.",
            "attention",
        )
    return model.decoder
