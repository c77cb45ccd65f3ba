"""Python that does what a page does, without napari: for *Copy script*. No Qt.

Slides and annotations are named by their files, so what lies in memory only has to be
saved first, and the sentence says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._tasks.predicting import PredictTask
from .._tasks.training import LiveTrainTask, TrainTask
from ..core.data.annotations import Annotations
from ..core.data.label_image import LabelImage
from ..core.data.project_log import SUFFIX
from ..core.errors import MuvitError
from ..core.export import ExportConfig

HEAD = "from napari_muvit import core\n\n"
WIDTH = 88


@dataclass(frozen=True, slots=True)
class SlideSource:
    """Where a slide can be opened from."""

    name: str
    path: Path | None
    """None: it lies in memory."""
    channels: tuple[int, ...] | None = None
    planes: Mapping[str, int] = field(default_factory=dict)
    pixel_size: float | None = None
    project: Path | None = None
    """File of its annotations."""

    def code(self) -> str:
        """Return the expression that opens it.

        Raises
        ------
        MuvitError
            If there is no file.
        """
        if self.path is None:
            raise MuvitError(
                f"{self.name} lies in memory, so a script cannot open it. Save it as "
                "a file (File > Save), open that, and copy the script again."
            )
        given = {
            "channels": None if self.channels is None else list(self.channels),
            "planes": dict(self.planes) or None,
            "pixel_size": self.pixel_size,
        }
        return _call(
            "core.open_pyramid",
            [repr(str(self.path))],
            {k: repr(v) for k, v in given.items() if v is not None},
        )


def open_script(source: SlideSource) -> str:
    """Open the slide and say what it is."""
    return (
        f"{HEAD}slide = {source.code()}\n"
        "print(slide.shape, slide.num_channels, slide.pixel_size)\n"
        "print(slide.scale_factors)\n"
    )


def annotate_script(source: SlideSource) -> str:
    """Read the annotations and write them as GeoJSON."""
    path = _project(source)
    target = f"{str(path)[: -len(SUFFIX)]}.geojson"
    return (
        f"{HEAD}annotations = core.read_annotations({str(path)!r})\n"
        "print(len(annotations.items), annotations.class_names)\n"
        f"core.write_geojson(annotations, {target!r})\n"
    )


def train_script(
    task: TrainTask | LiveTrainTask, sources: Sequence[SlideSource]
) -> str:
    """Train as the page would, on the annotations as they are in their files.

    Raises
    ------
    MuvitError
        If a slide or its annotations lie in memory.
    """
    labels = [
        _annotations(source, marked)
        for source, marked in zip(sources, task.annotations, strict=True)
    ]
    parts = [
        _list([source.code() for source in sources]),
        _list(labels),
        config_code(task.config),
    ]
    options = {"model": config_code(task.model)}
    if task.start is not None:
        options["start"] = repr(str(task.start))
    if isinstance(task, LiveTrainTask):
        call = _call("core.InteractiveTrainer", parts, options)
        return (
            f"{HEAD}trainer = {call}\n"
            "trainer.run(on_progress=lambda event: print(dict(event.metrics)))\n"
            f"trainer.save({str(task.out)!r})\n"
        )
    call = _call("core.finetune", parts, {**options, "out": repr(str(task.out))})
    return f"{HEAD}result = {call}\nprint(result.model_path, dict(result.best))\n"


def predict_script(task: PredictTask, source: SlideSource) -> str:
    """Predict as the page would, and export what was found."""
    out = str(task.outputs[0])
    config = dataclasses.replace(task.config, preview=False)
    call = _call(
        "core.predict",
        ["slide", repr(str(task.model)), config_code(config)],
        {"out": repr(out)},
    )
    folder = f"{out.removesuffix('.zarr')}_export"
    return (
        f"{HEAD}slide = {source.code()}\n"
        f"run = {call}\n"
        "for tile in run:\n"
        "    print(tile.done, tile.total)\n"
        f"core.export_prediction({out!r}, {folder!r}, {config_code(ExportConfig())})\n"
    )


def config_code(config: Any) -> str:
    """Return the call that makes a settings dataclass: what is not the default."""
    name = f"core.{type(config).__name__}"
    given = {}
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if value != each.default:
            given[each.name] = repr(value)
    return _call(name, [], given)


def _project(source: SlideSource) -> Path:
    if source.project is None or not source.project.is_file():
        raise MuvitError(
            f"Nothing is annotated on {source.name} yet. Outline some regions of each "
            "class on the Annotate page first."
        )
    return source.project


def _annotations(source: SlideSource, marked: Annotations) -> str:
    """Return the expression for the annotations of a slide."""
    images = [item for item in marked.items if isinstance(item, LabelImage)]
    if not images:
        return repr(str(_project(source)))
    (image,) = images
    if image.pyramid.path is None:
        raise MuvitError(
            f"The label image {image.pyramid.name} lies in memory, so a script cannot "
            "open it. Save it as a file (File > Save), open that, and choose it on the "
            "Annotate page."
        )
    given = {
        "values": image.values, "offset": image.offset, "scale": image.scale,
        "class_names": marked.class_names, "class_colors": marked.class_colors,
    }  # fmt: skip
    plain = {"offset": (0.0, 0.0), "scale": (1.0, 1.0)}
    return _call(
        "core.Annotations.from_labels",
        [repr(str(image.pyramid.path))],
        {
            k: repr(dict(v) if isinstance(v, Mapping) else v)
            for k, v in given.items()
            if v is not None and v != plain.get(k)
        },
    )


def _list(parts: Sequence[str]) -> str:
    return _wrapped("[", list(parts), "]")


def _call(name: str, parts: Sequence[str], options: Mapping[str, str]) -> str:
    given = [*parts, *(f"{k}={v}" for k, v in options.items())]
    return _wrapped(f"{name}(", given, ")")


def _wrapped(begin: str, parts: list[str], end: str) -> str:
    """Join on one line, or on a line each where that is too long."""
    short = f"{begin}{', '.join(parts)}{end}"
    if len(short) <= WIDTH - 8 and "\n" not in short:
        return short
    inner = "".join(
        f"    {part.replace(chr(10), chr(10) + '    ')},\n" for part in parts
    )
    return f"{begin}\n{inner}{end}"
