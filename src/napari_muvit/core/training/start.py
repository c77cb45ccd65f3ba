"""What a run starts from: a configuration, and weights of an earlier model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import ModelConfig
from ..data.annotations import Annotations
from ..data.pyramid import Pyramid
from ..model.checkpoint import read_config
from ..model.segmenter import MuViTSegmenter, build_model
from ..model.transfer import LoadReport, load_matching, take_matching
from ..progress import Progress, ProgressFn
from .prepare import model_config_for

Start = MuViTSegmenter | str | Path | None
"""A model, a model folder, or nothing."""


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


def choose_config(
    model: ModelConfig | str | None,
    start: Start,
    images: Sequence[Pyramid],
    annotations: Sequence[Annotations],
) -> ModelConfig:
    """As given, else that of ``start``, else a preset completed by the data."""
    config = _given_config(model, start)
    if config is not None:
        return config
    name = model if isinstance(model, str) else "tiny"
    return model_config_for(name, images, annotations)


def continued_fields(
    start: ModelConfig, changes: Mapping[str, Any], in_channels: int
) -> dict[str, Any]:
    """Fields of a new model that goes on from ``start`` with some changes.

    What follows from a changed field is left open, so that it is chosen anew: the
    context skip by decoder and levels, the padding by channels, colours by classes.

    Parameters
    ----------
    start
        Configuration of the earlier model.
    changes
        Fields of `ModelConfig` that were asked for; they win.
    in_channels
        Channels of the images.
    """
    keep = {name: getattr(start, name) for name in _CONTINUED}
    if any(
        name in changes and _hashable(changes[name]) != getattr(start, name)
        for name in ("decoder", "scale_factors")
    ):
        del keep["context_skip"], keep["level_heads"]
    if in_channels != start.in_channels:
        del keep["background_value"], keep["normalisation"]
    return {**keep, **changes}


def _hashable(value: Any) -> Any:
    """Lists as tuples, for comparisons."""
    return tuple(value) if isinstance(value, list) else value


_OF_THE_DATA = (
    "in_channels", "num_classes", "num_queries", "class_names", "class_colors",
    "background", "zero_is_background",
)  # fmt: skip
"""Fields that follow from slides and labels, not from the earlier model."""
_CONTINUED = tuple(
    f.name for f in dataclasses.fields(ModelConfig) if f.name not in _OF_THE_DATA
)


def _given_config(model: ModelConfig | str | None, start: Start) -> ModelConfig | None:
    if isinstance(model, ModelConfig):
        return model
    if model is not None or start is None:
        return None
    return start.config if isinstance(start, MuViTSegmenter) else read_config(start)


def initial_model(
    config: ModelConfig, start: Start, on_progress: ProgressFn
) -> MuViTSegmenter:
    """Build the model and take over every weight of ``start`` that fits."""
    segmenter = build_model(config)
    if start is None:
        return segmenter
    report: LoadReport
    if isinstance(start, MuViTSegmenter):
        factors = start.config.scale_factors
        report = take_matching(
            segmenter, start.state_dict(), factors, "the given model"
        )
    else:
        report = load_matching(segmenter, start)
    on_progress(
        Progress(
            stage="prepare",
            done=1,
            total=1,
            message=f"{len(report.taken)} parameters taken over, "
            f"{len(report.fresh)} new.",
        )
    )
    return segmenter
