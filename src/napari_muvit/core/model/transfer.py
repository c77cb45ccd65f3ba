"""Weights of one model as the start of another.

Reference: MuViT (arXiv 2602.24222), section 3.4 and supplement A.3: a segmenter starts
from a pretrained encoder, of which it may use some of the levels.

Shapes: K classes, L levels, D token width.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..config import ModelConfig
from ..errors import CheckpointError
from .encoder import select_levels
from .kinds import MAE, SEGMENTER
from .load_report import (
    ENCODER_PREFIX,
    LoadReport,
    describe_parts,
    describe_source,
    differences,
    factors,
)
from .mae import MuViTMAE
from .segmenter import MuViTSegmenter
from .source import ModelSource, Source, open_source

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LoadReport", "load_encoder_into", "load_matching", "take_over"]

Rows = Sequence[tuple[int, int]]
"""Index of a class in the new model and in the earlier one."""


def load_encoder_into(segmenter: MuViTSegmenter, source: ModelSource) -> LoadReport:
    """Give a segmenter a pretrained encoder, all of it.

    Parameters
    ----------
    segmenter
        Changed in place; its decoder stays as it is.
    source
        A model or a folder of any kind. It may have more levels.

    Raises
    ------
    CheckpointError
        If the two encoders differ in more than their levels, or the source lacks a
        level.
    """
    opened = open_source(source)
    ours, theirs = segmenter.config, opened.config
    _check_axes(opened, ours)
    wrong = differences(theirs, ours)
    if wrong:
        raise CheckpointError(
            f"The encoder of {opened.name} does not fit: {'; '.join(wrong)}. Choose "
            "another encoder, or build the model to fit."
        )
    missing = [f for f in ours.scale_factors if f not in theirs.scale_factors]
    if missing:
        raise CheckpointError(
            f"{opened.name} has the levels {factors(theirs.scale_factors)}, this model "
            f"needs {factors(ours.scale_factors)}."
        )
    encoder = {
        name: value
        for name, value in opened.weights.items()
        if name.startswith(ENCODER_PREFIX)
    }
    return take_over(segmenter, dataclasses.replace(opened, weights=encoder))


def load_matching(model: MuViTSegmenter | MuViTMAE, source: ModelSource) -> LoadReport:
    """Take over every parameter of a model or a folder that fits; see `take_over`."""
    return take_over(model, open_source(source))


def take_over(model: MuViTSegmenter | MuViTMAE, source: Source) -> LoadReport:
    """Take over every parameter that fits by name, shape and meaning.

    Levels go by their scale factor: a level that the source lacks takes the weights of
    the nearest one, because any trained patch embedding is a better start than none.
    Classes go by their name. A decoder of another kind or patch is new, and so are
    patch embeddings of other channels and attention with another number of heads.

    Parameters
    ----------
    model
        Changed in place, only where the source fits.
    source
        See `open_source`.

    Raises
    ------
    CheckpointError
        If no matrix fits, or the two differ in their spatial axes.
    """
    ours, own = model.config, model.state_dict()
    kind = MAE if isinstance(model, MuViTMAE) else SEGMENTER
    _check_axes(source, ours)
    nearest = _nearest(source.config.scale_factors, ours.scale_factors)
    offered = _by_level(_comparable(source, ours, kind), nearest)
    same = source.kind == kind == SEGMENTER
    rows = _shared_rows(source.config.names, ours.names) if same else []
    heads = _merged_heads(own, offered, rows)
    taken = {
        name: value
        for name, value in offered.items()
        if name in own and own[name].shape == value.shape
        if kind == MAE or ".head." not in name
    }
    # Counters of a batch norm, RoPE frequencies and biases fit networks of other sizes.
    if not any(value.ndim > 1 for value in taken.values()):
        _refuse(source, ours, kind)
    model.load_state_dict({**taken, **heads}, strict=False)
    whole = len(rows) == len(ours.names)
    report = LoadReport(
        taken=(*taken, *(heads if whole else ())),
        fresh=tuple(n for n in own if n not in taken and n not in heads),
        mixed=() if whole else tuple(heads),
        source=describe_source(source),
        levels=tuple(
            (factor, source.config.scale_factors[k])
            for factor, k in zip(ours.scale_factors, nearest, strict=True)
        ),
    )
    if same:
        report = _with_classes(report, source.config, ours, rows if heads else [])
    parts = describe_parts(source, ours, kind, report)
    return dataclasses.replace(report, parts=parts)


def _check_axes(source: Source, ours: ModelConfig) -> None:
    if source.config.ndim != ours.ndim:
        raise CheckpointError(
            f"{source.name} has {source.config.ndim} spatial axes, the new model "
            f"{ours.ndim}; start from a model of as many axes."
        )


def _refuse(source: Source, ours: ModelConfig, kind: str) -> None:
    wrong = differences(source.config, ours)
    if source.kind == kind == SEGMENTER and source.config.decoder != ours.decoder:
        wrong.append(f"decoder {source.config.decoder} there and {ours.decoder} here")
    raise CheckpointError(
        f"No parameter of {source.name} fits the new model: "
        f"{'; '.join(wrong) or 'its widths differ'}. Leave out the preset or the "
        "settings that differ, or start from another model or from nothing."
    )


def _comparable(source: Source, ours: ModelConfig, kind: str) -> dict[str, Tensor]:
    """Weights of a source that mean the same in the new model if they fit it."""
    theirs, weights = source.config, dict(source.weights)

    def drop(pattern: str) -> None:
        for name in [n for n in weights if re.search(pattern, n)]:
            del weights[name]

    same_pixels = (theirs.in_channels, theirs.patch) == (ours.in_channels, ours.patch)
    if source.kind != kind:
        drop(f"^(?!{re.escape(ENCODER_PREFIX)})")
    if theirs.num_heads != ours.num_heads:
        drop(r"attention\.")
    if not same_pixels:
        # As many numbers may be other pixels: 4 channels of 4 x 4, or one of 8 x 8.
        drop(r"^encoder\.patch_embeddings\.")
        drop(r"^head\.")
    if kind == SEGMENTER and (theirs.decoder, theirs.patch) != (
        ours.decoder,
        ours.patch,
    ):
        drop(r"^decoder\.")
    return weights


def _nearest(theirs: Sequence[float], ours: Sequence[float]) -> list[int]:
    """For each of our levels, the index of theirs that is nearest."""
    return [
        min(range(len(theirs)), key=lambda k: abs(math.log(factor / theirs[k])))
        for factor in ours
    ]


_LEVEL = re.compile(r"(decoders\.|decoder\.(?:levels|branches\.branches)\.)(\d+)(\..*)")
"""A weight of one level's decoder or branch."""
_STACKED = ("encoder.level_embedding", "mask_tokens")
"""(L, D): a row a level."""


def _by_level(
    weights: Mapping[str, Tensor], nearest: Sequence[int]
) -> dict[str, Tensor]:
    """Rearrange the weights of levels; all other names are left.

    Parameters
    ----------
    weights
        Of a segmenter or an autoencoder.
    nearest
        For each level of the new model, the index of the level to take.
    """
    inside, found = {}, {}
    for name, value in weights.items():
        match = _LEVEL.fullmatch(name)
        if name in _STACKED:
            found[name] = value[list(nearest)]
        elif name.startswith(ENCODER_PREFIX):
            inside[name.removeprefix(ENCODER_PREFIX)] = value
        elif match is None:
            found[name] = value
        else:
            for level, source in enumerate(nearest):
                if source == int(match[2]):
                    found[f"{match[1]}{level}{match[3]}"] = value
    for level, source in enumerate(nearest):
        for name, value in select_levels(inside, [source]).items():
            ours = name.replace("embeddings.0.", f"embeddings.{level}.")
            found[ENCODER_PREFIX + ours] = value
    return found


def _shared_rows(theirs: Sequence[str], ours: Sequence[str]) -> Rows:
    """Classes of the same name, upper and lower case alike."""
    places = {name.strip().lower(): k for k, name in enumerate(theirs)}
    names = [name.strip().lower() for name in ours]
    return [(k, places[name]) for k, name in enumerate(names) if name in places]


def _merged_heads(
    own: Mapping[str, Tensor], offered: Mapping[str, Tensor], rows: Rows
) -> dict[str, Tensor]:
    """Our heads with the rows of shared classes from theirs, (K, ...) each.

    All decoders end in a convolution to the classes, so a class is a row of its weight
    and of its bias. A head whose rows are of another shape is left out.
    """

    def fits(weight: str) -> bool:
        theirs = offered.get(weight)
        return theirs is not None and theirs.shape[1:] == own[weight].shape[1:]

    merged = {}
    for name, value in own.items():
        weight = f"{name.rpartition('.')[0]}.weight"
        if rows and ".head." in name and fits(weight):
            merged[name] = value.clone()
            for mine, other in rows:
                merged[name][mine] = offered[name][other].to(value)
    return merged


def _with_classes(
    report: LoadReport, theirs: ModelConfig, ours: ModelConfig, rows: Rows
) -> LoadReport:
    """Add which classes go on; ``rows`` are those whose heads were taken."""
    kept, known = {mine for mine, _ in rows}, _shared_rows(ours.names, theirs.names)
    return dataclasses.replace(
        report,
        kept_classes=tuple(n for k, n in enumerate(ours.names) if k in kept),
        new_classes=tuple(n for k, n in enumerate(ours.names) if k not in kept),
        lost_classes=tuple(
            n for k, n in enumerate(theirs.names) if k not in {i for i, _ in known}
        ),
    )
