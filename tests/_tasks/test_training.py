"""Training tasks with real, minute models, called as a job calls them."""

from __future__ import annotations

import dataclasses
import pickle
import queue
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from napari_muvit._tasks import training as module
from napari_muvit._tasks.commands import Annotate, Discard, Look, Pause
from napari_muvit._tasks.pretraining import PretrainTask
from napari_muvit._tasks.screen import ScreenPicture
from napari_muvit._tasks.training import Hard, LiveTrainTask, Trained, TrainTask
from napari_muvit.core import ModelConfig, TrainingConfig, load_model, open_pyramid
from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.errors import Cancelled
from napari_muvit.core.geometry import Box
from napari_muvit.core.progress import Progress

NAMES = ("background", "cell")


def square(label: int, y: float, x: float, edge: float = 40.0) -> tuple[int, Any]:
    return label, [[y, x], [y, x + edge], [y + edge, x + edge], [y + edge, x]]


def outlines(*squares: tuple[int, Any]) -> Annotations:
    return Annotations.from_polygons(squares, class_names=NAMES)


@pytest.fixture
def task(tmp_path: Path) -> LiveTrainTask:
    pixels = np.random.default_rng(0).integers(0, 255, (160, 200), np.uint8)
    model = ModelConfig(
        scale_factors=(1, 2), crop_size=32, embed_dim=16, depth=1, num_heads=2,
        decoder="pyramid", attention="coarse_to_fine", pyramid_channels=(8, 8, 8, 16),
        class_names=NAMES,
    )  # fmt: skip
    return LiveTrainTask(
        images=(open_pyramid(pixels),),
        annotations=(outlines(square(1, 10, 10), square(2, 90, 90)),),
        config=TrainingConfig(steps=6, batch_size=2, num_threads=1, device="cpu"),
        model=model,
        start=None,
        out=tmp_path / "results" / "model",
        look=Box((0, 0), (60, 60)),
    )


class Caller:
    """What a job hands to a task; does things at given steps."""

    def __init__(self, **at_step: Any) -> None:
        self.at_step = {int(name[1:]): what for name, what in at_step.items()}
        self.events: list[Progress] = []
        self.told: list[Any] = []
        self.commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.stopped = False

    def on_progress(self, event: Progress) -> None:
        self.events.append(event)
        if event.stage == "train":
            act = self.at_step.get(int(event.metrics["step"]))
            if callable(act):
                act()
            elif act is not None:
                self.commands.put(act)

    def stop(self) -> None:
        self.stopped = True

    def run(self, task: Any) -> Any:
        return task(
            on_progress=self.on_progress, should_stop=lambda: self.stopped,
            tell=self.told.append, commands=self.commands,
        )  # fmt: skip

    @property
    def steps(self) -> int:
        return sum(event.stage == "train" for event in self.events)


def as_thorough(task: LiveTrainTask) -> TrainTask:
    values = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    return TrainTask(**values)


def test_a_live_training_leaves_a_model_and_shows_the_screen(
    task: LiveTrainTask,
) -> None:
    caller = Caller()
    result = caller.run(task)
    assert result.path == task.out
    assert not result.stopped
    assert result.steps == caller.steps == 6
    assert "Dice cell" in result.best
    assert load_model(task.out).config.names == NAMES
    assert any(isinstance(said, ScreenPicture) for said in caller.told)
    # It all goes from process to process.
    assert pickle.loads(pickle.dumps(result)) == result
    again = pickle.loads(cloudpickle.dumps(task))
    assert again.annotations[0].class_names == NAMES


def test_a_stop_keeps_what_was_learned(task: LiveTrainTask) -> None:
    caller = Caller()
    caller.at_step[3] = caller.stop
    result = caller.run(task)
    assert result.stopped
    assert result.steps == 3
    assert load_model(result.path)


def test_a_stop_before_the_first_step_leaves_nothing(task: LiveTrainTask) -> None:
    caller = Caller()
    caller.stop()
    with pytest.raises(Cancelled):
        caller.run(task)
    assert not task.out.exists()


@pytest.mark.parametrize("thorough", [False, True])
def test_discarding_removes_the_model(
    task: LiveTrainTask, thorough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(module, "FIRST_SAVE_STEPS", 1)
    caller = Caller(_4=Discard())
    with pytest.raises(Cancelled, match="no model was kept"):
        caller.run(as_thorough(task) if thorough else task)
    assert not task.out.exists()


def test_a_pause_waits_and_a_stroke_counts(
    task: LiveTrainTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = Caller(_2=Pause(held=True))
    more = outlines(*(square(2, 10 * k, 100) for k in range(5)))
    slept: list[int] = []

    def sleep(_seconds: float) -> None:
        slept.append(caller.steps)
        if len(slept) == 3:
            caller.commands.put(Annotate(0, more))
            caller.commands.put(Look(Box((100, 100), (140, 150))))
            caller.commands.put(Pause(held=False))

    monkeypatch.setattr(module.time, "sleep", sleep)
    result = caller.run(task)
    assert slept == [2, 2, 2]
    assert result.steps == 6
    dice = [set(e.metrics) for e in caller.events if e.stage == "train"]
    assert "Dice cell" in dice[-1]


def test_what_is_saved_meanwhile_is_a_model(
    task: LiveTrainTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(module, "FIRST_SAVE_STEPS", 2)
    there: list[bool] = []

    def look() -> None:
        there.append((task.out / "model.safetensors").exists())

    Caller(_1=look, _2=look, _3=look, _5=look).run(task)
    assert there == [False, False, True, True]


def test_hard_places_are_told(
    task: LiveTrainTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HARD_SECONDS", 0.0)
    caller = Caller()
    caller.run(task)
    told = [said for said in caller.told if isinstance(said, Hard)]
    assert told
    assert all(0 < wrong <= 1 for _, _, wrong in told[-1].places)


def test_a_thorough_training_keeps_the_best_and_goes_on(task: LiveTrainTask) -> None:
    whole = dataclasses.replace(task.config, steps=8, steps_per_epoch=2)
    thorough = dataclasses.replace(as_thorough(task), config=whole)
    caller = Caller()
    caller.at_step[5] = caller.stop
    first = caller.run(thorough)
    assert first.stopped
    # The same task at the same place, such as after a crash.
    second = Caller()
    result = second.run(thorough)
    assert isinstance(result, Trained)
    assert result.steps == 8
    assert second.steps < 8
    assert "mDSC" in result.best
    assert any(isinstance(said, ScreenPicture) for said in caller.told + second.told)


def test_pretraining_needs_no_annotations(task: LiveTrainTask, tmp_path: Path) -> None:
    assert task.model is not None
    config = TrainingConfig(steps=3, batch_size=2, num_threads=1, device="cpu")
    pretrain = PretrainTask(task.images, config, task.model, tmp_path / "mae")
    result = Caller().run(pretrain)
    assert result.steps == 3
    started = dataclasses.replace(task, start=result.path)
    assert Caller().run(started).steps == 6
