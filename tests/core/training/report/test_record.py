"""A run's record: to JSON and back, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.data.annotations import Annotations
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.training.prepare import prepare
from napari_muvit.core.training.report.loss_trace import LossTrace, read_losses
from napari_muvit.core.training.report.record import (
    RunRecord,
    SlideRecord,
    StepLosses,
    software_versions,
)
from napari_muvit.core.training.run_log import RunLog

MODEL = ModelConfig(num_classes=2, class_names=("background", "cell"))


def record(**changes) -> RunRecord:
    values = {
        "kind": "finetune",
        "model": MODEL.to_dict(),
        "training": TrainingConfig(steps=5).to_dict(),
        "slides": (SlideRecord(name="a", shape=(8, 9), annotated=(3, 4)),),
        "notes": ("one <note>",),
        "history": ({"step": 5.0, "val_loss": math.nan, "mDSC": 0.5},),
        "best": {"step": 5.0, "mDSC": 0.5},
        "losses": StepLosses(step=(1,), loss=(math.inf,), learning_rate=(0.1,)),
        "confusion": ((0, 0, 0), (0, 5, 1), (0, 2, 7)),
        "steps": 5,
        "peak_memory": 2**30,
        **changes,
    }
    return RunRecord(**values)


def test_it_goes_to_json_and_back() -> None:
    plain = record().to_dict()
    text = json.dumps(plain, allow_nan=False)
    read = RunRecord.from_dict(json.loads(text))
    assert read.to_dict() == plain
    assert read.confusion == record().confusion
    assert read.slides == record().slides
    assert read.best == record().best
    # Numbers that JSON does not know are missing, not zero.
    assert math.isnan(read.history[0]["val_loss"])
    assert math.isnan(read.losses.loss[0])
    assert read.class_names == ("background", "cell")
    assert read.background == 1
    assert len(read.class_colors) == 2


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        record().steps = 7  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "guess"}, "neither finetune nor pretrain"),
        ({"model": None}, "model of a run's record"),
        ({"steps": 1.5}, "no whole number"),
        ({"steps": True}, "no whole number"),
        ({"seconds": "long"}, "no number"),
        ({"notes": "one text"}, "no list of texts"),
        ({"history": [[1, 2]]}, "history of a run's record"),
        ({"history": [{"step": "x"}]}, "no number"),
        ({"confusion": [[1, 2], [3]]}, "as many columns as rows"),
        ({"slides": [{"name": "a", "role": "spare"}]}, "choose one of"),
        ({"slides": [{"name": "a", "size": 1}]}, "does not know size"),
        ({"losses": {"step": [1], "loss": []}}, "same number"),
        ({"colour": "red"}, "colour that is not known"),
    ],
)
def test_what_is_wrong_is_said(change: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RunRecord.from_dict({**record().to_dict(), **change})


@pytest.mark.parametrize("name", ["kind", "model", "training"])
def test_what_is_missing_is_said(name: str) -> None:
    values = record().to_dict()
    del values[name]
    with pytest.raises(ConfigError, match=f"lacks {name}"):
        RunRecord.from_dict(values)


def test_a_slide_is_recorded_with_its_annotations() -> None:
    labels = np.zeros((40, 50), np.uint8)
    labels[:10, :10], labels[20:30, :40] = 1, 2
    image = open_pyramid(np.arange(2000, dtype=np.uint16).reshape(40, 50))
    config = ModelConfig(crop_size=16, num_classes=3, scale_factors=(1,))
    data = prepare([image], [Annotations.from_labels(labels)], config, seed=0)
    found = SlideRecord.of(data.slides[0], "validation", labels="labels.tif")
    assert found.annotated == (100, 400, 0)
    assert found.shape == (40, 50)
    assert (found.role, found.labels, found.path) == ("validation", "labels.tif", "")


def test_versions_are_texts() -> None:
    found = software_versions()
    assert {"Python", "system", "torch", "numpy"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())


numbers = st.lists(st.floats(-10, 10, width=16), max_size=300)


@given(values=numbers, most=st.integers(2, 40))
def test_a_long_run_keeps_its_means_in_few_points(values, most) -> None:
    trace = LossTrace(most=most)
    for step, value in enumerate(values, start=1):
        trace.add(step, value, step / 10)
    found = trace.losses()
    assert len(found.step) <= most
    assert list(found.step) == sorted(set(found.step))
    assert found.span == 1 or len(values) > most
    if values:
        assert found.step[-1] == len(values)
        assert found.learning_rate[-1] == len(values) / 10
        counts = np.diff([0, *found.step])
        assert counts.max() <= found.span
        mean = float(np.dot(counts, found.loss)) / len(values)
        assert mean == pytest.approx(np.mean(values), abs=1e-9)


def test_steps_done_again_take_the_place_of_the_old_ones() -> None:
    trace = LossTrace(most=100)
    for step in range(1, 11):
        trace.add(step, 1.0)
    for step in range(6, 9):
        trace.add(step, 2.0)
    assert trace.losses().step == tuple(range(1, 9))
    assert trace.losses().loss == (1.0,) * 5 + (2.0,) * 3


def test_losses_that_are_no_numbers_are_left_out_of_the_means() -> None:
    trace = LossTrace(most=2)
    for step, loss in enumerate([1.0, math.nan, math.nan, math.nan], start=1):
        trace.add(step, loss)
    found = trace.losses()
    assert found.step == (2, 4)
    assert found.loss[0] == 1.0
    assert math.isnan(found.loss[1])


def test_losses_are_read_from_the_log_of_a_run(tmp_path: Path) -> None:
    names = ["val_loss", "mDSC"]
    log = RunLog(tmp_path / "metrics.csv", names, first_step=0, warn=pytest.fail)
    for step in range(1, 11):
        log.add({"step": step, "seconds": 0.1, "loss": step / 4, "rate": 0.5})
        if step == 5:
            log.add({"step": step, "seconds": 0.2, "val_loss": 9.0, "mDSC": 0.5})
    log.flush()
    found = read_losses(log.path)
    assert found.step == tuple(range(1, 11))
    assert found.loss == tuple(step / 4 for step in range(1, 11))
    assert set(found.learning_rate) == {0.5}
    assert read_losses(log.path, most=5).step == (2, 4, 6, 8, 10)
    # A killed run may leave half a row; what is no number is no loss.
    with log.path.open("a") as file:
        file.write("11,0.3,odd,0.5,,\n,,,,,\n12,0.3,1.5")
    found = read_losses(log.path)
    assert found.step == tuple(range(1, 12))
    assert math.isnan(found.loss[-1])
    assert read_losses(tmp_path / "none.csv") == StepLosses()
    assert read_losses(tmp_path) == StepLosses()
