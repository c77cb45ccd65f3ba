"""What a slide, a model folder or a preset is, for ``napari-muvit info``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core.config import ModelConfig
from .core.errors import ConfigError
from .core.model.checkpoint import is_model_folder, read_header
from .core.model.kinds import SEGMENTER, plain_kind
from .core.presets import PRESETS

if TYPE_CHECKING:
    from .core.data.pyramid import Pyramid

Facts = dict[str, Any]
MOST = 20
"""Longer lists, such as the wells of a plate, are cut short for people."""


def describe_path(path: str | Path, parts: bool = False, **reading: Any) -> Facts:
    """Describe a slide or a model folder in plain JSON types.

    Parameters
    ----------
    path
        Slide or model folder.
    parts
        Also the parameters of each part of a model.
    reading
        Of a slide: more arguments of `open_pyramid`.
    """
    if is_model_folder(path):
        header = read_header(path)
        model = {"path": str(path), **describe_model(header.config)}
        if header.kind != SEGMENTER:
            # An encoder or an autoencoder has neither classes nor this decoder.
            model = {k: v for k, v in model.items() if k not in _SEGMENTER_FACTS}
            model["kind"] = f"model ({plain_kind(header.kind)})"
        if parts:
            model["parts"] = describe_parts(header.config)
        return model
    if parts:
        raise ConfigError(f"--parts counts what models have; {path} is none.")
    from .core.data.open import open_pyramid

    return {"path": str(path), **describe_slide(open_pyramid(path, **reading))}


def describe_slide(image: Pyramid) -> Facts:
    """Describe a slide in plain JSON types; a coarse level is looked at for tissue."""
    from .core.data.level_cache import kept_levels
    from .core.data.tissue import cheap_to_look_at, find_tissue
    from .core.data.zarr_nodes import read_label_info

    contents = image.contents
    facts: Facts = {
        "kind": "slide",
        "store": contents.store,
        "axes": dict(contents.axes),
        "planes": dict(contents.planes),
        "image": contents.image,
        "images": list(contents.images),
        "shape": list(image.shape),
        "channels": image.num_channels,
        "rgb": image.rgb,
        "channel_names": list(image.channel_names),
        "dtype": str(image.dtype),
        "pixel_size": None if image.pixel_size is None else list(image.pixel_size),
        "unit": None if image.pixel_size is None else image.unit,
        "levels": [
            {"shape": list(level.shape), "scale": [round(s, 4) for s in level.scale]}
            for level in image.levels
        ],
    }
    label = read_label_info(contents.place)
    names = label.names
    if not label.is_label and cheap_to_look_at(image):
        tissue = find_tissue(image)
        facts["tissue"] = {
            "share": round(tissue.share, 3), "background": tissue.background
        }  # fmt: skip
    if names:
        facts["classes"] = [f"{value} {name}" for value, name in sorted(names.items())]
    kept = kept_levels(image)
    if kept.nbytes:
        facts["kept_levels"] = {
            "scale_factors": list(kept.scale_factors), "bytes": kept.nbytes
        }  # fmt: skip
    if image.note:
        facts["note"] = image.note
    return facts


def describe_cache() -> Facts:
    """Describe the cache of coarse levels in plain JSON types."""
    from .core.data.cache_folder import CacheFolder
    from .core.data.cache_settings import CacheSettings

    settings = CacheSettings.from_environment()
    entries = CacheFolder(settings).entries()
    return {
        "kind": "cache of coarse levels",
        "path": str(settings.folder),
        "used": settings.enabled,
        "slides": sum(entry.complete for entry in entries),
        "unfinished": sum(not entry.complete for entry in entries),
        "megabytes": round(sum(entry.nbytes for entry in entries) / 1e6, 1),
        "limit_megabytes": round(settings.limit_bytes / 1e6, 1),
    }


def describe_model(config: ModelConfig) -> Facts:
    """Describe a model in plain JSON types."""
    return {
        "kind": "model",
        "channels": config.in_channels,
        "classes": list(config.names),
        "colors": list(config.colors),
        "scale_factors": list(config.scale_factors),
        "crop_size": config.crop_size,
        "fields_of_view": [config.crop_size * f for f in config.scale_factors],
        "pixel_size": config.pixel_size,
        "decoder": config.decoder,
        "attention": config.attention,
        "encoder": f"{config.depth} layers, width {config.embed_dim}",
        "normalisation": config.normalisation,
        "zero_is_background": config.zero_is_background,
    }


def describe_presets(parts: bool = False) -> Facts:
    """Describe the presets: sizes, memory and relative cost.

    Parameters
    ----------
    parts
        Also the parameters of each part, as in the paper's Table S1.
    """
    from .core.model.segmenter import MuViTSegmenter
    from .core.model.summary import segmentation_cost
    from .core.training.memory import estimate_memory

    presets: Facts = {}
    cheapest: float | None = None
    for name, entry in PRESETS.items():
        config = ModelConfig(**entry.model)
        cost = segmentation_cost(config)
        per_pixel = cost.flops / config.crop_size**config.ndim
        cheapest = cheapest or per_pixel
        batch = entry.training["batch_size"]
        ema = bool(entry.training.get("ema"))
        memory = estimate_memory(MuViTSegmenter, config, ema=ema).total(batch)
        presets[name] = {
            "summary": entry.summary,
            "parameters": cost.parameters,
            **{k: v for k, v in describe_model(config).items() if k in _PRESET_FACTS},
            "training_memory_gib": round(memory / 2**30, 1),
            "batch_size": batch,
            "gflops_per_crop": round(cost.flops / 1e9, 1),
            "cost_per_pixel_against_the_first": round(per_pixel / cheapest, 1),
        }
        if parts:
            presets[name]["parts"] = describe_parts(config)
    return {"kind": "presets", "presets": presets}


def describe_parts(config: ModelConfig) -> dict[str, int]:
    """Parameters of each part of a network."""
    from .core.model.summary import parameter_table

    return {row.part: row.parameters for row in parameter_table(config)}


_SEGMENTER_FACTS = ("classes", "colors", "decoder", "zero_is_background")
_PRESET_FACTS = ("scale_factors", "crop_size", "fields_of_view", "decoder", "encoder")


def render(facts: Facts) -> str:
    """Facts as text for people."""
    if facts["kind"] == "presets":
        return "\n\n".join(
            f"{name}: {entry['summary']}\n" + _lines(entry, skip=("summary",))
            for name, entry in facts["presets"].items()
        )
    return f"{facts['path']}: a {facts['kind']}\n" + _lines(
        facts, skip=("path", "kind")
    )


def _lines(facts: Facts, skip: tuple[str, ...]) -> str:
    rows = []
    for key, value in facts.items():
        if key in skip or value in (None, [], "", {}):
            continue
        if key in ("axes", "planes"):
            value = [f"{axis} {number}" for axis, number in value.items()]
        rows.append(f"  {key.replace('_', ' ')}: {_text(value)}")
    return "\n".join(rows)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        if "share" in value:
            kind = value["background"]
            seen = "no background seen" if kind == "none" else f"{kind} background"
            return f"{value['share']:.0%} ({seen})"
        if "bytes" in value:
            levels = ", ".join(f"1/{f:g}" for f in value["scale_factors"])
            return f"{levels} ({value['bytes'] / 1e6:,.1f} MB in the cache)"
        width = max(map(len, value))
        return "".join(f"\n    {k:<{width}} {v:>12,}" for k, v in value.items())
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "; ".join(
            f"{' x '.join(map(str, v['shape']))} (1/{max(v['scale']):g})" for v in value
        )
    if isinstance(value, list):
        more = f" and {len(value) - MOST} more" if len(value) > MOST else ""
        return ", ".join(_short(v) for v in value[:MOST]) + more
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return _short(value)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
