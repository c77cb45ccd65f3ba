"""A GPU's memory that runs out anywhere in a pass: the same labels all the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from napari_muvit.core.config import PredictionConfig
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.model.checkpoint import load_model
from napari_muvit.core.prediction import PredictionRun, canvases, engine, predict

Build = Callable[..., Any]


def cpu(**changes: Any) -> PredictionConfig:
    values = {"tile_size": 64, "batch_size": 6, "device": "cpu", "num_threads": 1}
    return PredictionConfig(**(values | changes))


def collect(run: PredictionRun) -> np.ndarray:
    """All tiles in one array; each comes once."""
    labels = np.zeros(run.plan.shape, np.uint8)
    for tile in run:
        y0, x0, y1, x1 = tile.box
        assert not labels[y0:y1, x0:x1].any()
        labels[y0:y1, x0:x1] = tile.labels
    assert labels.all()
    return labels


def running_out(function: Callable[..., Any], period: int) -> Callable[..., Any]:
    """The function, on a device whose memory runs out in every so many calls."""
    calls = itertools.count(1)

    def call(*args: Any, **options: Any) -> Any:
        if next(calls) % period == 0:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return function(*args, **options)

    return call


@pytest.mark.parametrize("overlap", [0.0, 0.4])
@pytest.mark.parametrize(
    "where", ["_canvas", "_weighed", "_blended", "compute_context"]
)
def test_wherever_it_runs_out_no_answer_is_counted_twice(
    slide: Build,
    tiny_model: Build,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    overlap: float,
) -> None:
    pyramid, model = slide((200, 170)), load_model(tiny_model())
    expected = collect(predict(pyramid, model, cpu(overlap=overlap)))
    owner: Any = canvases.Canvases
    if where == "compute_context":
        owner = engine
    # A crop touches a few tiles and contexts, and is tried once more by itself.
    period = 13 if where == "_canvas" else 5
    monkeypatch.setattr(owner, where, running_out(getattr(owner, where), period))
    labels = collect(predict(pyramid, model, cpu(overlap=overlap)))
    np.testing.assert_array_equal(labels, expected)
    assert len(np.unique(expected)) > 1


def test_the_sums_leave_the_device_before_a_run_gives_up(
    slide: Build, tiny_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyramid, model = slide((200, 170)), load_model(tiny_model())
    expected = collect(predict(pyramid, model, cpu()))
    canvas, released = canvases.Canvases._canvas, []

    def little(self: Any, tile: Any) -> Any:
        # No room for more than four tiles of sums at once.
        if tile.index not in self._open and len(self._open) >= 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return canvas(self, tile)

    release = canvases.Canvases.release

    def counted(self: Any) -> None:
        released.append(len(self._open))
        release(self)

    monkeypatch.setattr(canvases.Canvases, "_canvas", little)
    monkeypatch.setattr(canvases.Canvases, "release", counted)
    said: list[str] = []
    run = predict(
        pyramid, model, cpu(), on_progress=lambda event: said.append(event.message)
    )
    np.testing.assert_array_equal(collect(run), expected)
    assert released
    assert any("going on with 1 crops at a time" in text for text in said)

    def none(self: Any, tile: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(canvases.Canvases, "_canvas", none)
    with pytest.raises(ConfigError, match="A single crop does not fit"):
        collect(predict(pyramid, model, cpu()))
