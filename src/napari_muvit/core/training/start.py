"""What a run starts from: a configuration, and weights of an earlier model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..config import ModelConfig
from ..data.annotations import Annotations
from ..data.pyramid import Pyramid
from ..model.checkpoint import ModelHeader
from ..model.kinds import SEGMENTER
from ..model.mae import MuViTMAE
from ..model.segmenter import MuViTSegmenter, build_model
from ..model.source import Model, open_source, read_source_header
from ..model.transfer import LoadReport, take_over
from ..presets import preset
from ..progress import Progress, ProgressFn
from .continued import (
    continued_fields,
    encoder_fields,
    going_on,
    matching_preset,
)
from .prepare import common_pixel_size, model_config_for

__all__ = [
    "Initial",
    "Start",
    "choose_config",
    "choose_mae_config",
    "continued_fields",
    "given_class_names",
    "initial_model",
    "matching_preset",
    "preferred_class_names",
    "reads_zero_as_background",
    "start_header",
    "start_mae",
    "start_segmenter",
]

Start = Model | str | Path | None
"""A model of any kind, a model folder of this or of the authors' package, or None."""

M = TypeVar("M", MuViTSegmenter, MuViTMAE)


@dataclass(frozen=True, eq=False, slots=True)
class Initial(Generic[M]):
    """A model before its first step."""

    model: M
    report: LoadReport | None
    """What was taken over; None: everything is new."""


def start_header(start: Start) -> ModelHeader | None:
    """Return what ``start`` is, without its weights; None for None.

    Raises
    ------
    CheckpointError
        If it is no model or cannot be read.
    """
    return None if start is None else read_source_header(start)


def reads_zero_as_background(model: ModelConfig | str | None, start: Start) -> bool:
    """Whether label files are to be read with 0 as a class."""
    config = _given_config(model, start)
    return config is not None and config.zero_is_background


def given_class_names(
    model: ModelConfig | str | None, start: Start
) -> tuple[str, ...] | None:
    """Names of the classes that were chosen already, in label order."""
    config = _given_config(model, start)
    return None if config is None else config.names


def preferred_class_names(
    model: ModelConfig | str | None, start: Start
) -> tuple[str, ...] | None:
    """Names of the classes of a segmenter to go on from; label files may name others.

    See ``preferred`` of `open_annotations`.
    """
    return None if isinstance(model, ModelConfig) else given_class_names(model, start)


def _given_config(model: ModelConfig | str | None, start: Start) -> ModelConfig | None:
    """The configuration that goes on: as given, else that of a segmenter."""
    if isinstance(model, ModelConfig):
        return model
    if model is not None:
        return None
    header = start_header(start)
    return header.config if header and header.kind == SEGMENTER else None


def choose_config(
    model: ModelConfig | str | None,
    start: Start,
    images: Sequence[Pyramid],
    annotations: Sequence[Annotations],
    *,
    classes: Sequence[str] | None = None,
    zero_is_background: bool | None = None,
    changes: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """Return the configuration of a segmenter: what was asked, ``start``, and the data.

    - From nothing: the preset, completed by the data.
    - From a segmenter: its configuration goes on; with a preset named, only weights.
    - From an autoencoder or an encoder: the encoder is theirs, with or without a preset
      named; the decoder is that of the preset, else of the preset of their size.

    Parameters
    ----------
    model
        A configuration, which wins over ``start``, the name of a preset, or None.
    start
        What is started from.
    images, annotations
        What is to be trained on.
    classes
        Class names in label order. None: those of a segmenter that is gone on from
        where the labels name no others, else as the labels say.
    zero_is_background
        How label files were read. None: as the segmenter that is gone on from.
    changes
        Fields of `ModelConfig` that were asked for; they win.

    Raises
    ------
    ConfigError
        If these cannot go together.
    CheckpointError
        If ``start`` cannot be read.
    """
    wanted = dict(changes or {})
    # Has a parameter of its own below.
    zero = wanted.pop("zero_is_background", zero_is_background)
    if isinstance(model, ModelConfig):
        if zero is not None:
            wanted["zero_is_background"] = zero
        return model_config_for(model, images, annotations, **wanted)
    named = wanted.pop("class_names", None)
    classes = classes or named
    header = start_header(start)
    if header is not None and header.kind == SEGMENTER and model is None:
        return going_on(header.config, images, annotations, classes, zero, wanted)
    name = model or "tiny"
    if header is not None and header.kind != SEGMENTER:
        name = model or matching_preset(header.config)
        wanted = encoder_fields(header.config, name, wanted, images[0].num_channels)
    return model_config_for(
        name,
        images,
        annotations,
        classes=classes,
        zero_is_background=bool(zero),
        **wanted,
    )


def choose_mae_config(
    model: ModelConfig | str | None,
    start: Start,
    images: Sequence[Pyramid],
    *,
    changes: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """Return the configuration of an autoencoder: what was asked, ``start``, the data.

    Parameters and exceptions are those of `choose_config`.
    """
    wanted = dict(changes or {})
    if isinstance(model, ModelConfig):
        return model_config_for(model, images, (), **wanted)
    header = start_header(start)
    name = model or (matching_preset(header.config) if header else "tiny")
    channels = images[0].num_channels
    if header is not None:
        wanted = encoder_fields(header.config, name, wanted, channels)
    values = {
        **preset(name).model,
        "in_channels": channels,
        "pixel_size": common_pixel_size(images),
        **wanted,
    }
    return ModelConfig.from_dict(values)


def initial_model(
    config: ModelConfig, start: Start, on_progress: ProgressFn
) -> MuViTSegmenter:
    """Return the segmenter of `start_segmenter` alone."""
    return start_segmenter(config, start, on_progress).model


def start_segmenter(
    config: ModelConfig, start: Start, on_progress: ProgressFn
) -> Initial[MuViTSegmenter]:
    """Build a segmenter and take over every weight of ``start`` that fits.

    Raises
    ------
    ConfigError
        If there is no such network.
    CheckpointError
        If ``start`` cannot be read, or nothing of it fits.
    """
    return _started(build_model(config), start, on_progress)


def start_mae(
    config: ModelConfig, start: Start, on_progress: ProgressFn
) -> Initial[MuViTMAE]:
    """Build an autoencoder; see `start_segmenter`."""
    return _started(MuViTMAE(config), start, on_progress)


def _started(model: M, start: Start, on_progress: ProgressFn) -> Initial[M]:
    if start is None:
        return Initial(model, None)
    report = take_over(model, open_source(start))
    on_progress(Progress(stage="prepare", done=1, total=1, message=report.summary()))
    return Initial(model, report)
