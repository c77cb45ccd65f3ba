"""What the four pages share. No Qt, no napari, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core.config import (
    BACKGROUND_COLOR,
    DEFAULT_COLORS,
    ModelConfig,
    NormalisationMode,
    TrainingConfig,
)
from ..core.data.pyramid import Pyramid
from ..core.data.suggested_levels import suggest_levels
from ..core.errors import AnnotationError, OutputError
from ..core.presets import preset
from .model_library import ModelLibrary
from .slides import SlideEntry


@dataclass(frozen=True, slots=True)
class LabelClass:
    """A class that the user tells apart."""

    name: str
    color: str
    """``#rrggbb``."""


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model folder that can be predicted with or started from."""

    path: Path
    config: ModelConfig
    title: str
    """What the list shows."""


def _starting_classes() -> list[LabelClass]:
    return [
        LabelClass("background", BACKGROUND_COLOR),
        LabelClass("class 1", DEFAULT_COLORS[0]),
    ]


@dataclass(slots=True)
class PanelState:
    """The choices made so far."""

    classes: list[LabelClass] = field(default_factory=_starting_classes)
    current: int = 1
    """Index of the class that is drawn next."""
    touched: bool = False
    """Whether the user (not the panel) made the class list."""
    device: str = "auto"
    """Where to train and predict."""
    preset: str = "tiny"
    model_changes: dict[str, Any] = field(default_factory=dict)
    """Fields of a new model that the user has changed from the preset."""
    training_changes: dict[str, Any] = field(default_factory=dict)
    """Fields of a training that the user has changed from the preset."""
    start: SavedModel | None = None
    """The model that training starts from; None: a new one of the preset."""
    models: list[SavedModel] = field(default_factory=list)
    """Newest first."""
    library: ModelLibrary | None = None
    """Where models are remembered from one session to the next."""
    levels: tuple[float, ...] | None = None
    """Scale factors of a new model; None: those that suit the slide."""
    normalisation: NormalisationMode = "auto"
    """Of a new model."""
    slides: list[SlideEntry] = field(default_factory=list)
    """Of the project."""
    shown: SlideEntry | None = None
    """The slide that is chosen on the Data page."""

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(c.name for c in self.classes)

    @property
    def colors(self) -> dict[str, str]:
        """Colour of each class."""
        return {c.name: c.color for c in self.classes}

    @property
    def current_name(self) -> str:
        """Name of the class that is drawn next, or nothing."""
        return self.classes[self.current].name if self.classes else ""

    def add_class(self, name: str | None = None, color: str | None = None) -> None:
        """Append a class with a free name and colour, and make it the current one."""
        used = {c.color for c in self.classes}
        free = [c for c in DEFAULT_COLORS if c not in used] or list(DEFAULT_COLORS)
        number = len(self.classes)
        while name is None or name in self.names:
            name = f"class {number}"
            number += 1
        self.classes.append(LabelClass(name, color or free[0]))
        self.current = len(self.classes) - 1
        self.touched = True

    def rename_class(self, index: int, name: str) -> str:
        """Give a class another name; return in words why not, or nothing."""
        name = name.strip()
        if problem := self._name_problem(index, name):
            return problem
        self.classes[index] = replace(self.classes[index], name=name)
        self.touched = True
        return ""

    def _name_problem(self, index: int, name: str) -> str:
        old = self.names[index]
        if not name:
            return f"A class needs a name; this one is still called {old!r}."
        # Files tell classes apart whether they are in upper or lower case or not.
        others = [n for k, n in enumerate(self.names) if k != index]
        taken = [n for n in others if n.lower() == name.lower()]
        if taken:
            return f"There is a class {taken[0]!r} already. Choose another name."
        if name.endswith("*"):
            return (
                f"{name!r} ends with *, which marks what is left out. Choose another "
                "name."
            )
        return ""

    def recolor_class(self, index: int, color: str) -> None:
        """Give a class another colour."""
        self.classes[index] = replace(self.classes[index], color=color)

    def remove_class(self, index: int) -> None:
        """Take a class out."""
        del self.classes[index]
        self.current = max(0, min(self.current, len(self.classes) - 1))
        self.touched = True

    def propose_classes(self, classes: list[LabelClass]) -> None:
        """Take over the classes of a label image, unless the user made a list."""
        if not self.touched and classes:
            self.classes = list(classes)
            self.current = 0

    @property
    def network(self) -> tuple[str, Mapping[str, Any]]:
        """Name and settings of the network that training would make."""
        if self.start is not None:
            return self.start.title, self.start.config.to_dict()
        return self.preset, self.network_values

    @property
    def network_values(self) -> dict[str, Any]:
        """Settings of a new model, as the preset and the user say."""
        return {**preset(self.preset).model, **self.model_changes}

    def model_for(self, pyramid: Pyramid) -> Mapping[str, Any]:
        """Return the settings of that network for a slide."""
        values = self.network[1]
        if self.start is not None:
            return values
        return {
            **values,
            "scale_factors": self.factors_for(pyramid),
            "normalisation": self.normalisation,
        }

    def factors_for(self, pyramid: Pyramid) -> tuple[float, ...]:
        """Return the scale factors of that network for a slide."""
        wanted = tuple(self.network[1]["scale_factors"])
        usual = tuple(preset(self.preset).model["scale_factors"])
        if self.start is not None or wanted != usual:
            return wanted  # trained with them, or set among all the settings
        return self.levels or self.suggested(pyramid)

    def suggested(self, pyramid: Pyramid) -> tuple[float, ...]:
        """Return the scale factors of a new model that suit a slide."""
        model = self.network[1]
        usual = tuple(model["scale_factors"])
        return suggest_levels(pyramid.shape, model["crop_size"], usual)

    def remember(self, model: SavedModel) -> None:
        """Put a model first in the list."""
        others = [m for m in self.models if m.path != model.path]
        self.models = [model, *others]
        if self.library is not None:
            # The list is a convenience: a full disk is said where it matters.
            with suppress(OutputError):
                self.library.add(model.path)

    def load_models(self) -> None:
        """Take over the models of the library that can be predicted with."""
        if self.library is not None:
            known = (m for m in self.library.models() if m.segments)
            self.models = [SavedModel(m.path, m.config, m.title) for m in known]

    def new_model(self, pyramid: Pyramid) -> ModelConfig:
        """Return the network of the chosen preset for this slide and these classes."""
        if len(self.classes) < 2:
            raise AnnotationError(
                f"{len(self.classes)} class is too few; at least two are needed. "
                "Add the classes that you want to tell apart on the Annotate page."
            )
        size = pyramid.pixel_size
        values: dict[str, Any] = {
            **preset(self.preset).model,
            "scale_factors": self.factors_for(pyramid),
            "normalisation": self.normalisation,
            "in_channels": pyramid.num_channels,
            "num_classes": len(self.classes),
            "class_names": self.names,
            "class_colors": tuple(c.color for c in self.classes),
            "pixel_size": None if size is None else sum(size) / len(size),
            **self.model_changes,
        }
        return ModelConfig(**values)

    def training(self, minutes: float, num_threads: int) -> TrainingConfig:
        """Return the training of the chosen preset."""
        return TrainingConfig(
            **{
                **preset(self.preset).training,
                "minutes": minutes,
                "num_threads": num_threads,
                "device": self.device,
                **self.training_changes,
            }
        )
