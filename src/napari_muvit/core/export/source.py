"""The label image that is exported: its pixels, classes, size and image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..config import DEFAULT_COLORS
from ..data.open import open_pyramid
from ..data.pyramid import Pyramid
from ..data.units import micrometres
from ..data.zarr_nodes import read_label_info
from ..errors import AnnotationError, ConfigError
from ..prediction.record import PRIVATE, read_classes, read_record
from .runs import Labels

MAX_LABEL = 255
"""Labels are uint8."""


@dataclass(frozen=True, eq=False)
class LabelSource:
    """A label image in a plane."""

    pyramid: Pyramid
    names: Mapping[int, str]
    """Names of labels, where the file has them."""
    colors: Mapping[int, str]
    """Colours of labels, ``#rrggbb``, where the file has them."""
    background: int | None = None
    """Label that is no object unless it is asked for."""
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What a prediction of ours says of itself; empty of another image."""
    notes: tuple[str, ...] = ()
    """What the user should know."""

    @property
    def name(self) -> str:
        """For people and file names."""
        return self.pyramid.name

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels (y, x)."""
        height, width = self.pyramid.shape
        return height, width

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """Edges (y, x) of a pixel in micrometres; None: not known."""
        unit = micrometres(self.pyramid.unit)
        if self.pyramid.pixel_size is None or unit is None:
            return None
        y, x = (float(size) * unit for size in self.pyramid.pixel_size)
        return y, x

    def class_name(self, label: int) -> str:
        """Name of a label, or its number."""
        return self.names.get(label, f"class {label}")

    def color(self, label: int) -> str:
        """Colour of a label, ``#rrggbb``."""
        return self.colors.get(label, DEFAULT_COLORS[(label - 1) % len(DEFAULT_COLORS)])

    def read(self, lower: tuple[int, int], upper: tuple[int, int]) -> Labels:
        """Labels of the pixels [lower, upper), (h, w).

        Raises
        ------
        AnnotationError
            If there is a value that is no label.
        PyramidError
            If they cannot be read.
        """
        block = self.pyramid.levels[0].source.read(lower, upper)[0]
        if block.dtype != np.uint8:
            low, high = int(block.min()), int(block.max())
            if low < 0 or high > MAX_LABEL:
                raise AnnotationError(
                    f"{self.name} holds the value {low if low < 0 else high}; classes "
                    f"are numbers up to {MAX_LABEL}. Is it an image of single objects?"
                )
        return np.ascontiguousarray(block, dtype=np.uint8)

    def chosen(self, classes: Sequence[str] | None) -> frozenset[int]:
        """Labels that are exported.

        Parameters
        ----------
        classes
            Names or numbers; None: all but the background.

        Raises
        ------
        ConfigError
            If there is no such class.
        """
        if classes is None:
            return frozenset(range(1, MAX_LABEL + 1)) - {self.background}
        return frozenset(self._label(text.strip()) for text in classes if text.strip())

    def _label(self, text: str) -> int:
        for label, name in self.names.items():
            if name.lower() == text.lower():
                return label
        digits = text.lower().removeprefix("class").strip()
        if digits.isdecimal() and 1 <= int(digits) <= MAX_LABEL:
            return int(digits)
        known = ", ".join(self.names.values()) or "no names"
        raise ConfigError(
            f"{self.name} has no class {text!r}; choose from {known}, or a number from "
            f"1 to {MAX_LABEL}.",
            "classes",
        )


def open_labels(
    labels: Any,
    *,
    image: str | int | None = None,
    planes: Mapping[str, int] | None = None,
    pixel_size: float | None = None,
) -> LabelSource:
    """Open a prediction, or any label image.

    Parameters
    ----------
    labels
        Anything that `open_pyramid` opens.
    image, planes, pixel_size
        See `open_pyramid`.

    Raises
    ------
    AnnotationError
        If it is no label image in a plane.
    PyramidError
        If it cannot be read.
    """
    pyramid = open_pyramid(
        labels, image=image, planes=planes, pixel_size=pixel_size, as_labels=True
    )
    if pyramid.num_channels != 1 or pyramid.ndim != 2:
        raise AnnotationError(
            f"{pyramid.name} has {pyramid.num_channels} channels and {pyramid.ndim} "
            "spatial axes; a label image in a plane is needed."
        )
    if pyramid.dtype.kind not in "bui":
        raise AnnotationError(
            f"{pyramid.name} holds numbers of type {pyramid.dtype}; a label image "
            "holds whole numbers."
        )
    names, colors, background, record = _classes(pyramid, image)
    notes = [note for note in (pyramid.note, _unfinished(pyramid, record)) if note]
    source = LabelSource(pyramid, names, colors, background, record, tuple(notes))
    if source.pixel_size is None:
        notes.append(
            f"{pyramid.name} does not say the size of its pixels: areas and limits are "
            "in pixels."
        )
    return LabelSource(pyramid, names, colors, background, record, tuple(notes))


def _classes(
    pyramid: Pyramid, image: str | int | None
) -> tuple[dict[int, str], dict[int, str], int | None, Mapping[str, Any]]:
    """Names, colours, background and record, where the file has them."""
    if pyramid.path is None or image is not None:
        # Another image of a file than the one that its record is of.
        inside = Path(pyramid.path or "") / str(image)
        info = read_label_info(inside if inside.is_dir() else pyramid.url)
        named = {k: name for k, name in info.names.items() if k > 0}
        return named, dict(info.colors), _background(named), {}
    record = read_record(pyramid.path) or {}
    names, background = read_classes(pyramid.path)
    named = dict(enumerate(names, start=1))
    info = read_label_info(pyramid.path)
    named = named or {k: name for k, name in info.names.items() if k > 0}
    if background is None:
        background = _background(named)
    return named, dict(info.colors), background, record


def _background(named: Mapping[int, str]) -> int | None:
    """Label of the class of that name."""
    same = (k for k, name in named.items() if name.lower() == "background")
    return next(same, None)


def _unfinished(pyramid: Pyramid, record: Mapping[str, Any]) -> str:
    """Say how much of a prediction is not there yet, or nothing."""
    if not record or pyramid.path is None:
        return ""
    try:
        done = (Path(pyramid.path) / PRIVATE / "done").read_bytes()
    except OSError:
        return ""
    missing = done.count(0)
    if not missing:
        return ""
    return (
        f"{len(done) - missing} of {len(done)} tiles of {pyramid.name} are predicted; "
        "what is not counts as nothing."
    )
