"""Several slides: each on its own way, whatever becomes of the others."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from napari_muvit._tasks.commands import Look
from napari_muvit._tasks.growing import Tile
from napari_muvit._tasks.predicting import Opened
from napari_muvit._tasks.predicting_many import PredictManyTask, Slide, SlideBegun
from napari_muvit.core.config import ModelConfig, PredictionConfig
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.geometry import Box
from napari_muvit.core.model.checkpoint import save_model
from napari_muvit.core.model.segmenter import build_model
from napari_muvit.core.progress import Progress

CONFIG = PredictionConfig(tile_size=128, device="cpu", num_threads=1, overlap=0.0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(
        decoder="pyramid", scale_factors=(1, 4), num_classes=3, crop_size=32,
        embed_dim=16, depth=1, num_heads=2, pyramid_channels=(8, 8, 8, 8),
    )  # fmt: skip
    save_model(build_model(config), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def slides(tmp_path: Path) -> tuple[Slide, ...]:
    pixels = np.random.default_rng(0).integers(0, 255, (200, 150), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", pixels)
    (tmp_path / "broken.tif").write_bytes(b"no image")
    found = {
        "a": open_pyramid(pixels, name="a"),
        "broken": tmp_path / "broken.tif",
        "b": tmp_path / "b.tif",
    }
    return tuple(
        Slide(name, source, (tmp_path / "out" / f"{name}.zarr",))
        for name, source in found.items()
    )


class Ears:
    """Where a task speaks to."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.events: list[Progress] = []
        self.commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.stop_after = 10**9

    def call(self, task: PredictManyTask) -> Any:
        try:
            return task(
                on_progress=self.events.append, tell=self.told.append,
                should_stop=lambda: len(self.told) > self.stop_after,
                commands=self.commands,
            )  # fmt: skip
        finally:
            self.commands.put(None)


def test_a_broken_slide_does_not_stop_the_others(
    model: Path, slides: tuple[Slide, ...]
) -> None:
    ears = Ears()
    ends = ears.call(PredictManyTask(slides, model, CONFIG, None))
    assert [end.name for end in ends] == ["a", "broken", "b"]
    assert [bool(end.error) for end in ends] == [False, True, False]
    assert "\n" not in ends[1].error
    for slide, end in zip(slides, ends, strict=True):
        if not end.error:
            assert end.path == slide.outputs[0]
            assert open_pyramid(end.path, as_labels=True).shape == (200, 150)
    numbers = [said.number for said in ears.told if isinstance(said, SlideBegun)]
    assert numbers == [0, 1, 2]
    kinds = [type(said) for said in ears.told]
    assert kinds.count(Opened) == 2
    assert kinds.count(Tile) == 8
    assert {e.subject for e in ears.events} == {"a (1 of 3)", "b (3 of 3)"}


def test_a_stop_ends_all_and_another_run_goes_on(
    model: Path, slides: tuple[Slide, ...]
) -> None:
    ears = Ears()
    ears.stop_after = 0
    task = PredictManyTask(slides, model, CONFIG, None)
    ends = ears.call(task)
    assert [(end.name, end.stopped) for end in ends] == [("a", True)]
    ends = Ears().call(task)
    assert [end.name for end in ends if not end.error] == ["a", "b"]
    # All is done: nothing is told but what is there.
    again = Ears()
    again.call(task)
    assert not [said for said in again.told if isinstance(said, Tile)]


def test_the_screen_is_followed_on_each_slide_and_no_thread_is_left(
    model: Path, slides: tuple[Slide, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_muvit.core.prediction.run import PredictionRun

    focused: list[Any] = []
    seen = threading.Event()

    def focus(_run: Any, box: Any) -> None:
        focused.append(box)
        seen.set()

    monkeypatch.setattr(PredictionRun, "focus", focus)
    ears = Ears()
    box = Box((0, 0), (20, 30))

    class Telling(list):  # type: ignore[type-arg]
        def append(self, said: Any) -> None:
            super().append(said)
            if isinstance(said, Opened):
                seen.clear()
                ears.commands.put(Look(box))
                assert seen.wait(5)

    ears.told = Telling()
    before = threading.active_count()
    ears.call(PredictManyTask((slides[0], slides[2]), model, CONFIG, None))
    assert focused == [(0, 0, 20, 30)] * 2
    for _ in range(200):
        if threading.active_count() <= before:
            break
        threading.Event().wait(0.02)
    assert threading.active_count() <= before
