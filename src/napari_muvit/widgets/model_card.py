"""What is known of a model, as a short text with colours. No Qt."""

from __future__ import annotations

from html import escape

from ..core.config import ModelConfig
from . import describe
from .model_library import KnownModel

MODES = {
    "uint8": "0 to 255",
    "percentile": "percentiles",
    "none": "as stored",
    "auto": "by the slide",
}


def legend(config: ModelConfig) -> str:
    """Return the classes with a square in the colour of each, as HTML."""
    squares = [
        f'<span style="color:{escape(color)}">■</span>&nbsp;'
        f"{escape(name).replace(' ', '&nbsp;')}"
        for name, color in zip(config.names, config.colors, strict=True)
    ]
    return "&nbsp; ".join(squares)


def card(model: KnownModel, *, short: bool = False) -> str:
    """Return what is known of a model, a line a fact, as HTML.

    Parameters
    ----------
    model
        The model.
    short
        Without its slides and the notes of its training.
    """
    facts = [
        ("classes", legend(model.config) if model.segments else model.what),
        *_sight(model.config),
        ("trained", _trained(model)),
    ]
    if model.quality is not None:
        facts.append(("mDSC", f"{model.quality:.2f} on what was held back"))
    if model.slides and not short:
        shown = ", ".join(model.slides[:3])
        more = f" and {len(model.slides) - 3} more" if len(model.slides) > 3 else ""
        facts.append(("slides", escape(shown) + more))
    if not short:
        facts += [("note", escape(note)) for note in model.notes[:3]]
    return "<br>".join(f"<b>{name}</b>&nbsp; {words}" for name, words in facts)


def _sight(config: ModelConfig) -> list[tuple[str, str]]:
    """Scales, pixel size, channels and normalisation."""
    size = config.pixel_size
    views = []
    for factor in config.scale_factors:
        pixels = config.crop_size * factor
        wide = f"{pixels:g} px" if size is None else describe.length(pixels * size)
        views.append(f"{factor:g}× {wide}")
    return [
        ("sees", ", ".join(views)),
        ("pixel size", "unknown" if size is None else f"{size:.4g} µm"),
        ("channels", f"{config.in_channels}, {MODES[config.normalisation]}"),
    ]


def _trained(model: KnownModel) -> str:
    day = f"{model.made:%Y-%m-%d %H:%M}"
    if model.seconds is None:
        return day
    return f"{day}, for {describe.duration(model.seconds)}"
