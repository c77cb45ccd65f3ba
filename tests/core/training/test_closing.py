"""What a run leaves beside its model, from the first call to the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.data.pyramid import Pyramid
from napari_muvit.core.errors import PyramidError
from napari_muvit.core.geometry import Box
from napari_muvit.core.model.checkpoint import load_model
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import closing, finetune, pretrain
from napari_muvit.core.training.modules import FineTuneModule
from napari_muvit.core.training.report.record import RunRecord
from napari_muvit.core.training.run_folder import RunFolder

Slide = tuple[np.ndarray, np.ndarray]


def training(**changes) -> TrainingConfig:
    return TrainingConfig.from_dict(
        {"steps": 12, "steps_per_epoch": 4, "batch_size": 4, "validation_crops": 8,
         "device": "cpu", "num_threads": 1, **changes}
    )  # fmt: skip


def record_at(out: Path) -> RunRecord:
    text = RunFolder(out).record.read_text(encoding="utf-8")
    return RunRecord.from_dict(json.loads(text))


def written(folder: Path, slide: Slide, count: int) -> tuple[list[Path], list[Path]]:
    images = [folder / f"im <{n}>.tif" for n in range(count)]
    labels = [folder / f"labels {n}.tif" for n in range(count)]
    for image, label in zip(images, labels, strict=True):
        tifffile.imwrite(image, slide[0])
        tifffile.imwrite(label, slide[1])
    return images, labels


def test_a_run_leaves_its_record_its_curves_and_a_report(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    (image,), (labels,) = written(tmp_path, slide, 1)
    out = tmp_path / "model"
    result = finetune([image], [labels], training(), model=tiny_config, out=out)
    record = record_at(out)
    (recorded,) = record.slides
    assert (recorded.path, recorded.labels) == (str(image), str(labels))
    assert recorded.annotated == tuple(np.bincount(slide[1].ravel())[1:])
    assert record.losses.step == tuple(range(1, 13))
    assert np.isfinite(record.losses.learning_rate).all()
    assert record.best == dict(result.best)
    # Of the kept weights: the matrix gives the Dice that was reported.
    confusion = np.array(record.confusion)[1:, 1:]
    cell = 2 * confusion[1, 1] / (confusion[1].sum() + confusion[:, 1].sum())
    assert cell == pytest.approx(result.best["Dice cell"])
    assert result.report == out / "report.html"
    page = result.report.read_text(encoding="utf-8")
    assert "im &lt;0&gt;" in page
    assert page.count('class="example"') >= 2
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert load_model(out).config == result.config


def test_labels_are_named_where_slides_were_left_out(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    images, labels = written(tmp_path, slide, 3)
    config = training(steps=1, labelled_slides=1)
    finetune(images, labels, config, model=tiny_config, out=tmp_path / "m")
    (recorded,) = record_at(tmp_path / "m").slides
    number = images.index(Path(recorded.path))
    assert recorded.labels == str(labels[number])


def test_pretraining_leaves_a_report_too(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    out = tmp_path / "mae"
    result = pretrain([slide[0]], training(steps=4), model=tiny_config, out=out)
    assert result.report is not None
    page = result.report.read_text(encoding="utf-8")
    assert "reconstruction" in page
    assert f"{result.best['error 4']:.4f}" in page
    assert record_at(out).kind == "pretrain"
    assert record_at(out).confusion is None


def test_slides_that_are_gone_cost_the_examples_only(
    slide: Slide,
    tiny_config: ModelConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = closing._examples

    def read(self: Pyramid, box: Box, *_args: object, **_named: object) -> None:
        raise PyramidError("the drive was taken out")

    def without_slides(*args):
        monkeypatch.setattr(Pyramid, "read", read)
        return real(*args)

    monkeypatch.setattr(closing, "_examples", without_slides)
    result = finetune(
        [slide[0]], [slide[1]], training(steps=4), model=tiny_config, out=tmp_path / "m"
    )
    assert result.report is not None
    assert "the drive was taken out" in result.report.read_text(encoding="utf-8")
    assert (tmp_path / "m" / "curves.png").is_file()


def test_a_report_that_cannot_be_written_costs_nothing_else(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    said: list[str] = []

    def in_the_way(event: Progress) -> None:
        said.append(event.message)
        if event.message == "Writing the report":
            (tmp_path / "m" / "report.html").mkdir()

    result = finetune(
        [slide[0]], [slide[1]], training(steps=4), model=tiny_config,
        out=tmp_path / "m", on_progress=in_the_way,
    )  # fmt: skip
    assert result.report is None
    assert any("its report is not" in message for message in said)
    assert load_model(result.model_path).config == result.config


def test_steps_that_could_not_be_taken_are_said(
    slide: Slide,
    tiny_config: ModelConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A run whose loss was NaN throughout ended like a good one.
    real = FineTuneModule.losses

    def broken(self: FineTuneModule, batch: Any, index: int) -> Any:
        loss, logits = real(self, batch, index)
        return (loss * torch.nan if self.training else loss), logits

    monkeypatch.setattr(FineTuneModule, "losses", broken)
    messages: list[str] = []
    result = finetune(
        [slide[0]], [slide[1]], training(steps=4), model=tiny_config,
        out=tmp_path / "m", on_progress=lambda e: messages.append(e.message),
    )  # fmt: skip
    assert any(m.startswith("4 steps were left out") for m in messages)
    assert result.notes[-1].startswith("4 steps were left out")
