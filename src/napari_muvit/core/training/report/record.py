"""What is known of a run, as plain numbers and texts: for its report and its plot.

A record goes to JSON and back. It holds no pixels and no weights, so a report can be
written again long after the run.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from .... import __version__
from ...checks import JsonConfig, finite_json
from ...data.sampling import PlainSlide, TrainingSlide
from ...errors import ConfigError

SOFTWARE = ("torch", "lightning", "numpy", "zarr", "tifffile")
"""Packages whose versions a report gives."""
Row = Mapping[str, float]
Counts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideRecord(JsonConfig):
    """A slide that a run has read."""

    name: str
    """For people."""
    path: str = ""
    """File, folder or address; empty for an array in memory."""
    labels: str = ""
    """File of its annotations; empty where there is none."""
    shape: tuple[int, ...] = ()
    """Pixels of its finest level along each spatial axis."""
    channels: int = 1
    """Image channels."""
    pixel_size: tuple[float, ...] | None = None
    """Edge of a pixel of its finest level along each axis; None: unknown."""
    unit: str = "micrometer"
    """Unit of ``pixel_size``."""
    role: Literal["training", "validation"] = "training"
    """What it was used for."""
    annotated: tuple[int, ...] = ()
    """Annotated world pixels of each class, in label order; empty without labels."""

    def __post_init__(self) -> None:
        self.check_types()

    @classmethod
    def of(
        cls,
        slide: TrainingSlide | PlainSlide,
        role: Literal["training", "validation"] = "training",
        labels: str = "",
    ) -> Self:
        """Record a slide that is ready to be sampled.

        Parameters
        ----------
        slide
            With an index of its annotations, or without.
        role
            What it is used for.
        labels
            File of its annotations.
        """
        image = slide.pyramid
        counts = slide.index.counts[1:] if isinstance(slide, TrainingSlide) else ()
        return cls(
            name=image.name,
            path=str(image.path or image.url or ""),
            labels=labels,
            shape=tuple(int(n) for n in image.shape),
            channels=image.num_channels,
            pixel_size=image.pixel_size,
            unit=image.unit,
            role=role,
            annotated=tuple(int(n) for n in counts),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StepLosses(JsonConfig):
    """Training losses, thinned: each point is the mean of a span of steps."""

    step: tuple[int, ...] = ()
    """Last step of each span, ascending."""
    loss: tuple[float, ...] = ()
    """Mean training loss; NaN where no step of the span had a finite one."""
    learning_rate: tuple[float, ...] = ()
    """Rate of the last step of the span; NaN where it is not known."""
    span: int = 1
    """Steps that a point stands for, at most."""

    def __post_init__(self) -> None:
        self.check_types()
        lengths = {len(self.step), len(self.loss), len(self.learning_rate)}
        if len(lengths) != 1:
            raise ConfigError(
                f"{len(self.step)} steps, {len(self.loss)} losses and "
                f"{len(self.learning_rate)} learning rates were given; the same number "
                "of each is needed.",
                "loss",
            )


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything that the report of a run needs."""

    kind: Literal["finetune", "pretrain"]
    """Which task."""
    model: Mapping[str, Any]
    """Settings of the model, as `ModelConfig.to_dict` gives them."""
    training: Mapping[str, Any]
    """Settings of the training, as `TrainingConfig.to_dict` gives them."""
    data: str = ""
    """Fingerprint of slides and annotations; empty: not known."""
    preset: str = ""
    """Preset that the settings began with; empty: the nearest one is found."""
    version: str = __version__
    """Of this package."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Versions of what else matters, see `software_versions`."""
    started: str = ""
    """When the run began, UTC, such as ``2026-01-31 12:00``."""
    device: str = ""
    """What it ran on, in words."""
    command: tuple[str, ...] = ()
    """Arguments of the command, the program's name first; empty: from Python."""
    model_path: str = ""
    """Folder that the model was written to."""
    config_file: str = ""
    """Path of the file of all settings for ``--config``; empty: none was written."""
    slides: tuple[SlideRecord, ...] = ()
    """What was read, training slides first."""
    validation: str = ""
    """A sentence: what the run was validated on."""
    notes: tuple[str, ...] = ()
    """What the user was told about the data."""
    start: str = ""
    """What was taken over from which model; empty: nothing."""
    history: tuple[Row, ...] = ()
    """One row a validation: ``step``, ``seconds``, ``loss``, ``val_loss``, and ``mDSC``
    and ``Dice NAME``, or for pretraining ``error LEVEL`` with the scale factor."""
    losses: StepLosses = field(default_factory=StepLosses)
    """Training losses."""
    best: Row = field(default_factory=dict)
    """The row of the weights that were kept; empty without any validation."""
    confusion: Counts | None = None
    """(K + 1, K + 1) pixels of that validation, true label by predicted label; row 0
    is not annotated."""
    steps: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Wall time, validation included."""
    cpu_seconds: float = 0.0
    """Process CPU time of the same span."""
    stopped: str = ""
    """Why it ended: ``steps``, ``minutes``, ``early`` or ``stopped``."""
    peak_memory: int | None = None
    """Most memory that the run took, bytes; None: not known."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in label order; empty for pretraining."""
        if self.kind == "pretrain":
            return ()
        return tuple(str(name) for name in self.model.get("class_names") or ())

    @property
    def class_colors(self) -> tuple[str, ...]:
        """Colours of the classes, ``#rrggbb``; grey where none is known."""
        found = [str(color) for color in self.model.get("class_colors") or ()]
        missing = len(self.class_names) - len(found)
        return tuple(found[: len(self.class_names)] + ["#808080"] * missing)

    @property
    def background(self) -> int | None:
        """Label that is left out of mDSC."""
        return self.model.get("background")

    @property
    def levels(self) -> tuple[float, ...]:
        """Scale factors, finest first."""
        return tuple(self.model.get("scale_factors") or (1,))

    def slides_of(self, role: str) -> tuple[SlideRecord, ...]:
        """Return the slides of a role."""
        return tuple(slide for slide in self.slides if slide.role == role)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; numbers that JSON does not know become None."""
        content = dataclasses.asdict(self)
        return {name: finite_json(value) for name, value in content.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_dict` gave; None among numbers becomes NaN.

        Raises
        ------
        ConfigError
            If something is missing, unknown, or of another type.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(known))
        missing = [n for n in ("kind", "model", "training") if n not in values]
        if unknown or missing:
            raise ConfigError(
                f"A record of a run has {', '.join(unknown) or 'nothing'} that is not "
                f"known and lacks {', '.join(missing) or 'nothing'}; it may have been "
                "written by another version of napari-muvit.",
                (unknown + missing)[0],
            )
        return cls(**{name: _read(name, value) for name, value in values.items()})


def _row(values: Any) -> dict[str, float]:
    return {str(name): _number(value) for name, value in dict(values).items()}


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, (bool, str)):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _text_mapping(values: Any) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in values.items()}


def _losses(values: Any) -> StepLosses:
    numbers = ("loss", "learning_rate")
    read = {
        name: [_number(v) for v in value] if name in numbers else value
        for name, value in dict(values).items()
    }
    return StepLosses.from_dict(read)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError(f"{values!r} is no list of texts")
    return tuple(_text(value) for value in values)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise TypeError(f"{value!r} is no whole number")
    return int(value)


def _kind(value: Any) -> str:
    if value not in ("finetune", "pretrain"):
        raise ValueError(f"{value!r} is neither finetune nor pretrain")
    return str(value)


def _counts(values: Any) -> Counts | None:
    if values is None:
        return None
    counts = tuple(tuple(_whole(v) for v in row) for row in values)
    if any(len(row) != len(counts) for row in counts):
        raise ValueError("as many columns as rows are needed")
    return counts


def _slides(values: Any) -> tuple[SlideRecord, ...]:
    return tuple(SlideRecord.from_dict(value) for value in values)


def _rows(values: Any) -> tuple[Row, ...]:
    return tuple(_row(value) for value in values)


def _whole_or_none(value: Any) -> int | None:
    return None if value is None else _whole(value)


def _mapping(values: Any) -> dict[str, Any]:
    return {_text(name): value for name, value in values.items()}


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "kind": _kind,
    "model": _mapping,
    "training": _mapping,
    "software": _text_mapping,
    "command": _texts,
    "notes": _texts,
    "slides": _slides,
    "history": _rows,
    "losses": _losses,
    "best": _row,
    "confusion": _counts,
    "steps": _whole,
    "seconds": _number,
    "cpu_seconds": _number,
    "peak_memory": _whole_or_none,
}
"""How each field is read; the others are texts."""


def _read(name: str, value: Any) -> Any:
    reader: Callable[[Any], Any] = _READERS.get(name, _text)
    try:
        return reader(value)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{name} of a run's record cannot be read: {error}.", name
        ) from error


def software_versions() -> dict[str, str]:
    """Versions of Python, of the system and of the packages that matter most."""
    found = {"Python": platform.python_version(), "system": platform.platform()}
    for name in SOFTWARE:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
