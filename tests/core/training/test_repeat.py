"""The same curve again: from the same seed, however the work is shared."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.errors import ConfigError
from napari_muvit.core.progress import Progress
from napari_muvit.core.training import finetune, pretrain
from napari_muvit.core.training.run_folder import RunFolder
from napari_muvit.core.training.run_log import read_log

Slide = tuple[np.ndarray, np.ndarray]
Rows = list[dict[str, float]]


class Runs:
    """Trainings of one kind on one slide, and their curves."""

    def __init__(self, kind: str, slide: Slide, model: ModelConfig, folder: Path):
        self.kind, self.slide, self.model, self.folder = kind, slide, model, folder
        self.count = 0

    def __call__(self, stop_at: int = 0, **changes: Any) -> Rows:
        """Train, stopped once and gone on with if asked for; returns the log's rows."""
        self.count += 1
        out = self.folder / str(self.count)
        config = TrainingConfig.from_dict(
            {
                "steps": 8, "steps_per_epoch": 3, "batch_size": 4,
                "validation_crops": 6, "device": "cpu", "precision": "32-true",
                "num_threads": 1, **changes,
            }
        )  # fmt: skip
        seen: list[Progress] = []

        def stop() -> bool:
            return stop_at > 0 and sum(e.stage == "train" for e in seen) >= stop_at

        for options in ({"should_stop": stop, "on_progress": seen.append},
                        {"resume": True})[: 2 if stop_at else 1]:  # fmt: skip
            self._train(config, out, options)
        rows = read_log(RunFolder(out).log)
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    def _train(self, config: TrainingConfig, out: Path, options: Any) -> None:
        image, labels = self.slide
        if self.kind == "pretrain":
            pretrain([image], config, model=self.model, out=out, **options)
        else:
            finetune([image], [labels], config, model=self.model, out=out, **options)


@pytest.fixture(params=["finetune", "pretrain"])
def runs(
    request: pytest.FixtureRequest, slide: Slide, tiny_config: ModelConfig,
    tmp_path: Path,
) -> Runs:  # fmt: skip
    return Runs(request.param, slide, tiny_config, tmp_path)


def column(rows: Rows, name: str) -> list[float]:
    return [row[name] for row in rows if name in row]


def test_a_seed_gives_the_same_curve(runs: Runs) -> None:
    first = runs()
    assert len(column(first, "loss")) == 8
    assert len(column(first, "val_loss")) == 3
    assert runs() == first
    assert column(runs(seed=1), "loss") != column(first, "loss")


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(runs: Runs) -> None:
    alone = runs()
    for workers in (1, 3):
        assert runs(num_workers=workers) == alone


def test_passes_of_a_step_change_nothing_in_pretraining(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    # The validation's last batch, of fewer crops, weighed as much as the others.
    train = Runs("pretrain", slide, tiny_config, tmp_path)
    whole = train(validation_crops=7)
    for passes in (2, 4):
        parts = train(accumulate=passes, validation_crops=7)
        assert [r["step"] for r in parts] == [r["step"] for r in whole]
        for name in ("loss", "val_loss", "error 1", "error 4"):
            assert column(parts, name) == pytest.approx(column(whole, name), abs=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16-mixed"},
        {"ema": 0.9, "schedule": "cosine", "warmup": 0.0},
        {"schedule": "constant", "freeze_encoder": True, "early_stop": 3},
    ],
)
def test_a_run_that_goes_on_has_the_same_curve(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    train = Runs("finetune", slide, tiny_config, tmp_path)
    assert train(stop_at=4, **changes) == train(**changes)


def test_pretraining_in_half_precision_goes_on(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    train = Runs("pretrain", slide, tiny_config, tmp_path)
    changes = {"precision": "bf16-mixed", "ema": 0.8, "schedule": "cosine"}
    assert train(stop_at=4, **changes) == train(**changes)


@pytest.mark.parametrize("schedule", ["one_cycle", "constant"])
def test_a_run_that_goes_on_ends_as_early_as_the_unbroken_one(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path, schedule: str
) -> None:
    # So fast that it soon gets no better.
    train = Runs("finetune", slide, tiny_config, tmp_path)
    changes: dict[str, Any] = {
        "steps": 60, "ema": 0.5, "early_stop": 2, "schedule": schedule,
        "learning_rate": 0.3, "encoder_learning_rate": 0.3,
    }  # fmt: skip
    whole = train(**changes)
    steps = len(column(whole, "loss"))
    assert 9 <= steps < 60
    # Behind a validation that was no better, which has to be remembered.
    assert train(stop_at=steps - 1, **changes) == whole


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_a_compiled_run_goes_on(runs: Runs) -> None:
    whole = runs()
    compiled = runs(compile=True)
    for name in ("loss", "val_loss"):
        near = pytest.approx(column(whole, name), abs=1e-2)
        assert column(compiled, name) == near
    assert runs(stop_at=4, compile=True) == compiled


def test_rates_follow_the_schedule(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    train = Runs("finetune", slide, tiny_config, tmp_path)
    peak = {"learning_rate": 1e-3, "warmup": 0.25}
    constant = column(train(schedule="constant", **peak), "rate")
    assert constant[2:] == [1e-3] * 6
    assert constant[0] < constant[1] < 1e-3
    cosine = column(train(schedule="cosine", learning_rate=1e-3, warmup=0.0), "rate")
    wanted = [1e-3 * 0.5 * (1 + np.cos(np.pi * step / 8)) for step in range(8)]
    assert cosine == pytest.approx(wanted, rel=1e-5)


def test_what_a_cpu_or_this_installation_cannot_do_is_one_line(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    train = Runs("finetune", slide, tiny_config, tmp_path)
    for changes in (
        {"precision": "16-mixed"}, {"logger": "tensorboard"}, {"logger": "wandb"}
    ):  # fmt: skip
        if _installed(changes.get("logger", "nothing")):
            continue
        with pytest.raises(ConfigError) as error:
            train(**changes)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def _installed(package: str) -> bool:
    import importlib.util

    names = (package, f"{package}X")
    return any(importlib.util.find_spec(name) is not None for name in names)


def test_fewer_labelled_slides_are_spread(
    slide: Slide, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    image, labels = slide
    images = [np.roll(image, 7 * n, axis=0) for n in range(4)]
    marks = [np.roll(labels, 7 * n, axis=0) for n in range(4)]
    config = TrainingConfig(
        steps=2, batch_size=4, validation_crops=4, device="cpu", num_threads=1,
        precision="32-true", labelled_slides=2,
    )  # fmt: skip
    losses = []
    for name, chosen in (("all", range(4)), ("two", (1, 3))):
        some = config if name == "all" else dataclasses.replace(
            config, labelled_slides=None
        )  # fmt: skip
        finetune([images[n] for n in chosen], [marks[n] for n in chosen], some,
                 model=tiny_config, out=tmp_path / name)  # fmt: skip
        losses.append(column(read_log(RunFolder(tmp_path / name).log), "loss"))
    assert losses[0] == losses[1]
    with pytest.raises(ConfigError, match="there are 1"):
        finetune([image], [labels], config, model=tiny_config, out=tmp_path / "m")
