"""A viewer without a window, and a core that is fast: no torch in these tests."""

from __future__ import annotations

import json
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QStandardPaths, QThreadPool

from napari_muvit._tasks import training as training_tasks
from napari_muvit._tasks.screen import ScreenPicture
from napari_muvit.core import prediction
from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.errors import Cancelled
from napari_muvit.core.geometry import Box
from napari_muvit.core.prediction.filled import FilledTile
from napari_muvit.core.prediction.plan import plan_prediction
from napari_muvit.core.prediction.writer import LabelWriter
from napari_muvit.core.progress import Progress
from napari_muvit.core.training.hard_places import HardPlace
from napari_muvit.widgets import MuViTPanel
from napari_muvit.widgets import panel as panel_module

TIMEOUT = 10_000
UM = 0.5


@pytest.fixture(autouse=True)
def no_stray_workers() -> Iterator[None]:
    yield
    assert QThreadPool.globalInstance().waitForDone(TIMEOUT)


@pytest.fixture(autouse=True)
def user_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of in-memory layers go to the test's folder."""
    base = tmp_path / "user"
    monkeypatch.setattr(
        QStandardPaths, "writableLocation", staticmethod(lambda _where: str(base))
    )
    return base / "napari-muvit"


@pytest.fixture(autouse=True)
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks run in threads, where the fake core is."""
    monkeypatch.setattr(panel_module, "make_child", lambda: None)


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def slide() -> np.ndarray:
    """Dark left half, bright right half."""
    pixels = np.full((600, 700), 40, dtype=np.uint8)
    pixels[:, 350:] = 200
    return pixels


@pytest.fixture
def panel(qtbot: Any, viewer: ViewerModel) -> MuViTPanel:
    made = MuViTPanel(viewer)
    qtbot.addWidget(made)
    # What napari does for a docked widget.
    for name in ("inserted", "removed", "reordered"):
        getattr(viewer.layers.events, name).connect(made.reset_choices)
    return made


def write_model(folder: Path, config: ModelConfig) -> Path:
    """A folder that `read_config` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format_version": 2,
        "kind": "MuViTSegmenter",
        "config": config.to_dict(),
    }
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@dataclass
class FakeCore:
    """Records calls; trains in steps of 2 ms, predicts by a threshold."""

    trainings: list[dict[str, Any]] = field(default_factory=list)
    runs: list[FakeRun] = field(default_factory=list)
    live: list[FakeTrainer] = field(default_factory=list)
    pretrainings: list[dict[str, Any]] = field(default_factory=list)
    train_error: BaseException | None = None
    tile_seconds: float = 0.0

    def finetune(
        self,
        images: list[Any],
        annotations: list[Any],
        config: TrainingConfig,
        *,
        model: ModelConfig,
        start: Path | None,
        out: Path,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        resume: bool = False,
    ) -> Any:
        self.trainings.append(
            {"images": images, "annotations": annotations, "config": config,
             "model": model, "start": start}
        )  # fmt: skip
        if self.train_error is not None:
            raise self.train_error
        on_progress(Progress(stage="prepare", done=0, total=1, message="Opening"))
        begin, total = time.monotonic(), (config.minutes or 1) * 60
        step, saved, stopped = 0, False, "minutes"
        while (spent := time.monotonic() - begin) < total:
            if should_stop():
                if not saved:
                    raise Cancelled("Stopped.")
                stopped = "stopped"
                break
            step += 1
            metrics = {"loss": 1 / step, "step": float(step), "epoch": 0.0}
            on_progress(
                Progress(
                    stage="train", done=spent, total=total, unit="s", metrics=metrics
                )
            )
            if step % 10 == 0:
                saved = True
                metrics = {"val_loss": 1.5 / step, "mDSC": 1 - 1 / step}
                on_progress(
                    Progress(
                        stage="validate", done=spent, total=total, unit="s",
                        metrics=metrics,
                    )
                )  # fmt: skip
            time.sleep(0.002)
        write_model(out, model)
        return types.SimpleNamespace(
            model_path=out, config=model, best={"mDSC": 0.9}, history=(),
            stopped=stopped, notes=(), steps=step,
        )  # fmt: skip

    def pretrain(
        self,
        images: list[Any],
        config: TrainingConfig,
        *,
        out: Path,
        model: ModelConfig,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> Any:
        self.pretrainings.append({"images": images, "config": config})
        while not should_stop():
            on_progress(Progress(stage="train", done=1, total=2))
            time.sleep(0.002)
        write_model(out, model)
        return types.SimpleNamespace(
            model_path=out, config=model, best={}, stopped="stopped", notes=(), steps=1
        )

    def trainer(
        self,
        images: list[Any],
        annotations: list[Any],
        config: TrainingConfig,
        *,
        model: ModelConfig,
        start: Path | None,
    ) -> FakeTrainer:
        if self.train_error is not None:
            raise self.train_error
        made = FakeTrainer(annotations, config, model, start)
        self.live.append(made)
        return made

    def predict(
        self, source: Any, model: Path, config: Any, out: Path, **callbacks: Any
    ) -> FakeRun:
        run = FakeRun(self, source, model, config, out, **callbacks)
        self.runs.append(run)
        return run


class FakeScreen:
    """Shows a picture at each step: the steps so far, as a label."""

    def __init__(self, image: Any, box: Box | None, threads: int, show: Any) -> None:
        self.box, self.show = box, show
        self.next = 0.0

    def look(self, box: Box | None) -> None:
        self.box = box

    def stroke(self) -> None:
        self.next = 0.0

    @property
    def due(self) -> bool:
        return self.box is not None and time.monotonic() > self.next

    def take(self, network: Any, steps: int, should_stop: Any) -> None:
        assert self.box is not None
        self.next = time.monotonic() + 0.05
        lower, upper = self.box.lower, self.box.upper
        box = (int(lower[0]), int(lower[1]), int(upper[0]), int(upper[1]))
        shape = (-(-(box[2] - box[0]) // 4), -(-(box[3] - box[1]) // 4))
        self.show(ScreenPicture(box, 4, np.full(shape, 1 + steps % 2, np.uint8), steps))


class FakeTrainer:
    """Like `InteractiveTrainer`; its snapshot is a number."""

    def __init__(
        self,
        annotations: list[Any],
        training: TrainingConfig,
        config: ModelConfig,
        start: Path | None,
    ) -> None:
        self.annotations = list(annotations)
        self.training, self.config, self.start = training, config, start
        self.steps = 0

    def annotate(self, number: int, annotations: Any) -> None:
        self.annotations[number] = annotations

    def snapshot(self) -> int:
        return self.steps

    def hard_places(self, most: int) -> list[HardPlace]:
        return [HardPlace(0, Box((100.0, 120.0), (164.0, 184.0)), 0.4)]

    def run(
        self, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> None:
        begin, total = time.monotonic(), (self.training.minutes or 1) * 60
        while (spent := time.monotonic() - begin) < total:
            if should_stop():
                raise Cancelled("Stopped on request.")
            self.steps += 1
            metrics = {
                "loss": 1 / self.steps, "step": float(self.steps),
                "mDSC": 1 - 1 / self.steps,
            }  # fmt: skip
            on_progress(
                Progress(
                    stage="train", done=spent, total=total, unit="s", metrics=metrics
                )
            )
            time.sleep(0.002)

    def save(self, out: Path) -> Path:
        return write_model(out, self.config)


class FakeRun:
    """Like `PredictionRun`: real plan, real store, a threshold for a model."""

    def __init__(
        self,
        core: FakeCore,
        source: Any,
        model: Path,
        config: Any,
        out: Path,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        from napari_muvit.core.model.checkpoint import read_config

        self.core = core
        self.source = source
        self.config = config
        self.should_stop = should_stop
        self.on_progress = on_progress
        self.stopped = False
        self.focused: list[tuple[float, ...]] = []
        model_config = read_config(model)
        self.plan = plan_prediction(source, model_config, config)
        record = {
            "identity": {"model": str(model), "settings": "", "image": source.name}
        }
        self.writer = LabelWriter(out, source, self.plan, model_config, record)
        self.writer.begin()
        self.levels = self.writer.levels

    def __enter__(self) -> FakeRun:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.writer.close()

    def focus(self, box: tuple[float, ...]) -> None:
        self.focused.append(tuple(box))

    def __iter__(self) -> Iterator[Any]:
        pixels = self.source.levels[0].source
        order = self.plan.order(self.writer.done)
        done = len(self.plan) - len(order)
        try:
            for index in order:
                if self.should_stop():
                    self.stopped = True
                    return
                time.sleep(self.core.tile_seconds)
                tile = self.plan.tile(int(index))
                y0, x0, y1, x1 = tile.box
                block = pixels.read((y0, x0), (y1, x1)).mean(axis=0)
                labels = (1 + (block > 127)).astype(np.uint8)
                self.writer.write(FilledTile(tile, labels))
                done += 1
                self.on_progress(
                    Progress(
                        stage="predict", done=done, total=len(self.plan), unit="tile"
                    )
                )
                yield types.SimpleNamespace(box=tile.box, labels=labels)
        finally:
            self.writer.close()


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> FakeCore:
    fake = FakeCore()
    module = types.ModuleType("napari_muvit.core.training")
    module.finetune = fake.finetune  # type: ignore[attr-defined]
    module.pretrain = fake.pretrain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "napari_muvit.core.training", module)
    monkeypatch.setattr(prediction, "predict", fake.predict, raising=False)
    module = types.ModuleType("napari_muvit.core.training.interactive")
    module.InteractiveTrainer = fake.trainer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(training_tasks, "Screen", FakeScreen)
    return fake


@pytest.fixture
def saved_model(tmp_path: Path) -> Path:
    config = ModelConfig(
        num_classes=2,
        scale_factors=(1, 4),
        crop_size=64,
        class_names=("dark", "bright"),
        class_colors=("#111111", "#eeeeee"),
    )
    return write_model(tmp_path / "saved model", config)
