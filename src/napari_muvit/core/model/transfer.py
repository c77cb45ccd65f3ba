"""Weights of one model as the start of another.

Reference: MuViT (arXiv 2602.24222), section 3.4 and supplement A.3: a segmenter starts
from a pretrained encoder, of which it may use some of the levels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import ModelConfig
from ..errors import CheckpointError
from .checkpoint import check_numbers, load_model, read_header, read_weights
from .encoder import MuViTEncoder, select_levels
from .segmenter import MuViTSegmenter

if TYPE_CHECKING:
    from torch import Tensor

_ENCODER = "encoder."
_SAME = (
    "in_channels", "ndim", "patch", "embed_dim", "depth", "num_heads", "mlp_ratio",
    "rotary_mode", "rotary_position", "level_embedding",
)  # fmt: skip
"""Properties in which an encoder must agree with the one that it gives its weights."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What of a checkpoint was taken over and what stays new."""

    taken: tuple[str, ...]
    """Parameters that were loaded."""
    fresh: tuple[str, ...]
    """Parameters of the new model that the checkpoint does not have in this shape."""


def load_encoder_into(
    segmenter: MuViTSegmenter, source: MuViTEncoder | str | Path
) -> LoadReport:
    """Give a segmenter a pretrained encoder, all of it.

    Parameters
    ----------
    segmenter
        Changed in place; its decoder stays as it is.
    source
        An encoder, or a model folder of any kind. It may have more levels.

    Raises
    ------
    CheckpointError
        If the two encoders differ in more than their levels, or the source lacks a
        level.
    """
    name = "the given encoder" if isinstance(source, MuViTEncoder) else str(source)
    if not isinstance(source, MuViTEncoder):
        source = load_model(source, MuViTEncoder)
    ours, theirs = segmenter.config, source.config
    for field in _SAME:
        need, have = getattr(ours, field), getattr(theirs, field)
        if need != have:
            raise CheckpointError(
                f"{name} has {field} {have}, this model needs {need}. Choose another "
                "encoder, or build the model to fit."
            )
    missing = [f for f in ours.scale_factors if f not in theirs.scale_factors]
    if missing:
        raise CheckpointError(
            f"{name} has the levels {_factors(theirs)}, this model needs "
            f"{_factors(ours)}."
        )
    kept = [theirs.scale_factors.index(f) for f in ours.scale_factors]
    weights = select_levels(source.state_dict(), kept)
    segmenter.encoder.load_state_dict(weights)
    taken = tuple(_ENCODER + k for k in weights)
    fresh = tuple(k for k in segmenter.state_dict() if k not in taken)
    return LoadReport(taken, fresh)


def _factors(config: ModelConfig) -> str:
    return ", ".join(f"{f:g}" for f in config.scale_factors)


def load_matching(model: MuViTSegmenter, path: str | Path) -> LoadReport:
    """Take over every parameter of a model folder that fits; see `take_matching`."""
    header = read_header(path)
    weights = read_weights(path)
    check_numbers(Path(path), weights)
    theirs, ours = header.config, model.config
    if theirs.num_heads != ours.num_heads:
        # The same numbers would mean something else.
        weights = {k: v for k, v in weights.items() if ".attention." not in k}
    if theirs.names != ours.names:
        weights = {k: v for k, v in weights.items() if ".head." not in k}
    if header.kind == MuViTEncoder.__name__:
        weights = {_ENCODER + name: value for name, value in weights.items()}
    return take_matching(model, weights, header.config.scale_factors, str(path))


def take_matching(
    model: MuViTSegmenter,
    weights: Mapping[str, Tensor],
    scale_factors: Sequence[float],
    source: str,
) -> LoadReport:
    """Take over every parameter that fits by name and shape, levels by their factor.

    Parameters
    ----------
    model
        Changed in place.
    weights
        Named as in a segmenter's ``state_dict``.
    scale_factors
        Levels of the model that the weights are of.
    source
        Names where they came from.

    Raises
    ------
    CheckpointError
        If none fits.
    """
    own = model.state_dict()
    offered = _encoder_levels(weights, scale_factors, model.config.scale_factors)
    taken = {k: v for k, v in offered.items() if k in own and own[k].shape == v.shape}
    # Numbers alone, such as the counter of a batch norm, fit anything.
    if not any(v.ndim for v in taken.values()):
        raise CheckpointError(
            f"No parameter of {source} fits the new model; its preset, levels or patch "
            "size differ. Start from a model of the same preset, or from nothing."
        )
    model.load_state_dict(taken, strict=False)
    fresh = tuple(k for k in own if k not in taken)
    return LoadReport(tuple(taken), fresh)


def _encoder_levels(
    weights: Mapping[str, Tensor], theirs: Sequence[float], ours: Sequence[float]
) -> dict[str, Tensor]:
    """Rearrange the weights of levels for other levels; all other names are left.

    A level takes the weights of the same factor, else of the nearest one: any trained
    patch embedding is a better start than none.
    """
    nearest = [
        min(range(len(theirs)), key=lambda s: abs(math.log(factor / theirs[s])))
        for factor in ours
    ]
    inside = {
        name.removeprefix(_ENCODER): value
        for name, value in weights.items()
        if name.startswith(_ENCODER)
    }
    found = _decoder_levels(weights, nearest)
    for level, source in enumerate(nearest):
        one = select_levels(inside, [source])
        for name, value in one.items():
            ours_name = name.replace("embeddings.0.", f"embeddings.{level}.")
            found[_ENCODER + ours_name] = value
    if "level_embedding" in inside:
        found[f"{_ENCODER}level_embedding"] = inside["level_embedding"][nearest]
    return found


_LEVEL = re.compile(r"(decoder\.(?:levels|branches\.branches)\.)(\d+)(\..*)")
"""A weight of one level's decoder or branch."""


def _decoder_levels(
    weights: Mapping[str, Tensor], nearest: Sequence[int]
) -> dict[str, Tensor]:
    """All but the encoder's weights, a decoder's levels by the nearest of theirs."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.startswith(_ENCODER):
            continue
        match = _LEVEL.fullmatch(name)
        if match is None:
            found[name] = value
            continue
        for level, source in enumerate(nearest):
            if source == int(match[2]):
                found[f"{match[1]}{level}{match[3]}"] = value
    return found
