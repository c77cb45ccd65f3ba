"""What a model configuration must fulfil; each mistake is one `ConfigError`."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from .checks import finite, require, whole

if TYPE_CHECKING:
    from .config import ModelConfig

_WHOLE = (
    "in_channels", "num_classes", "embed_dim", "depth", "num_heads", "crop_size",
    "decoder_dim", "mae_dim", "mae_depth",
)  # fmt: skip


LARGEST, MOST_LAYERS = 2**16, 1000
"""Beyond any network that fits into a machine; a damaged file may ask for more."""


def check_model(config: ModelConfig) -> None:
    """Raise `ConfigError` for the first field that cannot be."""
    for name in _WHOLE:
        whole(getattr(config, name), 1, name)
        most = MOST_LAYERS if name.endswith("depth") else LARGEST
        require(
            getattr(config, name) <= most,
            f"{name} is {getattr(config, name)}; at most {most} is possible.",
            name,
        )
    for name in ("mlp_ratio", "rotary_base"):
        _positive(getattr(config, name), name)
    require(
        config.num_classes <= 255,
        f"num_classes is {config.num_classes}; labels are uint8, so at most 255.",
        "num_classes",
    )
    require(
        config.ndim in (2, 3, 4), f"ndim is {config.ndim}; 2, 3 or 4 is needed.", "ndim"
    )
    _check_scales(config)
    _check_patch(config)
    _check_encoder(config)
    _check_decoder(config)
    require(
        0 < config.mask_ratio < 1,
        f"mask_ratio is {config.mask_ratio}; between 0 and 1 is needed.",
        "mask_ratio",
    )
    _check_classes(config)


def _positive(value: float, name: str) -> None:
    require(
        finite(value) and value > 0,
        f"{name} is {value}; a positive number is needed.",
        name,
    )


def _check_scales(config: ModelConfig) -> None:
    factors = config.scale_factors
    require(
        bool(factors)
        and all(finite(f) and f > 0 for f in factors)
        and all(a < b for a, b in pairwise(factors)),
        f"scale_factors is {factors}; ascending positive numbers are needed, "
        "such as 1,8,32.",
        "scale_factors",
    )
    require(
        config.pixel_size is None
        or (finite(config.pixel_size) and config.pixel_size > 0),
        f"pixel_size is {config.pixel_size}; a positive number of micrometres is "
        "needed, or None.",
        "pixel_size",
    )


def _check_patch(config: ModelConfig) -> None:
    edge = config.patch_size
    edges = edge if isinstance(edge, tuple) else (edge,)
    for value in edges:
        whole(value, 1, "patch_size")
    require(
        not isinstance(edge, tuple) or len(edge) == config.ndim,
        f"patch_size is {edge}; one number is needed, or one for each of the "
        f"{config.ndim} axes.",
        "patch_size",
    )
    require(
        all(config.crop_size % value == 0 for value in edges),
        f"crop_size {config.crop_size} is no multiple of patch_size {edge}.",
        "crop_size",
    )


def _check_encoder(config: ModelConfig) -> None:
    require(
        1 <= config.embed_dim * config.mlp_ratio <= LARGEST,
        f"mlp_ratio {config.mlp_ratio} makes a hidden width of "
        f"{config.embed_dim * config.mlp_ratio:g}; 1 to {LARGEST} is needed.",
        "mlp_ratio",
    )
    check_heads(config, config.embed_dim, "embed_dim")


def check_heads(config: ModelConfig, dim: int, name: str) -> None:
    """Raise `ConfigError` for a token width whose heads cannot be rotated."""
    require(
        dim % config.num_heads == 0,
        f"{name} {dim} is no multiple of num_heads {config.num_heads}.",
        "num_heads" if name == "embed_dim" else name,
    )
    head = dim // config.num_heads
    require(
        config.rotary_mode == "none" or (head % 2 == 0 and head >= 2 * config.ndim),
        f"{name} {dim} makes heads that are {head} wide; RoPE over {config.ndim} axes "
        f"needs an even width of at least {2 * config.ndim}. Choose another {name}.",
        name,
    )


def _check_decoder(config: ModelConfig) -> None:
    queries = config.num_queries
    require(
        queries is None or queries >= config.num_classes,
        f"num_queries is {queries}; at least num_classes ({config.num_classes}) is "
        "needed, or None.",
        "num_queries",
    )
    for width in config.pyramid_channels:
        whole(width, 1, "pyramid_channels")
    require(
        not config.context_skip or len(config.scale_factors) > 1,
        "context_skip needs a coarser level to sample; give at least two "
        "scale_factors, or leave it out.",
        "context_skip",
    )
    if config.decoder == "pyramid":
        _check_pyramid(config)


def _check_pyramid(config: ModelConfig) -> None:
    require(
        config.attention in ("joint", "coarse_to_fine")
        or config.context_skip is not False
        or len(config.scale_factors) == 1,
        f"With attention {config.attention} and no context_skip, nothing of the coarse "
        "levels reaches the finest; allow one of them, or use one level.",
        "context_skip",
    )
    stride, largest = 2 ** (len(config.pyramid_channels) - 1), max(config.patch)
    require(
        stride == largest,
        f"pyramid_channels has {len(config.pyramid_channels)} widths, for strides 1 to "
        f"{stride}; the last stride must be patch_size {largest}.",
        "pyramid_channels",
    )
    require(
        config.pyramid_norm == "batch"
        or all(w % 8 == 0 for w in config.pyramid_channels),
        f"pyramid_channels is {config.pyramid_channels}; the group norm needs "
        "multiples of 8.",
        "pyramid_channels",
    )
    strides = [2**k for k in range(len(config.pyramid_channels))]
    require(
        bool(config.context_strides)
        and all(s in strides for s in config.context_strides),
        f"context_strides is {config.context_strides}; choose at least one of "
        f"{', '.join(map(str, strides))}.",
        "context_strides",
    )


def _check_names(config: ModelConfig) -> None:
    names = config.class_names or ()
    require(
        all(name.strip() for name in names),
        f"class_names {', '.join(names)} holds an empty name.",
        "class_names",
    )
    require(
        all(name.encode("utf-8", "replace").decode() == name for name in names),
        "class_names holds a name that is no valid text; write it in UTF-8.",
        "class_names",
    )
    require(
        len({name.strip().lower() for name in names}) == len(names),
        f"class_names {', '.join(names)} holds a name twice (upper and lower "
        "case are the same).",
        "class_names",
    )


def _check_classes(config: ModelConfig) -> None:
    for name, count in (
        ("class_names", config.num_classes),
        ("class_colors", config.num_classes),
        ("background_value", config.in_channels),
    ):
        value = getattr(config, name)
        require(
            value is None or len(value) == count,
            f"{name} has {len(value or ())} entries; {count} are needed.",
            name,
        )
    _check_names(config)
    wrong = [
        c for c in config.class_colors or () if not re.fullmatch("#[0-9a-fA-F]{6}", c)
    ]
    require(
        not wrong,
        f"class_colors holds {', '.join(wrong)}; #rrggbb is needed.",
        "class_colors",
    )
    require(
        config.background is None or 1 <= config.background <= config.num_classes,
        f"background is {config.background}; a label from 1 to {config.num_classes} is "
        "needed, or None.",
        "background",
    )
