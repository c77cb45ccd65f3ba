"""From a run to its report, with what the run leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.model.checkpoint import load_model
from napari_muvit.core.settings import SETTINGS_FILE, RunSettings, write_settings
from napari_muvit.core.training import check_training, finetune
from napari_muvit.core.training.course import Course
from napari_muvit.core.training.examples import segmentation_examples
from napari_muvit.core.training.report import write_report
from napari_muvit.core.training.run_folder import RunFolder
from napari_muvit.core.training.run_record import (
    describe_device,
    describe_validation,
    peak_memory,
    record_run,
)
from napari_muvit.core.training.split import build_datasets

CPU = torch.device("cpu")


def training(**changes) -> TrainingConfig:
    return TrainingConfig.from_dict(
        {"steps": 12, "steps_per_epoch": 4, "batch_size": 4, "validation_crops": 8,
         "device": "cpu", "num_threads": 1, **changes}
    )  # fmt: skip


def test_a_run_is_recorded_and_reported(
    slide: tuple[np.ndarray, np.ndarray], tiny_config: ModelConfig, tmp_path: Path
) -> None:
    image, labels = tmp_path / "im <1>.tif", tmp_path / "labels.tif"
    tifffile.imwrite(image, slide[0])
    tifffile.imwrite(labels, slide[1])
    config, out = training(), tmp_path / "model"
    result = finetune([image], [labels], config, model=tiny_config, out=out)
    write_settings(out / SETTINGS_FILE, RunSettings(command="finetune"))
    ready = check_training(
        [image], [labels], config, model=tiny_config, out=tmp_path / "other"
    )
    validation = build_datasets(ready.data, ready.validation, config)[1]
    course = Course(
        history=[dict(row) for row in result.history], best=dict(result.best),
        confusion=np.arange(9).reshape(3, 3),
    )  # fmt: skip
    record = record_run(
        result, kind="finetune", training=config, slides=ready.data.slides,
        course=course, log=RunFolder(out).log, device=CPU,
        settings=RunSettings(images=(str(image),), labels=(str(labels),)),
        validation=describe_validation(validation, 0.15, own_slides=False),
    )  # fmt: skip
    (recorded,) = record.slides
    assert (recorded.path, recorded.labels) == (str(image), str(labels))
    assert recorded.annotated == tuple(np.bincount(slide[1].ravel())[1:])
    assert record.losses.step == tuple(range(1, 13))
    assert np.isfinite(record.losses.learning_rate).all()
    assert record.best in record.history
    assert record.best["mDSC"] == result.best["mDSC"]
    assert record.confusion == ((0, 1, 2), (3, 4, 5), (6, 7, 8))
    assert record.config_file == str(out / "config.yaml")
    assert "15 %" in record.validation
    assert "cells of" in record.validation

    examples = segmentation_examples(load_model(out), validation, count=2)
    report = write_report(out, record, examples)
    page = report.read_text(encoding="utf-8")
    assert "im &lt;1&gt;" in page
    assert page.count("<img ") == 1 + 2 * 5
    # The model beside it is what it was.
    assert load_model(out).config == result.config


def test_what_was_validated_on_is_said(
    slide: tuple[np.ndarray, np.ndarray], tiny_config: ModelConfig, tmp_path: Path
) -> None:
    few = np.where(np.arange(160) < 3, slide[1], 0)
    ready = check_training(
        [slide[0]], [few[:, :].astype(np.uint8)], training(validation_share=0),
        model=tiny_config, out=tmp_path / "m",
    )  # fmt: skip
    dataset = build_datasets(ready.data, (), training(validation_share=0))[1]
    assert "shows the fit" in describe_validation(dataset, 0.15, own_slides=False)
    assert describe_validation(dataset, 0.15, own_slides=True) == ""


def test_devices_in_words() -> None:
    assert describe_device(CPU, training()) == "CPU, 1 thread"
    assert describe_device(CPU, training(num_threads=3)) == "CPU, 3 threads"
    several = training(devices=2, precision="bf16-mixed")
    assert describe_device(CPU, several) == "2 × CPU, 1 thread, bf16-mixed"
    assert describe_device(torch.device("mps"), training()) == "MPS"


def test_the_peak_of_the_memory_is_at_least_what_is_held() -> None:
    pytest.importorskip("resource")
    held = np.ones(30 * 2**20, np.uint8)
    peak = peak_memory(CPU)
    assert peak is not None
    assert held.nbytes < peak < 2**40
