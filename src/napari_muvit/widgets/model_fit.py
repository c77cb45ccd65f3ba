"""What is wrong between a model and a slide, in words, before anything runs. No Qt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.config import ModelConfig
from ..core.data.pyramid import Pyramid

NOTICED, SERIOUS = 0.10, 0.25
"""Shares by which pixel sizes differ: said, and said with a warning."""


def fit_problems(
    model: ModelConfig, pyramid: Pyramid, names: Sequence[str] = ()
) -> list[str]:
    """Return what does not fit, one sentence each.

    Parameters
    ----------
    model
        That has been trained.
    pyramid
        The slide.
    names
        Classes that the user has listed; empty: none yet.
    """
    found = [
        _channels(model, pyramid),
        _pixel_size(model, pyramid),
        _normalisation(model, pyramid),
        _classes(model, names),
    ]
    return [words for words in found if words]


def _channels(model: ModelConfig, pyramid: Pyramid) -> str:
    needed, there = model.in_channels, pyramid.num_channels
    if needed == there:
        return ""
    one = "channel" if needed == 1 else "channels"
    said = f"The model reads {needed} {one}, but "
    if pyramid.rgb:
        return f"{said}the slide is a colour image. Choose another model."
    return (
        f"{said}{there} {'is' if there == 1 else 'are'} chosen here. Tick {needed} "
        f"{one} above, or choose another model."
    )


def _pixel_size(model: ModelConfig, pyramid: Pyramid) -> str:
    own, size = model.pixel_size, pyramid.pixel_size
    if own is None:
        return ""
    if size is None:
        return (
            f"The model learned at {own:.4g} µm a pixel; that of the slide is unknown, "
            "so it is read as it is. Type its pixel size above."
        )
    mean = sum(size) / len(size)
    apart = max(mean / own, own / mean) - 1
    if apart <= NOTICED:
        return ""
    said = (
        f"The pixels of the slide are {mean:.3g} µm, those that the model learned from "
        f"{own:.3g} µm"
    )
    if apart <= SERIOUS:
        return f"{said}; the slide is read at the model's size."
    detail = " and has less detail than the model expects" if mean > own else ""
    return (
        f"{said}: the slide is read at the model's size{detail}. Check that the pixel "
        "size above is right."
    )


def _normalisation(model: ModelConfig, pyramid: Pyramid) -> str:
    if model.normalisation != "uint8" or pyramid.dtype == np.uint8:
        return ""
    return (
        f"The model divides pixels by 255, but the slide holds {pyramid.dtype}: it "
        "would see something else than it learned. Choose another model, or convert "
        "the slide to 8 bit."
    )


def _classes(model: ModelConfig, names: Sequence[str]) -> str:
    known = {name.strip().lower() for name in model.names}
    listed = {name.strip().lower() for name in names}
    if not names or known == listed:
        return ""
    new = [n for n in names if n.strip().lower() not in known]
    gone = [n for n in model.names if n.strip().lower() not in listed]
    parts = []
    if new:
        parts.append(f"it does not know {', '.join(new)} yet")
    if gone:
        parts.append(f"your list lacks {', '.join(gone)}")
    return (
        f"The classes of the model are not those of your list: {' and '.join(parts)}. "
        "Training makes it learn your list; predicting uses the model's own classes."
    )
