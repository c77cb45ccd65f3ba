"""Where weights come from: a model, or a folder of this or of the authors' package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..config import ModelConfig
from ..errors import CheckpointError
from . import reference
from .checkpoint import (
    CONFIG,
    WEIGHTS,
    ModelHeader,
    check_numbers,
    is_model_folder,
    load_model,
    read_header,
)
from .encoder import MuViTEncoder
from .kinds import ENCODER, MAE, SEGMENTER
from .mae import MuViTMAE
from .segmenter import MuViTSegmenter

Model = MuViTSegmenter | MuViTMAE | MuViTEncoder
ModelSource = Model | str | Path
"""A model, compiled or not, or a model folder of this or of the authors' package."""

_KINDS: Mapping[str, type[Model]] = {
    SEGMENTER: MuViTSegmenter,
    MAE: MuViTMAE,
    ENCODER: MuViTEncoder,
}


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """Weights, and what they are of."""

    name: str
    """Where they come from, for messages."""
    kind: str
    """``MuViTSegmenter``, ``MuViTMAE`` or ``MuViTEncoder``."""
    config: ModelConfig
    weights: Mapping[str, Tensor]
    """Named as in the ``state_dict`` of a segmenter or an autoencoder: those of an
    encoder alone begin with ``encoder.`` as well."""
    of_the_authors: bool = False
    """Whether their package wrote it: it stores neither crops nor how pixels were
    normalised."""


def read_source_header(source: ModelSource) -> ModelHeader:
    """Return what a model or a folder is, without reading weights.

    Raises
    ------
    CheckpointError
        If it is no model, or a folder that cannot be read.
    """
    if not isinstance(source, str | Path):
        model = _plain(source)
        return ModelHeader(_kind_of(model), model.config)
    folder = _checked_folder(source)
    if is_model_folder(folder):
        return read_header(folder)
    return reference.read_reference_header(folder)


def open_source(source: ModelSource) -> Source:
    """Read the weights of a model or a folder, all of them checked.

    Raises
    ------
    CheckpointError
        If it is no model, cannot be read, does not fit its own configuration, or its
        weights are no finite numbers.
    """
    header = read_source_header(source)
    if not isinstance(source, str | Path):
        name, theirs = "the given model", False
        model = _plain(source)
        check_numbers(name, model.state_dict())
    else:
        name, theirs = str(source), not is_model_folder(source)
        model = _load(source, header.kind, theirs)
    weights = model.state_dict()
    if header.kind == ENCODER:
        weights = {f"encoder.{name}": value for name, value in weights.items()}
    return Source(name, header.kind, model.config, weights, theirs)


def _load(folder: str | Path, kind: str, of_the_authors: bool) -> Model:
    if not of_the_authors:
        return load_model(folder, _KINDS[kind])
    if kind == MAE:
        return reference.load_reference_checkpoint(folder)
    return reference.load_reference_encoder(folder)


def _plain(model: Model) -> Model:
    """Return what torch.compile has wrapped."""
    inner: Model = getattr(model, "_orig_mod", model)
    return inner


def _kind_of(model: Model) -> str:
    for name, kind in _KINDS.items():
        if isinstance(model, kind):
            return name
    raise CheckpointError(
        f"A {type(model).__name__} was given to start from; a model folder or one of "
        f"{', '.join(_KINDS)} is needed."
    )


def _checked_folder(source: str | Path) -> Path:
    """Raise `CheckpointError` for what is no folder of either package."""
    # os.path answers where pathlib raises: a folder that may not be entered.
    if not os.path.exists(source):
        raise CheckpointError(
            f"{source} does not exist; give the folder of a model, or start from "
            "nothing."
        )
    if not os.path.isdir(source):
        raise CheckpointError(
            f"{source} is a file; give the folder of the model, which has the weights "
            "and their configuration."
        )
    folder = Path(source)
    if not is_model_folder(folder) and not reference.is_reference_folder(folder):
        raise CheckpointError(
            f"{folder} is no model folder: it has neither {WEIGHTS} and {CONFIG}, as "
            f"this package writes them, nor {reference.WEIGHTS} and "
            f"{reference.CONFIG}, as the authors' does."
        )
    return folder
