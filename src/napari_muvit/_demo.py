"""The demo: a slide is made, a model trained on it, another slide predicted.

Two models of one preset are trained for the same number of steps: one sees the
surroundings of each crop, the other the crop alone. The paper's
Synthetic task (section 4.1) asks whether a cell lies inside a ring, which the crop
alone cannot show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .core.config import PredictionConfig, TrainingConfig
from .core.errors import Cancelled, OutputError
from .core.presets import PRESETS
from .core.progress import Progress, ProgressFn, StopFn

if TYPE_CHECKING:
    from .core.data.pyramid import Pyramid
    from .core.evaluation import Evaluation

TRAIN_SIZE, TEST_SIZE, FIELD = 4096, 2048, 256
PANEL, VIEW = 560, 896
"""Edge of a panel of the picture, and of the part of the slide that it shows, px."""
MODELS = {"context": (1, 4), "no_context": (1,)}
TITLES = {"context": "with context", "no_context": "without context"}
MARKER = "demo.json"


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Where everything lies."""

    folder: Path

    @property
    def train(self) -> Path:
        """Folder of the training slide."""
        return self.folder / "slides" / "train"

    @property
    def test(self) -> Path:
        """Folder of the held-out slide."""
        return self.folder / "slides" / "test"

    def model(self, key: str) -> Path:
        """Model folder."""
        return self.folder / "models" / key

    def prediction(self, key: str) -> Path:
        """OME-Zarr labels."""
        return self.folder / "predictions" / f"{key}.zarr"

    @property
    def picture(self) -> Path:
        """Image, truth and both predictions side by side."""
        return self.folder / "demo.png"


def run(
    folder: Path,
    steps: int,
    seed: int,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> str:
    """Run the demo and return its summary.

    Raises
    ------
    OutputError
        If ``folder`` holds something else.
    Cancelled
        If it was stopped; what is finished stays.
    """
    from .core.data.synthetic import write_synthetic

    files = DemoFiles(folder)
    _training(steps, seed)  # refuses wrong numbers before anything is made
    _claim(files)
    shared: dict[str, Any] = {
        "field": FIELD, "on_progress": on_progress, "should_stop": should_stop,
    }  # fmt: skip
    train = write_synthetic(files.train, images=1, size=TRAIN_SIZE, seed=seed, **shared)
    test = write_synthetic(
        files.test, images=1, size=TEST_SIZE, seed=seed + 1000, **shared
    )
    scores: dict[str, Evaluation] = {}
    lines: list[str] = []
    for key in MODELS:
        on_progress(_message(f"Training the model {TITLES[key]}"))
        lines.append(
            _train(files, key, train[0], steps, seed, on_progress, should_stop)
        )
        scores[key] = _predict(files, key, test[0], on_progress, should_stop)
    draw_picture(files, test[0], scores)
    text = summary(files, scores, lines)
    _mark(files, {"steps": steps, "seed": seed, "summary": text})
    return text


def finished_summary(folder: Path, steps: int, seed: int) -> str | None:
    """Summary of a finished demo of these numbers; None where there is none."""
    try:
        state = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(state, dict) or (state.get("steps"), state.get("seed")) != (
        steps,
        seed,
    ):
        return None
    return str(state["summary"]) if "summary" in state else None


def _mark(files: DemoFiles, state: Mapping[str, Any]) -> None:
    content = {"made_by": "napari-muvit demo", **state}
    (files.folder / MARKER).write_text(json.dumps(content, indent=1) + "\n")


def _claim(files: DemoFiles) -> None:
    folder = files.folder
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; a folder for the demo is needed.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise OutputError(f"{folder} holds other files; choose another --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _mark(files, {})
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}.") from error


def _training(steps: int, seed: int) -> TrainingConfig:
    # Steps, not minutes: the same result on a slow or busy machine, only later.
    limits = {"minutes": None, "steps": steps, "seed": seed}
    return TrainingConfig(**{**PRESETS["tiny"].training, **limits})


def _message(text: str) -> Progress:
    return Progress(stage="prepare", done=0, total=1, message=text)


def _train(
    files: DemoFiles,
    key: str,
    slide: tuple[Path, Path],
    steps: int,
    seed: int,
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> str:
    from .core.training import finetune
    from .core.training.prepare import (
        model_config_for,
        open_annotations,
        open_images,
    )

    images = open_images([slide[0]])
    labels = open_annotations([slide[1]], images)
    model = model_config_for("tiny", images, labels, scale_factors=MODELS[key])
    result = finetune(
        images,
        labels,
        _training(steps, seed),
        model=model,
        out=files.model(key),
        overwrite=True,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if result.stopped == "stopped":
        raise Cancelled("The demo was stopped; what is finished is kept.")
    return (
        f"trained {TITLES[key]}: {result.steps} steps, {result.seconds:.0f} s, "
        f"{result.cpu_seconds:.0f} CPU-seconds"
    )


def _predict(
    files: DemoFiles,
    key: str,
    slide: tuple[Path, Path],
    on_progress: ProgressFn,
    should_stop: StopFn,
) -> Evaluation:
    from .core.evaluation import evaluate
    from .core.prediction.entry import predict

    run = predict(
        slide[0],
        files.model(key),
        PredictionConfig(overwrite=True),
        out=files.prediction(key),
        on_progress=on_progress,
        should_stop=should_stop,
    )
    for _tile in run:
        pass
    if run.stopped:
        raise Cancelled("The demo was stopped; what is finished is kept.")
    return evaluate(files.prediction(key), slide[1])


def summary(
    files: DemoFiles, scores: Mapping[str, Evaluation], lines: list[str]
) -> str:
    """Dice per class of both models, and where the files lie."""
    text = list(lines)
    for key, score in scores.items():
        figures = "  ".join(
            f"{name} {dice:.3f}"
            for name, dice in zip(score.class_names, score.dice, strict=True)
        )
        text.append(f"Dice {TITLES[key]:<16} {figures}  mDSC {score.mdice:.3f}")
    text += [
        f"model       {files.model('context')}",
        f"prediction  {files.prediction('context')}",
        f"picture     {files.picture}",
    ]
    return "\n".join(text)


def draw_picture(
    files: DemoFiles, slide: tuple[Path, Path], scores: Mapping[str, Evaluation]
) -> None:
    """Write image, truth and both predictions side by side as a PNG."""
    from PIL import Image, ImageDraw, ImageFont

    from .core.data.open import open_pyramid

    pyramid = open_pyramid(slide[0])
    grey = _window(pyramid)
    panels = [("image", None), ("truth", slide[1])]
    panels += [
        (f"{TITLES[key]}: mDSC {scores[key].mdice:.3f}", files.prediction(key))
        for key in MODELS
    ]
    gap, head, foot = 14, 34, 40
    width = len(panels) * (PANEL + gap) + gap
    canvas = Image.new("RGB", (width, head + PANEL + foot), "white")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=18)
    for index, (title, labels) in enumerate(panels):
        left = gap + index * (PANEL + gap)
        rgb = np.repeat(grey[..., None], 3, axis=-1)
        if labels is not None:
            rgb = _overlay(rgb, open_pyramid(labels), scores["context"])
        part = Image.fromarray(rgb).resize((PANEL, PANEL), Image.Resampling.LANCZOS)
        canvas.paste(part, (left, head))
        pen.text((left, 8), title, fill="black", font=font)
    left = gap
    for name, color in _legend(scores["context"]):
        pen.rectangle(
            (left, head + PANEL + 12, left + 18, head + PANEL + 30), fill=color
        )
        pen.text((left + 26, head + PANEL + 10), name, fill="black", font=font)
        left += 150
    canvas.save(files.picture)


def _legend(score: Evaluation) -> list[tuple[str, str]]:
    from .core.data.synthetic import CLASS_COLORS

    return [
        (name, color)
        for name, color in zip(score.class_names, CLASS_COLORS, strict=True)
        if name != "background"
    ]


def _window(pyramid: Pyramid) -> NDArray[np.uint8]:
    """The middle of a slide, (VIEW, VIEW), as grey values."""
    lower = [(n - VIEW) // 2 for n in pyramid.shape]
    pixels = pyramid.levels[0].source.read(lower, [v + VIEW for v in lower])[0]
    return np.asarray(pixels, dtype=np.uint8)


def _overlay(
    rgb: NDArray[np.uint8], labels: Pyramid, score: Evaluation
) -> NDArray[np.uint8]:
    """Colour the cells by their class."""
    classes = _window(labels)
    out = rgb.astype(np.float32) * 0.75
    for k, name in enumerate(score.class_names, start=1):
        color = dict(_legend(score)).get(name)
        if color is not None:
            value = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
            out[classes == k] = value
    return out.clip(0, 255).astype(np.uint8)


def show(folder: Path) -> None:
    """Open slide, truth and predictions of a finished demo in napari."""
    import napari

    from .core.data.open import open_pyramid

    files = DemoFiles(folder)
    viewer = napari.Viewer(title="napari-muvit demo")
    image = open_pyramid(files.test / "000_image.zarr")
    scale = image.pixel_size or (1.0, 1.0)
    common: dict[str, Any] = {
        "scale": scale,
        "units": "um" if image.pixel_size else None,
    }
    viewer.add_image(
        _arrays(image),
        name="slide",
        contrast_limits=(0, 255),
        multiscale=True,
        **common,
    )
    truth = open_pyramid(files.test / "000_labels.zarr")
    viewer.add_labels(_arrays(truth), name="truth", visible=False, **common)
    for key in MODELS:
        labels = open_pyramid(files.prediction(key))
        viewer.add_labels(
            _arrays(labels), name=TITLES[key], visible=key == "context", **common
        )
    napari.run()


def _arrays(pyramid: Pyramid) -> list[Any]:
    return [level.source.array for level in pyramid.levels]
