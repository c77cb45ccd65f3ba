"""What the pages say about a slide, in words and numbers. No Qt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.config import ModelConfig
from ..core.data.pyramid import Pyramid
from ..core.prediction.begun import BegunPrediction

PREPARING = "Preparing … (longer the first time)"


def place(path: Path) -> str:
    """Return where a result lies, without the long beginning."""
    folder = path.parent
    try:
        return f"in ~/{folder.relative_to(Path.home())}"
    except ValueError:
        return f"in {folder}"


def length(micrometres: float) -> str:
    """Return a length as people write it."""
    if micrometres >= 10_000:
        return f"{micrometres / 10_000:.1f} cm"
    if micrometres >= 1000:
        return f"{micrometres / 1000:.1f} mm"
    if micrometres >= 10:
        return f"{micrometres:.0f} µm"
    return f"{micrometres:.3g} µm"


def size_text(pyramid: Pyramid) -> str:
    """Return width and height in pixels, and in lengths where they are known."""
    height, width = pyramid.shape
    words = f"{width:,} × {height:,} px".replace(",", "\u202f")
    if pyramid.pixel_size is None:
        return words
    dy, dx = pyramid.pixel_size
    return f"{words}  ({length(width * dx)} × {length(height * dy)})"


def pixel_text(pyramid: Pyramid) -> str:
    """Return the pixel size."""
    if pyramid.pixel_size is None:
        return "unknown"
    dy, dx = pyramid.pixel_size
    if abs(dy - dx) <= 1e-3 * dx:
        return f"{dx:.4g} µm"
    return f"{dy:.4g} × {dx:.4g} µm  (y × x)"


def channel_text(pyramid: Pyramid) -> str:
    """Return the channels and the pixel type."""
    count = pyramid.num_channels
    names = "R, G, B" if pyramid.rgb else "1, grey" if count == 1 else f"{count}"
    if pyramid.channel_names and not pyramid.rgb:
        names = ", ".join(pyramid.channel_names[:4])
        names += f" and {count - 4} more" if count > 4 else ""
    return f"{names}  ({pyramid.dtype})"


def level_text(pyramid: Pyramid) -> str:
    """Return the stored levels as factors."""
    return ", ".join(f"{f:g}×" for f in pyramid.scale_factors)


def scale_rows(
    model: Mapping[str, Any], pyramid: Pyramid
) -> list[tuple[str, str, str]]:
    """Return (scale, pixel size, field of view) of each level that the model sees."""
    size = pyramid.pixel_size
    own = model.get("pixel_size")
    pixel = own or (None if size is None else sum(size) / len(size))
    rows = []
    for factor in model["scale_factors"]:
        pixels = model["crop_size"] * factor
        if pixel is None:
            rows.append((f"{factor:g}×", "–", f"{pixels:g} px"))
        else:
            rows.append(
                (f"{factor:g}×", f"{pixel * factor:.3g}", length(pixels * pixel))
            )
    return rows


def problems(model: Mapping[str, Any], pyramid: Pyramid) -> list[str]:
    """Return what the user should know before training, one sentence each."""
    found = [pyramid.note] if pyramid.note else []
    if pyramid.pixel_size is None:
        found.append(
            "The layer has no length unit, so the pixel size is unknown and the model "
            "works in pixels. Type the pixel size above where you know it."
        )
    widest = model["crop_size"] * max(model["scale_factors"])
    # In pixels of the model, as which the slide is read.
    view = pyramid.viewed_at(model.get("pixel_size"))
    shortest = round(min(view.extent.shape))
    if shortest < model["crop_size"]:
        found.append(
            f"The image is only {shortest} px high or wide; the model looks at "
            f"{model['crop_size']} px at a time and pads the rest."
        )
    elif widest > shortest:
        found.append(
            f"The widest view ({widest:g} px) is larger than the image "
            f"({shortest} px); the part outside is padded."
        )
    if len(pyramid.levels) == 1 and min(pyramid.shape) > 8192:
        found.append(
            "The image has one level only; wider views are averaged from it, which "
            "is slow at first. A pyramid (OME-Zarr) is faster."
        )
    size = pyramid.pixel_size
    if size is not None and max(size) > 1.02 * min(size):
        found.append(
            "The pixels are not square; the model treats them as if they were."
        )
    return found


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def legend(model: ModelConfig) -> str:
    """Return the classes of a model with their colours, as rich text."""
    squares = [
        f'<span style="color:{color}">■</span>&nbsp;{name.replace(" ", "&nbsp;")}'
        for name, color in zip(model.names, model.colors, strict=True)
    ]
    return "&nbsp; ".join(squares)


def begun_text(begun: BegunPrediction | None) -> tuple[str, str]:
    """Return what a click on the button does, as a verb and in a sentence."""
    if begun is None or begun.done == 0:
        return "Predict", "What is on screen is computed first; pan and zoom freely."
    if begun.done == begun.total:
        return "Show", f"{begun.path.name} is finished; a click shows it."
    done = f"{begun.done} of {begun.total} tiles are done in {begun.path.name}"
    return "Continue", f"{done}; the others follow."


def training_text(metrics: Mapping[str, float], seconds_left: float | None) -> str:
    """Return the status line of a training."""
    parts = [f"step {metrics['step']:.0f}"] if "step" in metrics else []
    parts += [f"mDSC {metrics['mDSC']:.2f}"] if "mDSC" in metrics else []
    parts += [f"{duration(seconds_left)} left"] if seconds_left is not None else []
    return " · ".join(parts)
