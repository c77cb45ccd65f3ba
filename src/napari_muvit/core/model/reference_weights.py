"""Weights of the authors' package under our names, and back.

The two differ in names, in three orders, and in nothing else:

- their pixels of a patch are ordered (pixel, channel), ours (channel, pixel);
- their rotary pairs are neighbours (2 k, 2 k + 1), ours are halves (k, k + E / 2), so
  the rows of the query and key projections are ordered differently in each head;
- their query, key and value projections are three matrices, ours is one.

Shapes: D token width, H heads, E head width, C channels, P pixels of a patch a channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import ModelConfig
from .rope import axis_widths

_OUT = "attn.to_out.weight"
_BLOCK = {
    _OUT: "attention.out.weight",
    "ff.ff.0.0.weight": "mlp.0.weight",
    "ff.ff.0.0.bias": "mlp.0.bias",
    "ff.ff.2.weight": "mlp.2.weight",
    "ff.ff.2.bias": "mlp.2.bias",
    **{f"norm{n}.{p}": f"norm{n}.{p}" for n in (1, 2) for p in ("weight", "bias")},
}
_PROJECTION = {
    f"proj.{i}.{p}": f"project.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")
}


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack of transformer layers under both names."""

    theirs: str
    """Prefix, with its dot."""
    ours: str
    depth: int
    head_dim: int


def stacks(config: ModelConfig, encoder: str = "encoder.") -> Iterator[Stack]:
    """Return the encoder's stack; ``encoder`` is its prefix on both sides."""
    yield Stack(encoder, encoder, config.depth, config.head_dim)


def decoder_stacks(config: ModelConfig) -> Iterator[Stack]:
    """Return the stacks of the MAE decoders."""
    for level in range(len(config.scale_factors)):
        yield Stack(
            f"decoder.{level}.",
            f"decoders.{level}.",
            config.mae_depth,
            config.mae_dim // config.num_heads,
        )


def encoder_to_ours(
    theirs: Mapping[str, Tensor], config: ModelConfig, prefix: str
) -> dict[str, Tensor]:
    """Weights of the encoder, named ``prefix`` + ours.

    Raises
    ------
    KeyError
        Naming a weight that is missing.
    """
    ours: dict[str, Tensor] = {}
    for level in range(len(config.scale_factors)):
        source, target = f"{prefix}proj.{level}.", f"{prefix}patch_embeddings.{level}."
        for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
            ours[target + name] = theirs[source + name]
        weight = theirs[source + "0.weight"].T
        ours[target + "0.weight"] = _channels_first(weight, config).T
    if config.level_embedding:
        ours[f"{prefix}level_embedding"] = theirs[f"{prefix}level_embed"].flatten(0, 2)
    for stack in stacks(config, prefix):
        ours |= _stack_to_ours(theirs, stack, config)
    return ours


def mae_to_ours(theirs: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Weights of the whole autoencoder under our names; see `encoder_to_ours`."""
    ours = encoder_to_ours(theirs, config, "encoder.")
    for stack in decoder_stacks(config):
        ours |= _stack_to_ours(theirs, stack, config)
        for source, target in _PROJECTION.items():
            ours[stack.ours + target] = theirs[stack.theirs + source]
    ours["mask_tokens"] = theirs["mask_token"][0]
    ours["head.weight"] = _channels_first(theirs["final.weight"], config)
    ours["head.bias"] = _channels_first(theirs["final.bias"], config)
    return ours


def mae_to_theirs(ours: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Weights of the whole autoencoder under the authors' names."""
    theirs: dict[str, Tensor] = {}
    for level in range(len(config.scale_factors)):
        source = f"encoder.patch_embeddings.{level}."
        target = f"encoder.proj.{level}."
        for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
            theirs[target + name] = ours[source + name]
        weight = _channels_last(ours[source + "0.weight"].T, config).T
        theirs[target + "0.weight"] = weight
    if config.level_embedding:
        embedding = ours["encoder.level_embedding"]
        theirs["encoder.level_embed"] = embedding[:, None, None]
    for stack in (*stacks(config), *decoder_stacks(config)):
        theirs |= _stack_to_theirs(ours, stack, config)
    for stack in decoder_stacks(config):
        for target, source in _PROJECTION.items():
            theirs[stack.theirs + target] = ours[stack.ours + source]
    theirs["mask_token"] = ours["mask_tokens"][None]
    theirs["final.weight"] = _channels_last(ours["head.weight"], config)
    theirs["final.bias"] = _channels_last(ours["head.bias"], config)
    return {name: value.contiguous() for name, value in theirs.items()}


def _stack_to_ours(
    theirs: Mapping[str, Tensor], stack: Stack, config: ModelConfig
) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for index in range(stack.depth):
        source, target = (
            f"{stack.theirs}layers.{index}.",
            f"{stack.ours}blocks.{index}.",
        )
        for theirs_name, ours_name in _BLOCK.items():
            if (
                theirs_name == _OUT
                and config.num_heads == 1
                and source + _OUT not in theirs
            ):
                # One head as wide as the tokens goes on as it is.
                ours[target + ours_name] = torch.eye(stack.head_dim)
                continue
            ours[target + ours_name] = theirs[source + theirs_name]
        query, key, value = (theirs[f"{source}attn.to_{part}.weight"] for part in "qkv")
        halves = [_pairs_to_halves(part, stack.head_dim) for part in (query, key)]
        ours[target + "attention.qkv.weight"] = torch.cat((*halves, value))
    for index, place in enumerate(_rope_places(stack, config)):
        parts = [theirs[f"{place}.{axis}.inv_freq"] for axis in range(config.ndim)]
        ours[f"{stack.ours}ropes.{index}.frequencies"] = torch.cat(parts)
    return ours


def _stack_to_theirs(
    ours: Mapping[str, Tensor], stack: Stack, config: ModelConfig
) -> dict[str, Tensor]:
    theirs: dict[str, Tensor] = {}
    for index in range(stack.depth):
        source, target = (
            f"{stack.ours}blocks.{index}.",
            f"{stack.theirs}layers.{index}.",
        )
        for theirs_name, ours_name in _BLOCK.items():
            theirs[target + theirs_name] = ours[source + ours_name]
        query, key, value = ours[source + "attention.qkv.weight"].chunk(3)
        theirs[target + "attn.to_q.weight"] = _halves_to_pairs(query, stack.head_dim)
        theirs[target + "attn.to_k.weight"] = _halves_to_pairs(key, stack.head_dim)
        theirs[target + "attn.to_v.weight"] = value
    widths = [w // 2 for w in axis_widths(stack.head_dim, config.ndim)]
    for index, place in enumerate(_rope_places(stack, config)):
        frequencies = ours[f"{stack.ours}ropes.{index}.frequencies"].split(widths)
        # A module that all layers share is stored with each of them as well.
        shared = [] if config.rotary_mode == "per_layer" else range(stack.depth)
        copies = [f"{stack.theirs}layers.{i}.rotary_pos_embs" for i in shared]
        for where in (place, *copies):
            for axis, part in enumerate(frequencies):
                theirs[f"{where}.{axis}.inv_freq"] = part
    return theirs


def _rope_places(stack: Stack, config: ModelConfig) -> list[str]:
    """Where the authors' package keeps the frequencies of a stack."""
    if config.rotary_mode == "none":
        return []
    if config.rotary_mode == "per_layer":
        return [f"{stack.theirs}layers.{i}.rotary_pos_embs" for i in range(stack.depth)]
    return [f"{stack.theirs}rotary_pos_embs"]


def _swap(weight: Tensor, *sizes: int) -> Tensor:
    """Split the first axis by ``sizes``, swap the last two parts, and join again."""
    last = len(sizes) - 1
    split: Tensor = weight.unflatten(0, sizes)
    return split.transpose(last - 1, last).flatten(0, last)


def _pairs_to_halves(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder the rows (H * E, D) of a query or key projection."""
    return _swap(weight, -1, head_dim // 2, 2)


def _halves_to_pairs(weight: Tensor, head_dim: int) -> Tensor:
    return _swap(weight, -1, 2, head_dim // 2)


def _channels_first(weight: Tensor, config: ModelConfig) -> Tensor:
    """Reorder the first axis from (P, C) to (C, P)."""
    return _swap(weight, math.prod(config.patch), config.in_channels)


def _channels_last(weight: Tensor, config: ModelConfig) -> Tensor:
    return _swap(weight, config.in_channels, math.prod(config.patch))
