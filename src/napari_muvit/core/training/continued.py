"""Fields of a new model that goes on from an earlier one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import BACKGROUND_COLOR, DEFAULT_COLORS, ModelConfig
from ..data.annotations import Annotations, label_classes
from ..data.pyramid import Pyramid
from ..presets import PRESETS, preset
from .prepare import model_config_for

_OF_THE_DATA = (
    "in_channels", "num_classes", "num_queries", "class_names", "class_colors",
    "background", "zero_is_background",
)  # fmt: skip
"""Fields that follow from slides and labels, not from the earlier model."""
_CONTINUED = tuple(
    f.name for f in dataclasses.fields(ModelConfig) if f.name not in _OF_THE_DATA
)
_OF_THE_DECODER = (
    "decoder", "context_skip", "level_heads", "decoder_dim", "pyramid_channels",
    "pyramid_norm", "context_strides",
)  # fmt: skip
_OF_THE_ENCODER = tuple(name for name in _CONTINUED if name not in _OF_THE_DECODER)
"""What an autoencoder or an encoder gives to a segmenter, its MAE settings too."""


def continued_fields(
    start: ModelConfig, changes: Mapping[str, Any], in_channels: int
) -> dict[str, Any]:
    """Fields of a new model that goes on from the segmenter ``start``, with changes.

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


def encoder_fields(
    start: ModelConfig, preset_name: str, changes: Mapping[str, Any], in_channels: int
) -> dict[str, Any]:
    """Fields of a new model that has the encoder of ``start`` and a new decoder.

    Parameters
    ----------
    start
        Configuration of an autoencoder, an encoder, or a segmenter.
    preset_name
        Whose decoder the new model has; it is made to fit the encoder's patch.
    changes
        Fields of `ModelConfig` that were asked for; they win.
    in_channels
        Channels of the images.
    """
    keep = {name: getattr(start, name) for name in _OF_THE_ENCODER}
    if in_channels != start.in_channels:
        del keep["background_value"], keep["normalisation"]
    if start.pixel_size is None:
        del keep["pixel_size"]  # as the slides say
    fields = {**keep, **changes}
    wanted = {**_decoder_defaults(), **preset(preset_name).model, **fields}
    edge = wanted["patch_size"]
    largest = max(edge) if isinstance(edge, list | tuple) else edge
    if "pyramid_channels" not in changes:
        fields["pyramid_channels"] = fitting_widths(wanted["pyramid_channels"], largest)
    if "decoder_dim" not in changes and wanted["decoder"] == "mask2former":
        # Its queries attend with as many heads as the encoder.
        step = wanted["num_heads"] * 2 * wanted["ndim"]
        fields["decoder_dim"] = math.ceil(wanted["decoder_dim"] / step) * step
    return fields


def _decoder_defaults() -> dict[str, Any]:
    return {
        f.name: f.default
        for f in dataclasses.fields(ModelConfig)
        if f.name in _OF_THE_DECODER
    }


def fitting_widths(widths: Sequence[int], patch: int) -> tuple[int, ...]:
    """Widths of a pyramid decoder at strides 1, 2, ..., ``patch``, out of others.

    The last one stays the last. A patch that is no power of two is left to the checks.
    """
    more = max(1, patch).bit_length() - 1
    last = widths[-1]
    inner = [*widths[:-1], *[last] * more]
    return (*inner[:more], last)


def matching_preset(config: ModelConfig) -> str:
    """Name of the preset whose encoder is of about this size."""
    size = config.depth * config.embed_dim**2

    def distance(name: str) -> float:
        model = ModelConfig.from_dict(PRESETS[name].model)
        return abs(math.log(size / (model.depth * model.embed_dim**2)))

    return min(PRESETS, key=distance)


def going_on(
    start: ModelConfig,
    images: Sequence[Pyramid],
    annotations: Sequence[Annotations],
    classes: Sequence[str] | None,
    zero_is_background: bool | None,
    changes: Mapping[str, Any],
) -> ModelConfig:
    """Return the configuration of a segmenter that goes on from ``start``.

    See `choose_config`.
    """
    zero = (
        start.zero_is_background
        if zero_is_background is None
        else bool(zero_is_background)
    )
    names = tuple(classes or _class_names(start, annotations))
    fields = continued_fields(start, changes, images[0].num_channels)
    if _folded(names) == _folded(start.names):
        names = tuple(classes or start.names)
        fields.setdefault("background", start.background)
        fields.setdefault("class_colors", start.colors)
    else:
        fields.setdefault("background", _background(start, names))
        colors = _colors(start, names, annotations, fields["background"])
        fields.setdefault("class_colors", colors)
    # More of them do no harm, and so they all go on.
    fields.setdefault("num_queries", max(start.num_queries or 0, len(names)))
    return model_config_for(
        "tiny", images, annotations, classes=names, zero_is_background=zero, **fields
    )


def _class_names(
    start: ModelConfig, annotations: Sequence[Annotations]
) -> tuple[str, ...]:
    """Classes of the labels: the start's, as far as these are not others.

    Labels without names are the start's classes by number, and new ones beyond.
    """
    named = next((m.class_names for m in annotations if m.class_names), None)
    if named is not None:
        begins = _folded(start.names)[: len(named)] == _folded(named)
        return start.names if begins else named
    largest = max((label_classes(m).largest for m in annotations), default=0)
    names, taken = list(start.names), set(_folded(start.names))
    for number in range(len(names) + 1, largest + 1):
        name = f"class {number}"
        names.append(f"{name} (new)" if name in taken else name)
    return tuple(names)


def _folded(names: Sequence[str]) -> tuple[str, ...]:
    """Names as they are compared."""
    return tuple(name.strip().lower() for name in names)


def _background(start: ModelConfig, names: Sequence[str]) -> int | None:
    """Label of the start's background among other names; None: by its name."""
    if start.background is None:
        return None
    name = _folded(start.names)[start.background - 1]
    return _folded(names).index(name) + 1 if name in _folded(names) else None


def _colors(
    start: ModelConfig,
    names: Sequence[str],
    annotations: Sequence[Annotations],
    background: int | None,
) -> tuple[str, ...]:
    """Colours as the labels say, else of the start's classes, else of the palette."""
    for marks in annotations:
        same = marks.class_names and _folded(marks.class_names) == _folded(names)
        if same and marks.class_colors and all(marks.class_colors):
            return marks.class_colors
    known = dict(zip(_folded(start.names), start.colors, strict=True))
    if background is None and "background" in _folded(names):
        background = _folded(names).index("background") + 1
    found = [known.get(name) for name in _folded(names)]
    if background is not None and found[background - 1] is None:
        found[background - 1] = BACKGROUND_COLOR
    used = {c for c in found if c}
    free = [c for c in DEFAULT_COLORS if c not in used] or list(DEFAULT_COLORS)
    new = iter(free * len(names))
    return tuple(color or next(new) for color in found)


def _hashable(value: Any) -> Any:
    """Lists as tuples, for comparisons."""
    return tuple(value) if isinstance(value, list) else value
